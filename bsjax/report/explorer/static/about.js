// How the numbers came about: the run card of each set, and the figures.

import { setNumber, site } from "./concepts.js";
import { el } from "./elements.js";
import { state } from "./state.js";

/** Draws the run card into `root`. */
export function showCard(root) {
  const each = site.sets[setNumber(state.model)];
  const counts = ["pairs", "clusters", "unpaired_real", "unpaired_generated", ...site.verdicts.map((name) => name.replaceAll(" ", "_"))];
  root.replaceChildren(
    el("h2", { textContent: `${each.name} against real` }),
    el("dl", { className: "facts" }, ...counts.map((name) => el("div", {},
      el("dt", { textContent: name.replaceAll("_", " ") }), el("dd", { textContent: String(each.counts[name] ?? "–") })))),
    el("dl", { className: "meanings" }, ...site.verdicts.map((name, v) => el("div", {},
      el("dt", { textContent: name }), el("dd", { textContent: each.meanings[v] })))),
    el("p", { textContent:
      `Each test holds a false discovery rate of ${each.fdr ?? "–"} over the concepts with enough data; pairs of one caption or one real image count once. Lists sort by the end of the interval that is nearer to no change. delta = sigmoid(contrast / T), here ${each.form} with T = ${each.temperature}, is the paper's number, for display. Energies count all tokens.` }),
    el("table", { className: "card" }, el("tbody", {}, ...Object.entries(each.card).map(([name, value]) =>
      el("tr", {}, el("th", { scope: "row", textContent: name }), el("td", {}, el("bdi", { textContent: value })))))),
    el("p", { className: "hint", textContent: `bsjax ${site.version}. Keys: arrows step through the concepts on the map and in the table, / searches, Esc closes the panel.` }));
}

/** Draws the figures into `root`. */
export function showFigures(root) {
  root.replaceChildren(el("div", { className: "figures" }, ...site.figures.map(([file, text]) => el("figure", {},
    el("a", { href: `figures/${encodeURIComponent(file)}.svg` }, el("img", { src: `figures/${encodeURIComponent(file)}.png`, alt: text, loading: "lazy", onerror: (event) => event.target.replaceWith(el("span", { className: "gone", textContent: `figures/${file}.png is missing` })) })),
    el("figcaption", { textContent: text })))));
}
