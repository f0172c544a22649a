// How models differ: one against another concept by concept, and the matrix of correlations.

import { axesOf } from "./axes.js";
import { rgbOf, themed } from "./colour.js";
import { loadColumns, setNumber, site } from "./concepts.js";
import { breathe, choice, el } from "./elements.js";
import { LAYERS, SYMBOLS } from "./glpoints.js";
import { crowding } from "./marks.js";
import { disagreements, foldWords, loadMoves, movesPart } from "./moves.js";
import { emptyPoints, scatter, setPoint } from "./scatter.js";
import { set, state } from "./state.js";

const FORMS = { ratio: "times less or more than real", relative: "relative contrast", difference: "difference of energies", delta: "delta" };
const MIDDLE = { delta: 0.5 }; // no change, where it is not 0
const FOLDS = [1, 10, 100, 2, 4, 30, 1.2, 1.5, 3, 6, 20, 50]; // ticks, where there is room for them
const FARTHEST = Math.log(100); // log ratio at the edge
const MARGIN = { left: 104, right: 8, top: 8, bottom: 48 }; // pixels, for the axes
const DOT = 5; // pixels
const CALLED_DOT = 8;

/** Draws the view into `root`. */
export async function showModels(root) {
  if (site.sets.length < 2) {
    root.replaceChildren(el("p", { className: "hint", textContent:
      "There is one model here. Run another config into the same workdir, and both stand side by side." }));
    return;
  }
  const i = setNumber(state.model);
  const j = state.second && setNumber(state.second) !== i ? setNumber(state.second) : Number(i === 0);
  const [a, b, found] = [await loadColumns(i), await loadColumns(j), await loadMoves(i, j)];
  await breathe();
  const form = Object.hasOwn(FORMS, state.x) ? state.x : "ratio";
  const box = el("div", { className: "plot square" });
  const head = el("h2", {}, el("bdi", { textContent: site.sets[i].name }), " and ", el("bdi", { textContent: site.sets[j].name }),
    `: ${site.correlations[i][j] === null ? "" : "r = "}${correlationText(i, j)}`);
  root.replaceChildren(head,
    el("p", { className: "hint", textContent:
      "r tells whether the two change the same concepts in the same proportions: 1, they do; 0, their changes have nothing in common. In brackets its 95 % interval." }),
    movesPart(found, i, j),
    el("div", { className: "beside" },
      el("section", {}, el("h3", { textContent: "Concept by concept" }),
        el("div", { className: "toolbar" }, choice("compare by", Object.entries(FORMS), form, (x) => set({ x })), pairLegend()), box,
        el("p", { className: "hint", textContent:
          "Concepts that both can judge. On the diagonal both draw a concept alike. The dots share the noise of the real images and seem more alike than they are; r does not: one model is estimated on one half of the captions and the other on the other half, and what chance takes away is made up for." })),
      disagreements(found, i, j, a, b)),
    el("h2", { textContent: "Do two models change the same concepts?" }),
    el("p", { className: "hint", textContent: "Correlation of log ratios with its 95 % interval; on the diagonal how reliable each model's own ratios are, from one half of the captions to the other. A cell opens its two models." }), matrix());
  await breathe();
  drawDots(box, i, j, a, b, form);
}

const pairValue = (columns, form, k) => (form === "ratio"
  ? Math.max(-FARTHEST, Math.min(FARTHEST, columns.log_ratio[k])) : columns[form][k]);
const pairColours = () => [["called in neither", "soft"], ["in one", "accent"], ["in both", "ink"]];
const pairLegend = () => el("span", { className: "legend" }, ...pairColours().map(([text, colour]) =>
  el("span", { className: "count" }, el("i", { className: "dot", css: { background: `var(--${colour})` }, "aria-hidden": "true" }), ` ${text} `)));

/** One dot a concept that both can judge; those called in both on top. */
function drawDots(box, i, j, a, b, form) {
  const isJudged = site.verdicts.map((each) => each.is_judged);
  const isCalled = site.verdicts.map((each) => site.called.includes(each.name));
  const lists = [[], [], []]; // by how many of the two call it
  let reach = form === "ratio" ? Math.log(2) : 0.01;
  const middle = MIDDLE[form] ?? 0;
  for (let k = 0; k < site.n; k += 1) {
    if (!isJudged[a.verdict[k]] || !isJudged[b.verdict[k]]) continue;
    const values = [pairValue(a, form, k), pairValue(b, form, k)];
    if (!values.every(Number.isFinite)) continue;
    for (const value of values) reach = Math.max(reach, Math.abs(value - middle));
    lists[isCalled[a.verdict[k]] + isCalled[b.verdict[k]]].push(k);
  }
  const [n, below] = [lists[0].length + lists[1].length + lists[2].length, lists[0].length];
  const points = emptyPoints(n);
  const colours = pairColours().map(([, name]) => rgbOf(themed(name)));
  lists.flat().forEach((k, p) => {
    const called = isCalled[a.verdict[k]] + isCalled[b.verdict[k]];
    setPoint(points, p, {
      id: k, x: pairValue(a, form, k), y: pairValue(b, form, k), size: called ? CALLED_DOT : DOT, rgb: colours[called],
      opacity: called ? 0.9 : 0.75, symbol: SYMBOLS.disc, layer: called ? LAYERS.above : LAYERS.below,
    });
  });
  const [low, high] = [middle - 1.08 * reach, middle + 1.08 * reach]; // no change in the middle
  const words = form === "ratio" ? FOLDS.flatMap((fold) => [Math.log(fold), -Math.log(fold)].slice(0, fold === 1 ? 1 : 2)).map((x) => [x, foldWords(x)]) : null;
  const title = (number) => (form === "ratio" ? `${site.sets[number].name}, compared with real images` : `${FORMS[form]}, ${site.sets[number].name}`);
  let axes = null;
  const plot = scatter(box, {
    label: `${FORMS[form]}, every concept, ${site.sets[i].name} against ${site.sets[j].name}; correlation ${correlationText(i, j)}. Arrow keys move the plot, + and - zoom, 0 shows all`,
    ends: { left: low, right: high, low, high }, isEven: false, margin: MARGIN,
    weigh(view, shown) {
      const parts = [[0, below], [below, n]].map((part, p) => crowding(points.place, part, 0.785 * [DOT, CALLED_DOT][p] ** 2, view, shown));
      return { shrink: [parts[0].shrink, 1, parts[1].shrink], fade: [parts[0].opacity, 1, Math.max(0.6, parts[1].opacity)] };
    },
    tip: (k) => [`${k} ${site.names[k]}`, `${foldWords(a.log_ratio[k])}, ${foldWords(b.log_ratio[k])}`],
    onClick: (concept) => set({ concept }),
    over(context, shown) { axes?.over(context, shown); },
    onRest(shown) { axes?.write(shown); },
  });
  axes = axesOf(box, { x: title(i), y: title(j) }, words);
  axes.write(plot);
  plot.setPoints(points);
}

/** r with its interval, the reliability of a model itself, or why there is none. */
const correlationText = (i, j) => site.correlation_texts[i][j];

function matrix() {
  const names = site.sets.map((each) => each.name);
  const cells = (i) => names.map((name, j) => {
    const r = site.correlations[i][j];
    if (i === j) return el("td", { className: "r self", textContent: correlationText(i, j), title: `${name} with itself` });
    return el("td", { css: { "--r": Math.abs(r ?? 0).toFixed(2) }, className: "r" },
      el("button", { type: "button", textContent: correlationText(i, j), title: `${names[i]} and ${name}`, onclick: () => set({ model: names[i], second: name }) }));
  });
  return el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "matrix of correlations" },
    el("table", { className: "matrix" },
      el("thead", {}, el("tr", {}, el("td"), ...names.map((name) => el("th", { scope: "col" }, el("bdi", { textContent: name }))))),
      el("tbody", {}, ...names.map((name, i) => el("tr", {}, el("th", { scope: "row" }, el("bdi", { textContent: name })), ...cells(i))))));
}
