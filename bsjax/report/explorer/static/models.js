// How models differ: one against another concept by concept, and the matrix of correlations.

import { needPlotly, PLOT_CONFIG, plain, plotLayout, plotly, themed } from "./colour.js";
import { loadColumns, setNumber, site } from "./concepts.js";
import { choice, el } from "./elements.js";
import { guarded } from "./faults.js";
import { drawn, isThinned, loseGl, pointType, thinnedText } from "./points.js";
import { set, state, tell } from "./state.js";

const FORMS = ["relative", "difference", "delta"];
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
  const j = state.second ? setNumber(state.second) : Number(i === 0);
  const [a, b] = await Promise.all([loadColumns(i), loadColumns(j), needPlotly()]);
  const form = FORMS.includes(state.x) ? state.x : FORMS[0];
  box = el("div", { className: "plot square", role: "group", "aria-label":
    `${form} of every concept, ${site.sets[i].name} against ${site.sets[j].name}; correlation ${told(i, j)}` });
  root.replaceChildren(
    el("div", { className: "toolbar" },
      choice("compare by", FORMS.map((name) => [name, name]), form, (x) => set({ x }))),
    el("h2", { textContent: `${site.sets[i].name} and ${site.sets[j].name}: ${site.correlations[i][j] === null || i === j ? "" : "r = "}${told(i, j)}` }),
    box,
    el("p", { className: "hint", textContent:
      "Concepts that both can judge. The dots share the noise of the real images and seem more alike than they are; r does not: one model is estimated on one half of the captions and the other on the other half, and what chance takes away is made up for." }),
    el("h2", { textContent: "Correlation of log ratios with its 95 % interval, every two models" }), matrix());
  const isJudged = (columns, k) => site.verdicts[columns.verdict[k]].is_judged;
  const ids = [];
  for (let k = 0; k < site.n; k += 1) if (isJudged(a, k) && isJudged(b, k)) ids.push(k);
  const [x, y] = [a, b].map((columns) => ids.map((k) => columns[form][k]));
  const pick = () => {
    const positions = drawn(ids, x, y, (p) => -Math.abs(x[p] - y[p]), box);
    return {
      x: positions.map((p) => x[p]), y: positions.map((p) => y[p]), customdata: positions.map((p) => ids[p]),
      text: positions.map((p) => `${ids[p]} ${plain(site.names[ids[p]])}`),
    };
  };
  const line = themed("soft");
  await plotly().newPlot(box, [{
    type: pointType(), mode: "markers", ...pick(), hoverinfo: "text",
    marker: { size: 5, opacity: 0.7, color: themed("generated") },
  }], plotLayout({
    margin: { l: 60, r: 8, t: 8, b: 48 }, dragmode: "pan",
    xaxis: { title: { text: `${form}, ${plain(site.sets[i].name)}` }, zerolinecolor: line },
    yaxis: { title: { text: `${form}, ${plain(site.sets[j].name)}` }, zerolinecolor: line },
  }), { ...PLOT_CONFIG, modeBarButtonsToRemove: ["select2d", "lasso2d", "toImage"] });
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

/** r with its interval, the reliability of a model itself, or why there is none. */
const told = (i, j) => site.correlation_texts[i][j];

function matrix() {
  const names = site.sets.map((each) => each.name);
  const cells = (i) => names.map((name, j) => {
    const r = site.correlations[i][j];
    return el("td", { css: { "--r": Math.abs(r ?? 0).toFixed(2) }, className: "r", textContent: told(i, j), title: `${names[i]} and ${name}` });
  });
  return el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "matrix of correlations" },
    el("table", { className: "matrix" },
      el("thead", {}, el("tr", {}, el("td"), ...names.map((name) => el("th", { scope: "col", textContent: name })))),
      el("tbody", {}, ...names.map((name, i) => el("tr", {}, el("th", { scope: "row", textContent: name }), ...cells(i))))));
}
