// What the model cannot draw, in a minute: a sentence, then a card per finding.

import { conceptButton, findingButton, insteadOf, intervalBar, loadFindings, titleOf } from "./called.js";
import { verdictLabel } from "./colour.js";
import { setNumber, site } from "./concepts.js";
import { csvButton } from "./csv.js";
import { el } from "./elements.js";
import { fault, guarded } from "./faults.js";
import { loadTop, pairOf } from "./pictures.js";
import { set, state } from "./state.js";
import { stressTests } from "./stress.js";

const MOST_CONCEPTS = 6; // of a finding, before one asks for all
const CARDS_AT_ONCE = 24; // more come as the last one comes near
let addUpTo = () => {}; // card with this number in the list, and those before it
let places = new Map(); // number of a finding -> its place in the list

/** Draws the view into `root`. */
export async function showFindings(root) {
  const i = setNumber(state.model);
  const { headline, basis, nothing, findings } = await loadFindings(i);
  const strips = new Map(); // where images belong -> what fills it, once its card comes near
  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      if (target === end) addUpTo(shown + CARDS_AT_ONCE - 1);
      else guarded(strips.get(target))();
    }
  }, { rootMargin: "600px" });
  const end = el("div", { className: "end" });
  let shown = 0;
  places = new Map(findings.map((each, place) => [each.finding, place]));
  addUpTo = (place) => {
    for (; shown <= place && shown < findings.length; shown += 1) {
      const { node, strip, fill: fillStrip } = card(findings[shown], i);
      strips.set(strip, fillStrip);
      end.before(node);
      watcher.observe(strip);
    }
    if (shown < findings.length) watcher.observe(end);
    else end.remove();
  };
  root.replaceChildren(
    el("div", { className: "lead" }, el("h2", { textContent: headline }),
      basis ? el("p", { className: "hint", textContent: basis }) : null,
      ...nothing.map((text) => el("p", { textContent: text })),
      findings.length ? csvButton("CSV of the findings", () => findingsAsTable(findings, i)) : el("p", {}, "What there is nevertheless: ",
        el("button", { type: "button", className: "link", textContent: "all concepts, by what changed most", onclick: () => set({ view: "table", all: true }) }))),
    end);
  addUpTo(CARDS_AT_ONCE - 1);
  goToFinding();
}

/** The findings as report/findings.csv has them: name, heads, rows. */
function findingsAsTable(findings, i) {
  const heads = ["set", "finding", "verdict", "words", "change", "interval", "images", "instead", "asked", "low", "log_ratio", "high", "concepts"];
  const rows = findings.map((each) => {
    const words = each.concepts.map((k) => site.names[k]).find(Boolean) ?? "";
    const instead = [...new Set(each.instead.map(({ concept }) => site.names[concept] || String(concept)))].join("; ");
    const [low, point, high] = each.interval;
    return [site.sets[i].name, each.finding, each.verdict,
      ...[words, each.change, each.sure, each.shown, instead, each.asked].map((text) => text.replaceAll("\u00a0", " ")),
      low ?? -Infinity, point, high ?? Infinity, each.concepts.join(" ")];
  });
  return [`${site.sets[i].name}_findings`, heads, rows];
}

/** Shows the card that the address names. */
export function goToFinding() {
  if (!state.finding) return;
  addUpTo(places.get(state.finding) ?? 0);
  const node = document.getElementById(`finding-${state.finding}`);
  node?.scrollIntoView({ block: "start" });
  node?.focus({ preventScroll: true });
}

function card(finding, i) {
  const verdict = site.verdicts.find((each) => each.name === finding.verdict);
  const isMissing = verdict.sign < 0;
  const id = `finding-${finding.finding}`;
  const strip = el("div", { className: "strip" });
  const node = el("article", { className: "finding", id, tabIndex: -1, "aria-labelledby": `${id}-words` },
    el("div", { className: "call" },
      el("p", { className: "kind" }, verdictLabel(verdict), ` · finding ${finding.finding}`),
      el("h3", { id: `${id}-words` }, el("bdi", { textContent: titleOf(finding) })),
      el("p", { className: "change", textContent: finding.change }),
      el("p", { textContent: finding.shown }),
      intervalBar(...finding.interval, verdict, finding.sure),
      el("p", { className: "hint", textContent: finding.sure })),
    el("div", { className: "evidence" },
      el("p", { className: "hint", textContent: isMissing ? "Left: real images that show it most. Right: what was generated for their captions." : "Left: generated images that show it most. Right: the real images of their captions." }),
      strip,
      el("dl", { className: "answers" },
        answer(isMissing ? "Drawn instead" : "In place of", insteadOf(finding.instead, isMissing)),
        answer("Asked for?", finding.asked),
        ...(finding.missing ? [answer("Missing images?", finding.missing)] : []),
        answer(finding.concepts.length > 1 ? `${finding.concepts.length} concepts` : "Concept", concepts(finding.concepts))),
      ...stressTests(finding.stress)));
  return { node, strip, fill: () => fill(strip, finding, i, isMissing ? 0 : i + 1) };
}

const answer = (name, ...value) => el("div", {}, el("dt", { textContent: name }), el("dd", {}, ...value));

function concepts(ids) {
  const list = el("ul", { className: "concepts" }, ...ids.slice(0, MOST_CONCEPTS).map((k) => el("li", {}, conceptButton(k))));
  const rest = ids.slice(MOST_CONCEPTS);
  if (rest.length) {
    const more = el("li", {}, el("button", {
      type: "button", className: "link", textContent: `${rest.length} more`,
      onclick: () => more.replaceWith(...rest.map((k) => el("li", {}, conceptButton(k)))),
    }));
    list.append(more);
  }
  return list;
}

async function fill(strip, finding, i, arm) {
  try {
    const top = await loadTop(finding.concepts[0], i, arm);
    strip.replaceChildren(...await Promise.all(finding.slots.map(async (slot) => {
      const { two } = await pairOf(top[slot], i, arm, finding.finding);
      return el("figure", { className: "pair" }, two,
        el("figcaption", { title: top[slot].caption }, el("bdi", { textContent: top[slot].caption || "(no caption)" })));
    })));
    const shown = finding.slots.map((slot) => top[slot]);
    const hint = !shown.length ? "None of the images that show it most has a counterpart."
      : shown.some((each) => each.isPlaced) ? "Coloured: where it fires."
        : "Nothing is coloured: it fires on the class token or registers of these images, on no patch.";
    strip.after(el("p", { className: "hint", textContent: hint }));
  } catch (error) {
    fault(error);
    strip.replaceChildren(el("p", { className: "note", textContent: error.message }));
  }
}
