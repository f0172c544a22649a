// One model held against another: which concepts moved where, and on which the two disagree.

import { verdictLabel } from "./colour.js";
import { percent, short, site } from "./concepts.js";
import { load, unpack } from "./data.js";
import { bareBar, conceptButton } from "./called.js";
import { el } from "./elements.js";

const MOST_LISTED = 15; // disagreements shown at first
const MOVE_COLUMNS = ["log_ratio", "low", "high", "log_ratio_a", "log_ratio_b", "moved", "verdict"];

/** Set j held against set i, or i against j; null where that was not done. */
export async function loadMoves(i, j) {
  const found = (site.moves ?? []).find(([a, b]) => (a === i && b === j) || (a === j && b === i));
  if (!found) return null;
  const packed = await load(`moves/${found[0]}-${found[1]}`);
  return { ...packed, ...Object.fromEntries(MOVE_COLUMNS.map((name) => [name, unpack(packed[name])])), a: found[0], b: found[1] };
}

/** A log ratio in words, with two digits: 2.6× less. */
export function foldWords(x) {
  if (Number.isNaN(x)) return "–";
  const fold = Math.exp(Math.abs(x));
  const text = Number(fold.toPrecision(fold < 100 ? 2 : 3)).toString();
  if (text === "1") return "the same";
  return x < 0 ? `${text}× less` : `${text}× more`;
}

const setName = (i) => el("bdi", { textContent: site.sets[i].name });

/** Shares of the concepts by where they moved. */
export function movesPart(found, i, j) {
  if (!found) {
    return el("p", { className: "hint" }, "Which concepts moved towards the real images, and which away from them, is not known yet. Run ",
      el("code", { textContent: `bsjax compare --workdir=DIR --against=${site.sets[i].name}` }), " and then ", el("code", { textContent: "bsjax report" }), ".");
  }
  const changed = found.shares.slice(0, -1).reduce((sum, each) => sum + each.n, 0);
  const heads = el("h3", {}, "From ", setName(found.a), " to ", setName(found.b),
    `: ${changed || "none"} of ${found.n} concepts moved`);
  const bar = el("div", { className: "shares", role: "img", "aria-label": found.shares.map((each) => `${each.text}: ${each.n}`).join("; ") },
    ...found.shares.map((each, place) => el("i", { className: `move m${place}`, css: { "flex-grow": String(each.n) } })));
  const rows = found.shares.map((each, place) => el("li", {},
    el("i", { className: `move m${place}`, "aria-hidden": "true" }), el("span", { textContent: each.text }),
    el("b", { textContent: `${each.n}: ${percent(each.share ?? NaN)}` }),
    el("span", { className: "hint", textContent: `95 % interval ${percent(each.low)} to ${percent(each.high)}` })));
  return el("section", { className: "moved" }, heads, ...found.notes.map((text) => el("p", { className: "note", textContent: text })), bar, el("ul", {}, ...rows),
    el("p", { className: "hint" }, `A concept moved if its change from one model to the other is beyond ${found.margin}-fold, at a false discovery rate of ${found.fdr}, over the ${found.pairs} pairs that both have. Intervals take concepts as independent, which related ones are not: they are rather too narrow.`),
    el("p", {}, el("bdi", { textContent: found.closeness })));
}

/** The list of concepts on which two models disagree, the surest first. */
export function disagreements(found, i, j, x, y) {
  const rows = found ? established(found) : guessed(i, j, x, y);
  const [a, b] = found ? [found.a, found.b] : [i, j];
  const head = el("h3", { textContent: found ? "Where they disagree, beyond doubt" : "Where their estimates differ most" });
  const hint = el("p", { className: "hint", textContent: found
    ? "Sorted by the end of the 95 % interval of their difference that is nearer to none."
    : "Of concepts that one of them draws too little or too much. Sorted by the ratio of the two estimates; how sure it is, is not known." });
  if (!rows.length) {
    return el("section", {}, head, el("p", { textContent: found ? "No concept is established to be drawn differently by the two." : "No concept was called in either." }));
  }
  const body = el("tbody", {}, ...rows.slice(0, MOST_LISTED).map((row) => disagreement(row)));
  const more = el("button", { type: "button", textContent: `show all ${rows.length}`, onclick: () => {
    body.replaceChildren(...rows.map((row) => disagreement(row)));
    more.remove();
  } });
  const titles = [["concept"], [setName(b), " against ", setName(a)], [setName(a), " against real"], [setName(b), " against real"], ["moved"]];
  return el("section", {}, head, hint, el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "concepts on which the two disagree" },
    el("table", { className: "disagree" }, el("thead", {}, el("tr", {}, ...titles.map((parts) => el("th", { scope: "col" }, ...parts)))), body)),
  rows.length > MOST_LISTED ? more : null ?? "");
}

/** Concepts whose change is established, those first that changed most beyond doubt. */
function established(found) {
  const near = (k) => Math.max(found.low[k], -found.high[k], 0);
  return [...found.verdict.keys()].filter((k) => site.verdicts[found.verdict[k]].sign)
    .sort((p, q) => near(q) - near(p) || p - q)
    .map((k) => ({ concept: k, change: found.log_ratio[k], low: found.low[k], high: found.high[k], verdict: site.verdicts[found.verdict[k]],
      a: found.log_ratio_a[k], b: found.log_ratio_b[k], moved: found.words[found.moved[k]] }));
}

/** Judged concepts of which one model's was called, by the difference of the two estimates. */
function guessed(i, j, x, y) {
  const isCalled = (columns, k) => site.called.includes(site.verdicts[columns.verdict[k]].name);
  const isJudged = (columns, k) => site.verdicts[columns.verdict[k]].is_judged;
  return [...x.verdict.keys()].filter((k) => (isCalled(x, k) || isCalled(y, k)) && isJudged(x, k) && isJudged(y, k))
    .map((k) => ({ concept: k, change: y.log_ratio[k] - x.log_ratio[k], a: x.log_ratio[k], b: y.log_ratio[k], moved: "" }))
    .sort((p, q) => Math.abs(q.change) - Math.abs(p.change) || p.concept - q.concept);
}

function disagreement({ concept, change, low, high, verdict, a, b, moved }) {
  const interval = verdict ? `${foldWords(change)}, 95 % interval ${short(Math.exp(low))} to ${short(Math.exp(high))} times` : "";
  const ends = [low, high].map((end) => (Number.isFinite(end) ? end : null));
  return el("tr", {}, el("td", {}, conceptButton(concept)),
    el("td", {}, el("span", { textContent: foldWords(change) }), verdict ? bareBar(ends[0], change, ends[1], verdict, interval) : ""),
    el("td", { textContent: foldWords(a) }), el("td", { textContent: foldWords(b) }),
    el("td", {}, verdict ? el("span", { textContent: moved || "not beyond the margin" }) : "not tested"));
}
