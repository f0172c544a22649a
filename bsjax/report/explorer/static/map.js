// The map of the dictionary: one point per concept, coloured by delta; one model, or two side by side.

import { PLOT_CONFIG, plain, plotLayout, plotly, scale, themed } from "./colour.js";
import { columnsOf, filtered, fixed, formOf, isUnfiltered, loadColumns, ratioText, setNumber, site, verdictOf, whole } from "./concepts.js";
import { load, unpack } from "./data.js";
import { choice, el } from "./elements.js";
import { guarded } from "./faults.js";
import { drawn, isInside, isThinned, loseGl, pointType, thinnedText } from "./points.js";
import { lasso, set, state, tell } from "./state.js";

const NEIGHBOURS = 6; // nearest on the map
let plots = []; // {box, i, ids: the concepts drawn}
let xs = null;
let ys = null;

/** Draws the view into `root`. */
export async function showMap(root) {
  const shown = [setNumber(state.model)];
  if (state.second) shown.push(setNumber(state.second));
  await Promise.all(shown.map(loadColumns));
  xs = Array.from({ length: site.n }, (_, k) => site.places[2 * k]);
  ys = Array.from({ length: site.n }, (_, k) => site.places[2 * k + 1]);
  for (const { box } of plots) window.Plotly?.purge(box); // a browser has few WebGL contexts
  root.replaceChildren(toolbar(), el("div", { className: shown.length > 1 ? "maps two" : "maps" },
    ...shown.map((i) => el("figure", { className: "map" },
      el("figcaption", { textContent: site.sets[i].name }), el("div", { className: "plot" })))));
  plots = [];
  const boxes = [...root.querySelectorAll(".plot")];
  for (const [place, i] of shown.entries()) {
    boxes[place].setAttribute("role", "group");
    boxes[place].setAttribute("aria-label",
      `map of ${site.n} concepts coloured by delta of ${site.sets[i].name}; the table view lists them`);
    const plot = { box: boxes[place], i, ids: null };
    plots.push(plot);
    await drawPlot(plot);
  }
  if (isThinned(site.n)) root.querySelector(".toolbar").append(el("p", { className: "hint", textContent: thinnedText(site.n, `${site.verdicts.filter((each) => each.sign).map((each) => each.name).join(", ")} and filtered ones`) }));
  for (const { box } of plots) joinViews(box);
  await markSelected();
}

/** Brings the drawn map up to date. */
export async function updateMap(keys) {
  if (["q", "verdict", "low", "high", "fires", "lasso", "colour", "size"].some((k) => keys.has(k))) {
    for (const plot of plots) await redraw(plot);
  }
  if (keys.has("concept")) await markSelected();
}

function toolbar() {
  const sizes = [["fires", "fires"], ["contrast", "|contrast|"], ["equal", "equal"]];
  return el("div", { className: "toolbar" },
    choice("colours", Object.keys(site.palettes).map((name) => [name, name]), state.colour, (colour) => set({ colour })),
    choice("size by", sizes, state.size, (size) => set({ size })),
    el("button", {
      type: "button", textContent: "clear the lasso",
      onclick: () => { lasso.ids = null; for (const { box } of plots) clearSelection(box); tell(new Set(["lasso"])); },
    }),
    el("p", { className: "hint", textContent:
      "Places: UMAP of the dictionary, concepts of like direction lie together. Scroll to zoom, drag to move, lasso to filter." }));
}

function clearSelection(box) {
  plotly().relayout(box, { selections: [] });
}

/** Brings colours, sizes and, where not all are drawn, the choice of points up to date. */
async function redraw(plot) {
  await plotly().restyle(plot.box, wrapped(points(plot, plot.box)), [0]);
}

const wrapped = (arrays) => Object.fromEntries(Object.entries(arrays).map(([key, value]) => [key, [value]]));

/** What is drawn of a set, and how; places and texts where they may have changed. */
function points(plot, box) {
  const { i } = plot;
  const c = columnsOf(i);
  const keep = new Uint8Array(site.n);
  if (!isUnfiltered()) for (const k of filtered(i)) keep[k] = 1;
  else keep.fill(1);
  const contrast = site.sets[i].form === "difference" ? c.difference : c.relative;
  let most = 1e-9;
  if (state.size === "contrast") for (const v of contrast) most = Math.max(most, Math.abs(v));
  const size = (k) => (state.size === "equal" ? 6 : state.size === "contrast"
    ? 3 + 10 * Math.abs(contrast[k]) / most
    : 3 + 1.8 * Math.log10(1 + c.fires_real[k] + c.fires_generated[k]));
  const isTold = new Uint8Array(site.verdicts.map((each) => each.sign !== 0));
  const rank = (k) => 2 * (1 - keep[k]) + 1 - isTold[c.verdict[k]] + 1 / (2 + c.fires_real[k] + c.fires_generated[k]);
  const isFirst = plot.ids === null;
  const ids = drawn(site.names, xs, ys, rank, box);
  plot.ids = ids;
  const style = {
    "marker.color": ids.map((k) => c.delta[k]), "marker.size": ids.map(size),
    "marker.opacity": ids.map((k) => (keep[k] ? 0.9 : 0.06)), "marker.colorscale": scale(state.colour),
  };
  if (!isFirst && !isThinned(site.n)) return style;
  const form = formOf(i);
  const text = (k) =>
    `${k} ${plain(site.names[k] || "(no typical word)")}<br>generated / real ${ratioText(c, k)}<br>delta ${fixed(c.delta[k])} (${form})<br>fires ${whole(c.fires_real[k])} times in real, ${whole(c.fires_generated[k])} in generated images<br>${verdictOf(i, k).symbol} ${verdictOf(i, k).name}`;
  return { ...style, x: ids.map((k) => xs[k]), y: ids.map((k) => ys[k]), text: ids.map(text) };
}

async function drawPlot(plot) {
  const { box, i } = plot;
  const { x, y, text, ...style } = points(plot);
  const concepts = {
    type: pointType(), mode: "markers", x, y, text, hoverinfo: "text",
    marker: {
      ...Object.fromEntries(Object.entries(style).map(([key, value]) => [key.slice(7), value])),
      cmin: 0, cmax: 1, line: { width: 0 },
      colorbar: { title: { text: `delta (${formOf(i)})`, side: "right" }, thickness: 10, len: 0.6, outlinewidth: 0 },
    },
    // The filter fades; a selection of plotly's own would fade once more.
    selected: { marker: {} }, unselected: { marker: { opacity: 0.06 } },
  };
  const together = { type: "scatter", mode: "lines", x: [], y: [], hoverinfo: "skip", line: { width: 1.5, shape: "spline" } };
  const marks = { type: "scatter", mode: "markers+text", x: [], y: [], hoverinfo: "skip", marker: { symbol: "circle-open" }, textposition: "top center" };
  const hidden = { visible: false, fixedrange: false };
  await plotly().newPlot(box, [concepts, together, marks], plotLayout({
    xaxis: hidden, yaxis: { ...hidden, scaleanchor: "x" }, dragmode: "pan", uirevision: "map",
  }), { ...PLOT_CONFIG, modeBarButtonsToAdd: ["lasso2d"], modeBarButtonsToRemove: ["select2d", "toImage"] });
  box.on("plotly_click", (event) => {
    const point = event.points.find((each) => each.curveNumber === 0);
    if (point) set({ concept: plot.ids[point.pointNumber] });
  });
  box.on("plotly_selected", guarded((event) => {
    if (!event?.points) return;
    lasso.ids = new Set(event.points.filter((p) => p.curveNumber === 0).map((p) => plot.ids[p.pointNumber]));
    if (isThinned(site.n) && event.lassoPoints) {
      for (let k = 0; k < site.n; k += 1) if (isInside(event.lassoPoints, xs[k], ys[k])) lasso.ids.add(k);
    }
    if (!lasso.ids.size) lasso.ids = null;
    tell(new Set(["lasso"]));
  }));
  box.on("plotly_relayout", guarded(async (change) => {
    if (isThinned(site.n) && /axis/.test(Object.keys(change).join(" "))) await redraw(plot);
  }));
  box.on("plotly_webglcontextlost", () => {
    if (!box.isConnected) return;
    loseGl();
    tell(new Set(["view"]));
  });
}

/** Two maps show the same part. */
function joinViews(box) {
  box.on("plotly_relayout", (change) => {
    const ranges = Object.fromEntries(Object.entries(change).filter(([key]) => /axis\.(range|autorange)/.test(key)));
    if (box.isFollowing || !Object.keys(ranges).length) return;
    for (const { box: other } of plots) {
      if (other === box) continue;
      other.isFollowing = true;
      plotly().relayout(other, ranges).then(() => { other.isFollowing = false; });
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
  for (const { box } of plots) {
    await plotly().restyle(box, { ...arcs, "line.color": themed("soft") }, [1]);
    const sizes = marks.x[0].map((_, i) => (i ? 10 : 18));
    await plotly().restyle(box, { ...marks, "marker.size": [sizes], "marker.color": themed("ink"), "textfont.color": themed("ink") }, [2]);
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
