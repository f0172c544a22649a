// The filter that the table and the map share: its fields, and chips that say what acts and take it away.

import { verdictLabel } from "./colour.js";
import { columnsOf, isNarrowed, isUnfiltered, site } from "./concepts.js";
import { el } from "./elements.js";
import { DEFAULTS, lasso, set, state, tell } from "./state.js";

/** Keys whose change lets other concepts through. */
export const FILTER_KEYS = ["q", "verdict", "low", "high", "fires", "lasso", "all"];
/** What lets everything through. */
export const UNFILTERED = { q: "", verdict: "", low: DEFAULTS.low, high: DEFAULTS.high, fires: 0 };

/** Lets all concepts through again that the lasso left out. */
export function clearLasso() {
  lasso.ids = null;
  tell(new Set(["lasso"]));
}

/** What acts, with a button. */
const chip = (said, text, label, onclick) => el("span", { className: "chip" }, el("span", {}, ...said),
  el("button", { type: "button", textContent: text, "aria-label": label, onclick }));
/** What acts, with a button that takes it away. */
export const clear = (said, changes, label) => chip(said, "✕", `clear the filter: ${label}`, () => set(changes));

/** What acts on set i, each with a way to clear it; `hasList`: here the list may be narrowed by itself. */
export function chips(i, hasList) {
  const parts = [];
  if (state.q) parts.push(clear(["search: ", el("bdi", { textContent: state.q })], { q: "" }, "search"));
  const verdict = site.verdicts.find((each) => each.name === state.verdict);
  if (verdict) parts.push(clear(["verdict: ", verdictLabel(verdict)], { verdict: "" }, "verdict"));
  if (state.low > 0 || state.high < 1) parts.push(clear([`delta from ${state.low} to ${state.high}`], { low: 0, high: 1 }, "delta"));
  if (state.fires > 0) parts.push(clear([`fires at least ${state.fires} times in real images`], { fires: 0 }, "fires"));
  if (lasso.ids) parts.push(chip([`lasso: ${lasso.ids.size} concepts`], "clear the lasso", "clear the lasso", clearLasso));
  if (parts.length > 1) {
    parts.push(el("button", {
      type: "button", className: "link", textContent: "clear all filters",
      onclick: () => { lasso.ids = null; set({ ...UNFILTERED }); tell(new Set(["lasso"])); },
    }));
  }
  if (hasList && isNarrowed(i)) {
    const names = site.verdicts.filter((each) => each.sign).map((each) => each.name).join(", ");
    parts.push(chip([`shown: ${names}`], `show all ${site.n}`, `show all ${site.n} concepts`, () => set({ all: true })));
  }
  const isHinted = !hasList && !isUnfiltered();
  return el("div", { className: "chips", role: "group", "aria-label": "filters that act here" }, ...parts,
    isHinted ? el("span", { className: "hint", textContent: "the others are faded" }) : null);
}

/** How many concepts of set i have each verdict, in the order of site.verdicts; all, or those that `keep` marks. */
export function countVerdicts(i, keep = null) {
  const counts = new Array(site.verdicts.length).fill(0);
  columnsOf(i).verdict.forEach((v, k) => { if (!keep || keep[k]) counts[v] += 1; });
  return counts;
}
