// How the numbers came about: the run card of each set, and the figures.

import { verdictLabel } from "./colour.js";
import { setNumber, site } from "./concepts.js";
import { el } from "./elements.js";
import { state } from "./state.js";

const COUNTS = { pairs: "pairs of images", clusters: "clusters, which count once", unpaired_real: "real images without partner", unpaired_generated: "generated images without partner" };
const OUTCOMES = { passed: "✓", failed: "✗" };

/** Draws the run card into `root`. */
export function showCard(root) {
  const each = site.sets[setNumber(state.model)];
  root.replaceChildren(
    el("h2", {}, el("bdi", { textContent: each.name }), " against real images"),
    el("dl", { className: "facts" }, ...Object.entries(COUNTS).map(([name, text]) => el("div", {},
      el("dt", { textContent: text }), el("dd", { textContent: String(each.counts[name] ?? "–") })))),
    el("dl", { className: "facts verdicts" }, ...site.verdicts.map((kind, v) => el("div", {},
      el("dt", {}, verdictLabel(kind)), el("dd", { textContent: String(each.counts[kind.name.replaceAll(" ", "_")] ?? "–") }),
      el("dd", { className: "meaning", textContent: each.meanings[v] })))),
    el("p", { className: "hint", textContent: each.rule }),
    ...each.card.flatMap(([head, lines]) => [el("h3", { textContent: head }), cardLines(lines)]),
    el("p", { className: "hint", textContent: `bsjax ${site.version}. Keys: arrows step through the concepts of the table and from image to image, / searches, Esc closes.` }));
}

/** Lines under a head; a control's with its outcome. */
const cardLines = (lines) => el("dl", { className: "lines" }, ...lines.map(([name, text, outcome]) => el("div", {},
  el("dt", { textContent: name }),
  el("dd", {}, outcome ? el("span", { className: `outcome ${outcome}`, "aria-hidden": "true", textContent: `${OUTCOMES[outcome]} ` }) : null, el("bdi", { textContent: text })))));

/** Draws the figures into `root`, in the reader's colours, with the files to take away. */
export function showFigures(root) {
  root.replaceChildren(
    el("p", { className: "hint", textContent: "PNG for slides, SVG and PDF for papers: they can be made as large as one likes, and their text can be searched and edited in the PDF." }),
    el("div", { className: "figures" }, ...site.figures.map(([file, text, style]) => el("figure", { className: file.endsWith("_findings") ? "wide" : "" },
      figureImage(file, text, style), el("figcaption", {}, el("bdi", { textContent: text }), ...(style ? [figureFiles(file, style)] : []))))));
}

const figureFile = (stem, kind) => `figures/${encodeURIComponent(stem)}.${kind}`;
const otherStyle = (style) => (style === "light" ? "dark" : "light");

function figureImage(file, text, style) {
  const gone = (event) => event.target.closest("a").replaceChildren(el("span", { className: "gone", textContent: `figures/${file}.png is missing` }));
  return el("a", { href: figureFile(file, "svg") }, el("picture", {},
    style ? el("source", { media: `(prefers-color-scheme: ${otherStyle(style)})`, srcset: figureFile(`${file}_${otherStyle(style)}`, "png") }) : null,
    el("img", { src: figureFile(file, "png"), alt: text, loading: "lazy", onerror: gone })));
}

/** Links to the files of a figure. */
function figureFiles(file, style) {
  const kinds = [...["png", "svg", "pdf"].map((kind) => [kind.toUpperCase(), file, kind]), [`PNG, ${otherStyle(style)}`, `${file}_${otherStyle(style)}`, "png"]];
  return el("span", { className: "files" }, ...kinds.map(([name, stem, kind]) =>
    el("a", { href: figureFile(stem, kind), download: `${stem}.${kind}`, textContent: name, "aria-label": `${name}: ${stem}.${kind}` })));
}
