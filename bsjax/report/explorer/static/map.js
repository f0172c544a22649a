// The map of the dictionary: a point a concept, coloured by delta; one model, or two side by side.

import { PALETTES, PLOT_CONFIG, plain, plotLayout, scale, themed } from "./colour.js";
import { columnsOf, filtered, fixed, formOf, isUnfiltered, loadColumns, setNumber, site } from "./concepts.js";
import { load, unpack } from "./data.js";
import { choice, el } from "./elements.js";
import { lasso, set, state, tell } from "./state.js";

const NEIGHBOURS = 6; // nearest on the map
let plots = [];
let xs = null;
let ys = null;

/** Draws the view into `root`. */
export async function showMap(root) {
  const shown = [setNumber(state.model)];
  if (state.second) shown.push(setNumber(state.second));
  await Promise.all(shown.map(loadColumns));
  xs = Array.from({ length: site.n }, (_, k) => site.places[2 * k]);
  ys = Array.from({ length: site.n }, (_, k) => site.places[2 * k + 1]);
  root.replaceChildren(toolbar(), el("div", { className: shown.length > 1 ? "maps two" : "maps" },
    ...shown.map((i) => el("figure", { className: "map" },
      el("figcaption", { textContent: site.sets[i].name }), el("div", { className: "plot" })))));
  plots = [];
  const boxes = [...root.querySelectorAll(".plot")];
  for (const [place, i] of shown.entries()) {
    boxes[place].setAttribute("role", "group");
    boxes[place].setAttribute("aria-label",
      `map of ${site.n} concepts coloured by delta of ${site.sets[i].name}; the table view lists them`);
    await drawPlot(boxes[place], i);
    plots.push([boxes[place], i]);
  }
  for (const [box] of plots) joinViews(box);
  await markSelected();
}

/** Brings the drawn map up to date. */
export async function updateMap(keys) {
  if (["q", "verdict", "low", "high", "fires", "lasso", "colour", "size"].some((k) => keys.has(k))) {
    for (const [box, i] of plots) {
      await window.Plotly.restyle(box, points(i), [0]);
    }
  }
  if (keys.has("concept")) await markSelected();
}

function toolbar() {
  const sizes = [["fires", "fires"], ["contrast", "|contrast|"], ["equal", "equal"]];
  return el("div", { className: "toolbar" },
    choice("colours", Object.keys(PALETTES).map((name) => [name, name]), state.colour, (colour) => set({ colour })),
    choice("size by", sizes, state.size, (size) => set({ size })),
    el("button", {
      type: "button", textContent: "clear the lasso",
      onclick: () => { lasso.ids = null; for (const [box] of plots) clearSelection(box); tell(new Set(["lasso"])); },
    }),
    el("p", { className: "hint", textContent:
      "Places: UMAP of the dictionary, concepts of like direction lie together. Scroll to zoom, drag to move, lasso to filter." }));
}

function clearSelection(box) {
  window.Plotly.relayout(box, { selections: [] });
}

function points(i) {
  const c = columnsOf(i);
  const keep = new Uint8Array(site.n);
  if (!isUnfiltered()) for (const k of filtered(i)) keep[k] = 1;
  else keep.fill(1);
  const contrast = site.sets[i].form === "difference" ? c.difference : c.relative;
  let most = 1e-9;
  if (state.size === "contrast") for (const v of contrast) most = Math.max(most, Math.abs(v));
  const sizes = new Array(site.n);
  const opacities = new Array(site.n);
  for (let k = 0; k < site.n; k += 1) {
    sizes[k] = state.size === "equal" ? 6 : state.size === "contrast"
      ? 3 + 10 * Math.abs(contrast[k]) / most
      : 3 + 1.8 * Math.log10(1 + c.fires_real[k] + c.fires_generated[k]);
    opacities[k] = keep[k] ? 0.9 : 0.06;
  }
  return {
    "marker.color": [Array.from(c.delta)], "marker.size": [sizes],
    "marker.opacity": [opacities], "marker.colorscale": [scale(state.colour)],
  };
}

async function drawPlot(box, i) {
  const c = columnsOf(i);
  const form = formOf(i);
  const style = Object.fromEntries(Object.entries(points(i)).map(([k, v]) => [k.slice(7), v[0]]));
  const text = site.names.map((name, k) =>
    `${k} ${plain(name || "(no typical word)")}<br>delta ${fixed(c.delta[k])} [${fixed(c.delta_low[k])}, ${fixed(c.delta_high[k])}] (${form})<br>${c.fires_real[k]} fires in real, ${c.fires_generated[k]} in generated images<br>${site.verdicts[c.verdict[k]]}`);
  const concepts = {
    type: "scattergl", mode: "markers", x: xs, y: ys, text, hoverinfo: "text",
    marker: {
      ...style, cmin: 0, cmax: 1, line: { width: 0 },
      colorbar: { title: { text: `delta (${form})`, side: "right" }, thickness: 10, len: 0.6, outlinewidth: 0 },
    },
    // The filter fades; a selection of plotly's own would fade once more.
    selected: { marker: {} }, unselected: { marker: { opacity: 0.06 } },
  };
  const together = { type: "scatter", mode: "lines", x: [], y: [], hoverinfo: "skip", line: { width: 1.5, shape: "spline" } };
  const marks = { type: "scatter", mode: "markers+text", x: [], y: [], hoverinfo: "skip", marker: { symbol: "circle-open" }, textposition: "top center" };
  const hidden = { visible: false, fixedrange: false };
  await window.Plotly.newPlot(box, [concepts, together, marks], plotLayout({
    xaxis: hidden, yaxis: { ...hidden, scaleanchor: "x" }, dragmode: "pan", uirevision: "map",
  }), { ...PLOT_CONFIG, modeBarButtonsToAdd: ["lasso2d"], modeBarButtonsToRemove: ["select2d", "toImage"] });
  box.on("plotly_click", (event) => {
    const point = event.points.find((each) => each.curveNumber === 0);
    if (point) set({ concept: point.pointNumber });
  });
  box.on("plotly_selected", (event) => {
    if (!event?.points) return;
    lasso.ids = new Set(event.points.filter((p) => p.curveNumber === 0).map((p) => p.pointNumber));
    if (!lasso.ids.size) lasso.ids = null;
    tell(new Set(["lasso"]));
  });
}

/** Two maps show the same part. */
function joinViews(box) {
  box.on("plotly_relayout", (change) => {
    const ranges = Object.fromEntries(Object.entries(change).filter(([key]) => /axis\.(range|autorange)/.test(key)));
    if (box.isFollowing || !Object.keys(ranges).length) return;
    for (const [other] of plots) {
      if (other === box) continue;
      other.isFollowing = true;
      window.Plotly.relayout(other, ranges).then(() => { other.isFollowing = false; });
    }
  });
}

/** Rings the selected concept, its neighbours, and draws arcs to what fires with it. */
async function markSelected() {
  const k = state.concept;
  let arcs = { x: [[]], y: [[]] };
  let marks = { x: [[]], y: [[]], text: [[]] };
  if (k >= 0 && k < site.n) {
    const near = nearest(k);
    marks = {
      x: [[xs[k], ...near.map((j) => xs[j])]], y: [[ys[k], ...near.map((j) => ys[j])]],
      text: [[String(k), ...near.map(() => "")]],
    };
    const { ids } = await firingWith(k);
    if (state.concept !== k) return;
    arcs = bow(k, ids);
  }
  for (const [box] of plots) {
    await window.Plotly.restyle(box, { ...arcs, "line.color": themed("soft") }, [1]);
    const sizes = marks.x[0].map((_, i) => (i ? 10 : 18));
    await window.Plotly.restyle(box, { ...marks, "marker.size": [sizes], "marker.color": themed("ink"), "textfont.color": themed("ink") }, [2]);
  }
}

function nearest(k) {
  const distance = (j) => (xs[j] - xs[k]) ** 2 + (ys[j] - ys[k]) ** 2;
  const best = [];
  for (let j = 0; j < site.n; j += 1) {
    if (j === k) continue;
    const d = distance(j);
    if (best.length < NEIGHBOURS || d < best.at(-1)[0]) {
      best.push([d, j]);
      best.sort((a, b) => a[0] - b[0]);
      best.length = Math.min(best.length, NEIGHBOURS);
    }
  }
  return best.map(([, j]) => j);
}

/** Concepts that fire on the same tokens of real images, strongest first. */
export async function firingWith(k) {
  const size = site.chunk.concepts;
  const chunk = await load(`concepts/0/${Math.floor(k / size)}`);
  const n = chunk.together.shape[1];
  const from = (k % size) * n;
  const ids = [...unpack(chunk.together).slice(from, from + n)];
  const strength = [...unpack(chunk.strength).slice(from, from + n)];
  return { ids: ids.filter((id) => id >= 0), strength };
}

function bow(k, ids) {
  const x = [];
  const y = [];
  for (const j of ids) {
    const [dx, dy] = [xs[j] - xs[k], ys[j] - ys[k]];
    x.push(xs[k], xs[k] + dx / 2 - 0.15 * dy, xs[j], null);
    y.push(ys[k], ys[k] + dy / 2 + 0.15 * dx, ys[j], null);
  }
  return { x: [x], y: [y] };
}
