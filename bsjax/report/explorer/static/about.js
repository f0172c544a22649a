// How the numbers came about: the run card of each set, and the figures.

import { setNumber, site } from "./concepts.js";
import { el } from "./elements.js";
import { state } from "./state.js";

/** Draws the run card into `root`. */
export function showCard(root) {
  const each = site.sets[setNumber(state.model)];
  const counts = ["pairs", "unpaired_real", "unpaired_generated", "suppressed", "exaggerated", "no_difference", "not_enough_data"];
  root.replaceChildren(
    el("h2", { textContent: `${each.name} against real` }),
    el("dl", { className: "facts" }, ...counts.map((name) => el("div", {},
      el("dt", { textContent: name.replaceAll("_", " ") }), el("dd", { textContent: String(each.counts[name] ?? "–") })))),
    el("p", { textContent:
      `delta = sigmoid(contrast / T), here ${each.form} with T = ${each.temperature}. A concept is suppressed if delta is below ${each.suppressed}, exaggerated if above ${each.exaggerated}, and the arms differ at a false discovery rate of ${each.fdr} (paired t-test, Benjamini-Hochberg) over at least ${each.min_images} pairs that show it. Energies count all tokens.` }),
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
