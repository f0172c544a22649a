// How the numbers came about: the run card of each set, and the figures.

import { verdictLabel } from "./colour.js";
import { setNumber, site } from "./concepts.js";
import { el } from "./elements.js";
import { state } from "./state.js";

/** Draws the run card into `root`. */
export function showCard(root) {
  const each = site.sets[setNumber(state.model)];
  const counts = ["pairs", "clusters", "unpaired_real", "unpaired_generated"];
  root.replaceChildren(
    el("h2", { textContent: `${each.name} against real` }),
    el("dl", { className: "facts" }, ...counts.map((name) => el("div", {},
      el("dt", { textContent: name.replaceAll("_", " ") }), el("dd", { textContent: String(each.counts[name] ?? "–") })))),
    el("dl", { className: "facts verdicts" }, ...site.verdicts.map((kind, v) => el("div", {},
      el("dt", {}, verdictLabel(kind)), el("dd", { textContent: String(each.counts[kind.name.replaceAll(" ", "_")] ?? "–") }),
      el("dd", { className: "meaning", textContent: each.meanings[v] })))),
    el("p", { textContent: each.rule }),
    el("table", { className: "card" }, el("tbody", {}, ...Object.entries(each.card).map(([name, value]) =>
      el("tr", {}, el("th", { scope: "row", textContent: name }), el("td", {}, el("bdi", { textContent: value })))))),
    el("p", { className: "hint", textContent: `bsjax ${site.version}. Keys: arrows step through the concepts of the table and from image to image, / searches, Esc closes.` }));
}

/** Draws the figures into `root`. */
export function showFigures(root) {
  root.replaceChildren(el("div", { className: "figures" }, ...site.figures.map(([file, text]) => el("figure", {},
    el("a", { href: `figures/${encodeURIComponent(file)}.svg` }, el("img", { src: `figures/${encodeURIComponent(file)}.png`, alt: text, loading: "lazy", onerror: (event) => event.target.replaceWith(el("span", { className: "gone", textContent: `figures/${file}.png is missing` })) })),
    el("figcaption", { textContent: text })))));
}
