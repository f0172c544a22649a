// How models differ: one against another concept by concept, and the matrix of correlations.

import { needPlotly, PLOT_CONFIG, plain, plotLayout, plotly, themed } from "./colour.js";
import { loadColumns, setNumber, site } from "./concepts.js";
import { choice, el } from "./elements.js";
import { guarded } from "./faults.js";
import { disagreements, foldWords, loadMoves, movesPart } from "./moves.js";
import { drawn, isThinned, loseGl, pointType, thinnedText } from "./points.js";
import { set, state, tell } from "./state.js";

const FORMS = { ratio: "times less or more than real", relative: "relative contrast", difference: "difference of energies", delta: "delta" };
const MIDDLE = { delta: 0.5 }; // no change, where it is not 0
const FOLDS = [1, 2, 4, 10, 30, 100]; // ticks
const FARTHEST = Math.log(100); // log ratio at the edge
const NARROW = 520; // pixels, in which not all ticks have room
let box = null;

/** Draws the view into `root`. */
export async function showModels(root) {
  if (box) window.Plotly?.purge(box);
  if (site.sets.length < 2) {
    root.replaceChildren(el("p", { className: "hint", textContent:
      "There is one model here. Run another config into the same workdir, and both stand side by side." }));
    return;
  }
  const i = setNumber(state.model);
  const j = state.second && setNumber(state.second) !== i ? setNumber(state.second) : Number(i === 0);
  const [a, b, found] = await Promise.all([loadColumns(i), loadColumns(j), loadMoves(i, j), needPlotly()]);
  const form = Object.hasOwn(FORMS, state.x) ? state.x : "ratio";
  box = el("div", { className: "plot square", role: "group", "aria-label":
    `${FORMS[form]}, every concept, ${site.sets[i].name} against ${site.sets[j].name}; correlation ${correlationText(i, j)}` });
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
  await drawDots(i, j, a, b, form);
}

const pairValue = (columns, form, k) => (form === "ratio"
  ? Math.max(-FARTHEST, Math.min(FARTHEST, columns.log_ratio[k])) : columns[form][k]);
const pairColours = () => [["called in neither", "soft"], ["in one", "accent"], ["in both", "ink"]];
const pairLegend = () => el("span", { className: "legend" }, ...pairColours().map(([text, colour]) =>
  el("span", { className: "count" }, el("i", { className: "dot", css: { background: `var(--${colour})` }, "aria-hidden": "true" }), ` ${text} `)));

/** One dot a concept that both can judge. */
async function drawDots(i, j, a, b, form) {
  const isJudged = (columns, k) => site.verdicts[columns.verdict[k]].is_judged;
  const isCalled = (columns, k) => site.called.includes(site.verdicts[columns.verdict[k]].name);
  const ids = [];
  for (let k = 0; k < site.n; k += 1) if (isJudged(a, k) && isJudged(b, k)) ids.push(k);
  const [x, y] = [a, b].map((columns) => ids.map((k) => pairValue(columns, form, k)));
  const colours = pairColours().map(([, name]) => themed(name));
  const pick = () => {
    const positions = drawn(ids, x, y, (p) => -Math.abs(x[p] - y[p]), box);
    const called = positions.map((p) => Number(isCalled(a, ids[p])) + Number(isCalled(b, ids[p])));
    return {
      x: positions.map((p) => x[p]), y: positions.map((p) => y[p]), customdata: positions.map((p) => ids[p]),
      text: positions.map((p) => `${ids[p]} ${plain(site.names[ids[p]])}<br>${foldWords(a.log_ratio[ids[p]])}, ${foldWords(b.log_ratio[ids[p]])}`),
      "marker.color": called.map((n) => colours[n]), "marker.size": called.map((n) => (n ? 8 : 5)),
    };
  };
  const { "marker.color": color, "marker.size": size, ...points } = pick();
  const ends = pairRange([...x, ...y], form);
  await plotly().newPlot(box, [{ type: pointType(), mode: "markers", ...points, hoverinfo: "text", marker: { size, opacity: 0.75, color } }],
    pairLayout(i, j, form, ends), { ...PLOT_CONFIG, modeBarButtonsToRemove: ["select2d", "lasso2d", "toImage"] });
  const mine = box;
  box.on("plotly_click", (event) => set({ concept: event.points[0].customdata }));
  box.on("plotly_webglcontextlost", () => { if (mine.isConnected) { loseGl(); tell(new Set(["view"])); } });
  if (!isThinned(ids.length)) return;
  box.after(el("p", { className: "hint", textContent: thinnedText(ids.length, "those that differ most") }));
  box.on("plotly_relayout", guarded(async (change) => {
    if (!/axis/.test(Object.keys(change).join(" "))) return;
    await plotly().restyle(mine, Object.fromEntries(Object.entries(pick()).map(([key, value]) => [key, [value]])), [0]);
  }));
}

/** Ends of both axes: the same, and no change in the middle. */
function pairRange(values, form) {
  const middle = MIDDLE[form] ?? 0;
  const reach = 1.08 * values.reduce((most, value) => (Number.isFinite(value) ? Math.max(most, Math.abs(value - middle)) : most), form === "ratio" ? Math.log(2) : 0.01);
  return [middle - reach, middle + reach];
}

function pairLayout(i, j, form, [low, high]) {
  const line = themed("soft");
  const folds = FOLDS.filter((fold) => Math.log(fold) <= high);
  const isCrowded = folds.length > 4 || box.clientWidth < NARROW;
  const shown = isCrowded ? folds.filter((fold) => [1, 10, 100].includes(fold) || folds.length < 4) : folds;
  const ticks = [...shown.slice(1).map((fold) => -Math.log(fold)), ...shown.map(Math.log)];
  const words = form === "ratio" ? { tickvals: ticks, ticktext: ticks.map(foldWords) } : {};
  const axis = (number) => ({
    ...words, range: [low, high], tickangle: 0, zerolinecolor: line,
    title: { text: form === "ratio" ? `${plain(site.sets[number].name)}, compared with real images` : `${FORMS[form]}, ${plain(site.sets[number].name)}`, font: { color: themed("ink") } },
  });
  return plotLayout({
    margin: { l: 88, r: 12, t: 8, b: 52 }, dragmode: "pan", xaxis: axis(i), yaxis: axis(j),
    shapes: [{ type: "line", layer: "below", x0: low, x1: high, y0: low, y1: high, line: { color: line, width: 1.5, dash: "dot" } }],
  });
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
