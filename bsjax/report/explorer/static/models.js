// How models differ: one against another concept by concept, and the matrix of correlations.

import { PLOT_CONFIG, plain, plotLayout, themed } from "./colour.js";
import { loadColumns, setNumber, site } from "./concepts.js";
import { choice, el } from "./elements.js";
import { set, state } from "./state.js";

let box = null;

/** Draws the view into `root`. */
export async function showModels(root) {
  if (site.sets.length < 2) {
    root.replaceChildren(el("p", { className: "hint", textContent:
      "There is one model here. Run another config into the same workdir, and both stand side by side." }));
    return;
  }
  const i = setNumber(state.model);
  const j = state.second ? setNumber(state.second) : Number(i === 0);
  const [a, b] = await Promise.all([loadColumns(i), loadColumns(j)]);
  box = el("div", { className: "plot square", role: "group", "aria-label":
    `${state.x} of every concept, ${site.sets[i].name} against ${site.sets[j].name}; correlation ${site.correlations[i][j]}` });
  root.replaceChildren(
    el("div", { className: "toolbar" },
      choice("compare by", [["relative", "relative"], ["difference", "difference"], ["delta", "delta"]], state.x, (x) => set({ x }))),
    el("h2", { textContent: `${site.sets[i].name} and ${site.sets[j].name}: r = ${site.correlations[i][j]?.toFixed(2) ?? "–"} (relative)` }),
    box,
    el("p", { className: "hint", textContent:
      "Concepts that both can judge. Two models that have nothing in common correlate at about 0.5, since both are compared with the same real images." }),
    el("h2", { textContent: "Correlation of relative, every two models" }), matrix());
  const unsure = site.verdicts.indexOf("not enough data");
  const ids = [];
  for (let k = 0; k < site.n; k += 1) if (a.verdict[k] !== unsure && b.verdict[k] !== unsure) ids.push(k);
  const line = themed("soft");
  await window.Plotly.newPlot(box, [{
    type: "scattergl", mode: "markers", x: ids.map((k) => a[state.x][k]), y: ids.map((k) => b[state.x][k]), customdata: ids,
    text: ids.map((k) => `${k} ${plain(site.names[k])}`), hoverinfo: "text",
    marker: { size: 5, opacity: 0.7, color: themed("over") },
  }], plotLayout({
    margin: { l: 60, r: 8, t: 8, b: 48 }, dragmode: "pan",
    xaxis: { title: { text: `${state.x}, ${plain(site.sets[i].name)}` }, zerolinecolor: line },
    yaxis: { title: { text: `${state.x}, ${plain(site.sets[j].name)}` }, zerolinecolor: line },
  }), { ...PLOT_CONFIG, modeBarButtonsToRemove: ["select2d", "lasso2d", "toImage"] });
  box.on("plotly_click", (event) => set({ concept: event.points[0].customdata }));
}

function matrix() {
  const names = site.sets.map((each) => each.name);
  const cells = (i) => names.map((name, j) => {
    const r = site.correlations[i][j];
    return el("td", { css: { "--r": Math.abs(r ?? 0).toFixed(2) }, className: "r", textContent: r === null ? "–" : r.toFixed(2), title: `${names[i]} and ${name}` });
  });
  return el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "matrix of correlations" },
    el("table", { className: "matrix" },
      el("thead", {}, el("tr", {}, el("td"), ...names.map((name) => el("th", { scope: "col", textContent: name })))),
      el("tbody", {}, ...names.map((name, i) => el("tr", {}, el("th", { scope: "row", textContent: name }), ...cells(i))))));
}
