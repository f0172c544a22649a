// The table of concepts: filter, sort, and the current view as CSV.

import { bareBar } from "./called.js";
import { verdictLabel } from "./colour.js";
import { captionWith, columnsOf, filtered, fixed, formOf, isNarrowed, loadColumns, percent, ratioText, setNumber, short, site, verdictOf, whole } from "./concepts.js";
import { downloadCsv } from "./csv.js";
import { breathe, choice, el } from "./elements.js";
import { chips, FILTER_KEYS, UNFILTERED } from "./filter.js";
import { fromHit, hits, marked } from "./marked.js";
import { isSheet } from "./opening.js";
import { rowsOf } from "./rows.js";
import { DEFAULTS, set, state } from "./state.js";

// Key that it sorts by, heading, whether it holds numbers, columns of the tables that it shows.
const HEADINGS = [
  ["concept", "id", true, ["concept"]], ["name", "name", false, ["words"]], ["verdict", "verdict", false, ["verdict"]],
  ["log_ratio", "generated / real", true, ["log_ratio"]], ["near", "95 % interval", false, ["low", "high"]],
  ["prevalence_real", "in real images", true, ["prevalence_real"]], ["prevalence_generated", "in generated images", true, ["prevalence_generated"]],
  ["q_material", "q of the margin", true, ["q_material"]],
  ["fires_real", "fires in real", true, ["fires_real"]], ["fires_generated", "fires in generated", true, ["fires_generated"]],
  ["delta", "delta", true, ["delta"]], ["difference", "difference", true, ["difference"]],
];
let listing = null; // {ids, rows} as they are drawn

/** Draws the view into `root`. */
export async function showTable(root) {
  const i = setNumber(state.model);
  await loadColumns(i);
  root.replaceChildren(quick(), filters(i), help(i), el("div", { id: "rows" }));
  await breathe();
  filtered(i); // which remembers the order
  await breathe();
  drawRows();
}

/** Brings the rows up to date. */
export function updateTable(keys) {
  if ([...FILTER_KEYS, "sort", "down"].some((k) => keys.has(k))) drawRows();
  else if (keys.has("concept")) markRow();
}

/** Ready-made views; pressed is the one that is shown. */
function quick() {
  const button = (text, changes) => el("button", {
    type: "button", textContent: text,
    onclick: () => { set({ ...UNFILTERED, all: false, ...changes }); redrawFilters(); },
  });
  const told = site.verdicts.filter((each) => each.sign);
  return el("div", { className: "toolbar", role: "group", "aria-label": "ready-made views" },
    button("all that changed", { sort: DEFAULTS.sort, down: false }),
    ...told.map(({ name, sign }) => button(name, { verdict: name, sort: "near", down: sign > 0 })),
    ...site.verdicts.filter((each) => !each.is_judged).map(({ name }) =>
      button(name, { verdict: name, sort: "fires_real", down: true })),
    button("all", { all: true, sort: DEFAULTS.sort, down: false }));
}

function redrawFilters() {
  document.querySelector(".filters")?.replaceWith(filters(setNumber(state.model)));
}

/** The fields that decide what is listed, here and on the map. */
export function filters(i) {
  const number = (label, key, step, most) => {
    const field = el("input", {
      type: "number", min: 0, max: most, step, value: state[key],
      onchange: () => set({ [key]: field.value === "" ? DEFAULTS[key] : Number(field.value) }),
    });
    return el("label", {}, `${label} `, field);
  };
  const text = el("input", {
    type: "search", id: "search", value: state.q, placeholder: "name, caption or id",
    oninput: () => set({ q: text.value }),
  });
  return el("div", { className: "toolbar filters" },
    el("label", {}, "search ", text),
    choice("verdict", [["", "any"], ...site.verdicts.map(({ name }) => [name, name])], state.verdict, (verdict) => set({ verdict })),
    number(`delta from`, "low", 0.01, 1), number("to", "high", 0.01, 1), number("least fires", "fires", 1, 1e12),
    el("button", { type: "button", textContent: "CSV of this view", onclick: () => exportCsv(i) }),
    el("span", { className: "hint", textContent: `delta: ${formOf(i)}` }));
}

/** What the columns mean, in the words of the tables' own list. */
function help(i) {
  const meaning = (name) => {
    const [unit, text] = site.columns[name];
    return el("p", {}, el("code", { textContent: name }), ` ${text}${unit ? ` (${unit})` : ""}`);
  };
  return el("details", { className: "help" }, el("summary", { textContent: "What the columns mean" }),
    el("dl", {}, ...HEADINGS.map(([, heading, , names]) => el("div", {}, el("dt", { textContent: heading }), el("dd", {}, ...names.map(meaning))))),
    el("p", { className: "hint", textContent: `The bar of an interval reaches from 1/32 to 32 times the real amount; its middle is as real. ${site.sets[i].rule}` }));
}

/** A short text of what a column means. */
const meaningsOf = (names) => names.map((name) => `${name}: ${site.columns[name][1]}`).join("; ");

function headRow() {
  return el("tr", {}, ...HEADINGS.map(([key, text, isNumber, names]) => {
    const isSorted = state.sort === key;
    return el("th", { scope: "col", "data-width": `col-${key}`, className: isNumber ? "number" : "", "aria-sort": isSorted ? (state.down ? "descending" : "ascending") : "none" },
      el("button", {
        type: "button", textContent: text + (isSorted ? (state.down ? " ↓" : " ↑") : ""), title: meaningsOf(names),
        onclick: () => set({ sort: key, down: isSorted ? !state.down : false }),
      }));
  }));
}

function rowOf(i, k) {
  const c = columnsOf(i);
  const verdict = verdictOf(i, k);
  const isKnown = !Number.isNaN(c.log_ratio[k]);
  const open = (end) => (Number.isFinite(end) ? end : null);
  const interval = ratioText(c, k);
  const cells = [
    el("button", { type: "button", textContent: String(k), "aria-label": `show concept ${k}`, onclick: () => set({ concept: k }) }),
    nameOfRow(k),
    verdictLabel(verdict, site.sets[i].meanings[c.verdict[k]]),
    isKnown ? short(Math.exp(c.log_ratio[k])) : "–",
    isKnown ? el("div", { className: "ends", title: interval }, bareBar(open(c.low[k]), c.log_ratio[k], open(c.high[k]), verdict, interval),
      el("span", { className: "unseen", textContent: interval })) : "–",
    percent(c.prevalence_real[k]), percent(c.prevalence_generated[k]), short(c.q_material[k]),
    whole(c.fires_real[k]), whole(c.fires_generated[k]), fixed(c.delta[k]), short(c.difference[k]),
  ];
  const row = el("tr", { className: k === state.concept ? "selected" : "", onclick: () => set({ concept: k }) },
    ...cells.map((cell, place) => el("td", { className: HEADINGS[place][2] ? "number" : "" }, cell)));
  row.dataset.concept = k;
  row.dataset.verdict = verdict.name;
  return row;
}

/** The name with what is searched marked; where a caption has it instead, that caption. */
function nameOfRow(k) {
  const caption = state.q && !hits(site.names[k], state.q).length ? captionWith(k, state.q.trim().toLowerCase()) : null;
  const name = marked(site.names[k], state.q, { title: site.names[k] });
  if (caption) name.append(" ", el("span", { className: "hint", title: `a caption of its images: ${caption}` }, "“", marked(fromHit(caption, state.q), state.q), "”"));
  return name;
}

function drawRows() {
  const i = setNumber(state.model);
  if (!columnsOf(i)) return; // another model is on its way
  const ids = filtered(i);
  const place = document.getElementById("rows");
  if (!place) return;
  const hadFocus = place.contains(document.activeElement) ? document.activeElement.closest("th")?.cellIndex : undefined;
  const rows = rowsOf(ids, headRow(), (k) => rowOf(i, k), "concepts");
  listing = { ids, rows };
  const order = state.sort === DEFAULTS.sort ? "; what changed most beyond doubt first" : "";
  place.replaceChildren(el("div", { className: "line" },
    el("p", { className: "hint", role: "status", textContent: `${ids.length} of ${site.n} concepts${order}` }), chips(i, true)), rows.node);
  rows.start();
  if (hadFocus !== undefined) rows.node.querySelectorAll("th button")[hadFocus]?.focus({ preventScroll: true });
  for (const button of document.querySelectorAll("[aria-label='ready-made views'] button")) {
    button.setAttribute("aria-pressed", String(button.textContent === (state.verdict || (isNarrowed(i) ? "all that changed" : "all"))));
  }
  markRow();
}

/** Marks the row of the selected concept and keeps it in sight. */
function markRow() {
  if (!listing) return;
  const { ids, rows } = listing;
  const place = ids.indexOf(state.concept);
  if (place >= 0) {
    rows.show(place);
    uncover(rows.node);
  }
  rows.each((row) => row.classList.toggle("selected", Number(row.dataset.concept) === state.concept));
}

/** On a phone the panel lies over the foot of the page: the table moves above it. */
function uncover(node) {
  if (!isSheet()) return;
  const { maxHeight } = getComputedStyle(document.getElementById("panel"));
  const free = window.innerHeight - Number.parseFloat(maxHeight); // it may still be filled
  const { top, bottom } = node.getBoundingClientRect();
  if (top < 0 || bottom > free) node.scrollIntoView({ block: "start" });
}

/** The ids listed now, in their order; none while their numbers are on their way. */
export const listed = () => listing?.ids ?? [];

function exportCsv(i) {
  const c = columnsOf(i);
  const names = Object.keys(c).filter((name) => !name.startsWith("verdict"));
  const rows = filtered(i).map((k) =>
    [k, site.names[k], ...names.map((name) => c[name][k]), verdictOf(i, k).name, site.verdicts_paper[c.verdict_paper[k]]]);
  downloadCsv(site.sets[i].name, ["concept", "name", ...names, "verdict", "verdict_paper"], rows);
}
