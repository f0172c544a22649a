// The map of the dictionary: one point per concept, what changed on top; one model, or two side by side.

import { needPlotly, PLOT_CONFIG, plain, plotLayout, plotly, themed } from "./colour.js";
import { columnsOf, fixed, formOf, isCalled, isUnfiltered, loadColumns, passing, ratioText, setNumber, site, strength, verdictOf, whole } from "./concepts.js";
import { load, unpack } from "./data.js";
import { choice, el } from "./elements.js";
import { guarded } from "./faults.js";
import { chips, FILTER_KEYS } from "./filter.js";
import { glide } from "./glide.js";
import { drawLabels } from "./labels.js";
import { colourings, crowding, legend, opacityOf, paint, sizesOf, symbolOf } from "./marks.js";
import { drawn, isInside, isThinned, loseGl, pointType, thinnedText } from "./points.js";
import { lasso, set, state, tell } from "./state.js";

const NEIGHBOURS = 6; // nearest on the map
const MOST_TOLD = 1000; // marks on top that SVG draws without a wait
const [ALL_POINTS, ARCS, SELECTED, CHANGED] = [0, 1, 2, 3]; // plotly's traces, in this order
const NOTICED = 1.15; // a factor of size or opacity that is worth drawing anew
const REST_OF_VIEW = 250; // ms for which the shown part stays as it is before points are weighed anew
let plots = []; // {box, layer, key: of the legend, i, ids: the concepts drawn, told: those on top, crowd, texts, timer}
let xs = null;
let ys = null;

/** Draws the view into `root`. */
export async function showMap(root) {
  const shown = [setNumber(state.model)];
  if (state.second) shown.push(setNumber(state.second));
  await Promise.all([needPlotly(), ...shown.map(loadColumns)]);
  xs = Array.from({ length: site.n }, (_, k) => site.places[2 * k]);
  ys = Array.from({ length: site.n }, (_, k) => site.places[2 * k + 1]);
  for (const { box } of plots) window.Plotly?.purge(box); // a browser has few WebGL contexts
  plots = shown.map((i) => ({
    box: el("div", { className: "plot", role: "group", "aria-label":
      `map of ${site.n} concepts coloured by what was said of ${site.sets[i].name}; the table view lists them` }),
    layer: el("div", { className: "labels", "aria-hidden": "true" }), key: el("div"), i, ids: null, told: [], crowd: null, texts: [],
  }));
  root.replaceChildren(toolbar(), el("div", { id: "map-chips" }), el("div", { className: shown.length > 1 ? "maps two" : "maps" },
    ...plots.map(({ box, layer, key, i }) => el("figure", { className: "map" },
      el("figcaption", { textContent: site.sets[i].name }), key, el("div", { className: "layers" }, box, layer)))));
  if (isThinned(site.n)) root.querySelector(".toolbar").append(el("p", { className: "hint", textContent: thinnedText(site.n, `${site.verdicts.filter((each) => each.sign).map((each) => each.name).join(", ")} and filtered ones`) }));
  tellFilter();
  for (const plot of plots) await drawPlot(plot);
  for (const { box } of plots) joinViews(box);
  await markSelected();
}

/** Brings the drawn map up to date. */
export async function updateMap(keys) {
  if ([...FILTER_KEYS, "colour", "size"].some((k) => keys.has(k))) {
    if (keys.has("lasso") && !lasso.ids) for (const { box } of plots) await plotly().relayout(box, { selections: [] });
    tellFilter();
    for (const plot of plots) await redraw(plot);
  }
  if (keys.has("concept")) await markSelected();
}

function toolbar() {
  const sizes = [["fires", "fires"], ["contrast", "|contrast|"], ["equal", "equal"]];
  const options = colourings();
  const colour = options.some(([name]) => name === state.colour) ? state.colour : options[0][0];
  return el("div", { className: "toolbar" },
    choice("colours", options, colour, (value) => set({ colour: value })),
    choice("size by", sizes, state.size, (size) => set({ size })),
    el("p", { className: "hint", textContent:
      `Places: ${site.places_are ?? "as the report has them"}. Scroll to zoom, drag to move, lasso to filter.` }));
}

/** What acts on the map, and what its colours mean. */
function tellFilter() {
  document.getElementById("map-chips")?.replaceChildren(chips(plots[0].i, false));
  for (const plot of plots) {
    const isFiltered = !isUnfiltered();
    plot.keep = isFiltered ? passing(plot.i) : new Uint8Array(site.n).fill(1);
    plot.key.replaceChildren(legend(plot.i, plot.keep, isFiltered));
  }
}

/** The shown part in units of places and in pixels; of all, before it is drawn. */
function viewOf(box) {
  const { xaxis, yaxis } = box._fullLayout ?? {};
  if (xaxis?._length && xaxis.range?.every(Number.isFinite)) {
    return { left: xaxis.range[0], right: xaxis.range[1], low: yaxis.range[0], high: yaxis.range[1], width: xaxis._length, height: yaxis._length };
  }
  const ends = [xs, ys].map((values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]));
  return { left: ends[0][0], right: ends[0][1] + 1e-6, low: ends[1][0], high: ends[1][1] + 1e-6, width: box.clientWidth || 800, height: box.clientHeight || 500 };
}

/** How crowded the points of a plot are where it shows them now: all, and those on top. */
function crowdOf(plot) {
  const size = sizesOf(plot.i);
  const view = viewOf(plot.box);
  return [plot.ids, plot.told].map((ids) => {
    let area = 0;
    for (const k of ids) area += size(k) ** 2;
    return crowding(ids.map((k) => xs[k]), ids.map((k) => ys[k]), 0.785 * area / Math.max(ids.length, 1), view);
  });
}

/** Size and opacity of both traces, which depend on how crowded they are. */
function weights(plot) {
  const [all, top] = plot.crowd;
  const [size, opacity] = [sizesOf(plot.i), opacityOf(plot.i, plot.keep, new Set(plot.told), all.opacity)];
  return [
    { size: plot.ids.map((k) => size(k) * all.shrink), opacity: plot.ids.map(opacity) },
    { size: plot.told.map((k) => size(k) * top.shrink), opacity: plot.told.map((k) => (isCalled(plot.i, k) ? 1 : 0.8) * top.opacity) },
  ];
}

/** The two traces of points: all, and on top of them what changed. */
function points(plot) {
  const { i, keep, box } = plot;
  const c = columnsOf(i);
  const isTold = new Uint8Array(site.verdicts.map((each) => each.sign !== 0));
  const rank = (k) => 2 * (1 - keep[k]) + 1 - isTold[c.verdict[k]] + 1 / (2 + c.fires_real[k] + c.fires_generated[k]);
  plot.ids = drawn(site.names, xs, ys, rank, box);
  const weak = strength(c);
  const weakest = (a, b) => isCalled(i, a) - isCalled(i, b) || weak(b) - weak(a);
  plot.told = plot.ids.filter((k) => keep[k] && isTold[c.verdict[k]]).sort(weakest).slice(isThinned(site.n) ? -MOST_TOLD : 0);
  plot.crowd = crowdOf(plot);
  const { value, scale: colorscale } = paint(i);
  const form = formOf(i);
  const text = (k) => plot.texts[k] ??=
    `${k} ${plain(site.names[k] || "(no typical word)")}<br>generated / real ${ratioText(c, k)}<br>delta ${fixed(c.delta[k])} (${form})<br>fires ${whole(c.fires_real[k])} times in real, ${whole(c.fires_generated[k])} in generated images<br>${verdictOf(i, k).symbol} ${verdictOf(i, k).name}`;
  const [lower, upper] = weights(plot);
  const marker = { colorscale, cmin: 0, cmax: 1, showscale: false };
  const at = (ids) => ({ type: pointType(), mode: "markers", x: ids.map((k) => xs[k]), y: ids.map((k) => ys[k]) });
  // The filter fades; a selection of plotly's own would fade once more.
  const plainSelection = { selected: { marker: {} }, unselected: { marker: { opacity: 0.06 } } };
  return [
    { ...at(plot.ids), ...plainSelection, text: plot.ids.map(text), hoverinfo: "text", marker: { ...marker, ...lower, color: plot.ids.map(value), line: { width: 0 } } },
    { ...at(plot.told), ...plainSelection, hoverinfo: "skip", marker: { ...marker, ...upper, color: plot.told.map(value), symbol: plot.told.map((k) => symbolOf(i, k)), line: { width: 1, color: themed("paper") } } },
  ];
}

/** Brings points, their weights and names up to date. */
async function redraw(plot) {
  const { box } = plot;
  const [lower, upper] = points(plot);
  const traces = [lower, ...[...box.data].slice(ARCS, CHANGED), upper];
  await plotly().react(box, traces, box.layout, box._context);
  writeNames(plot);
}

/** After the shown part changed: fewer points in it may be larger and clearer. */
async function reweigh(plot) {
  if (!plot.box.isConnected) return;
  const before = plot.crowd;
  const crowd = crowdOf(plot);
  const isOther = crowd.some((each, p) => ["shrink", "opacity"].some((key) =>
    Math.abs(Math.log(each[key] / before[p][key])) > Math.log(NOTICED)));
  if (!isOther) return;
  plot.crowd = crowd;
  const [lower, upper] = weights(plot);
  await plotly().restyle(plot.box, { "marker.size": [lower.size, upper.size], "marker.opacity": [lower.opacity, upper.opacity] }, [ALL_POINTS, CHANGED]);
}

/** Names of the called concepts, those that changed most first. */
function writeNames({ box, layer, i, told }) {
  const { xaxis, yaxis } = box._fullLayout;
  const called = told.filter((k) => isCalled(i, k)).reverse();
  drawLabels(layer, called, (k) => ({ x: xaxis._offset + xaxis.d2p(xs[k]), y: yaxis._offset + yaxis.d2p(ys[k]) }), {
    left: xaxis._offset, right: xaxis._offset + xaxis._length, top: yaxis._offset, bottom: yaxis._offset + yaxis._length,
  });
  layer.hidden = false;
}

async function drawPlot(plot) {
  const { box } = plot;
  const [concepts, changed] = points(plot);
  const together = { type: "scatter", mode: "lines", x: [], y: [], hoverinfo: "skip", line: { width: 1.5, shape: "spline" } };
  const marks = { type: "scatter", mode: "markers+text", x: [], y: [], hoverinfo: "skip", marker: { symbol: "circle-open" }, textposition: "top center" };
  const hidden = { visible: false, fixedrange: false };
  await plotly().newPlot(box, [concepts, together, marks, changed], plotLayout({
    xaxis: hidden, yaxis: { ...hidden, scaleanchor: "x" }, dragmode: "pan", uirevision: "map",
  }), { ...PLOT_CONFIG, modeBarButtonsToAdd: ["lasso2d"], modeBarButtonsToRemove: ["select2d", "toImage"] });
  writeNames(plot);
  const select = (hit) => {
    const point = hit.find((each) => each.curveNumber === ALL_POINTS);
    if (point) set({ concept: plot.ids[point.pointNumber] });
  };
  box.on("plotly_click", (event) => select(event.points));
  glide(box, plot.layer, select);
  box.on("plotly_selected", guarded((event) => {
    if (!event?.points) return;
    lasso.ids = new Set(event.points.filter((p) => p.curveNumber === ALL_POINTS).map((p) => plot.ids[p.pointNumber]));
    if (isThinned(site.n) && event.lassoPoints) {
      for (let k = 0; k < site.n; k += 1) if (isInside(event.lassoPoints, xs[k], ys[k])) lasso.ids.add(k);
    }
    if (!lasso.ids.size) lasso.ids = null;
    tell(new Set(["lasso"]));
  }));
  box.on("plotly_relayouting", () => { plot.layer.hidden = true; });
  box.on("plotly_relayout", guarded(async (change) => {
    if (!/axis|autosize|width|height/.test(Object.keys(change).join(" "))) return;
    writeNames(plot);
    clearTimeout(plot.timer);
    if (isThinned(site.n)) await redraw(plot);
    else plot.timer = setTimeout(guarded(() => reweigh(plot)), REST_OF_VIEW);
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
  let arcs = { x: [], y: [] };
  let marks = { x: [], y: [], text: [] };
  if (k >= 0 && k < site.n) {
    const near = nearest(k);
    marks = {
      x: [xs[k], ...near.map((j) => xs[j])], y: [ys[k], ...near.map((j) => ys[j])],
      text: [String(k), ...near.map(() => "")],
    };
    const { ids } = await firingWith(k);
    if (state.concept !== k) return;
    arcs = bow(k, ids);
  }
  const sizes = marks.x.map((_, place) => (place ? 10 : 18));
  for (const { box } of plots) {
    await plotly().restyle(box, {
      x: [arcs.x, marks.x], y: [arcs.y, marks.y], text: [[], marks.text], "line.color": themed("soft"),
      "marker.size": [6, sizes], "marker.color": themed("ink"), "textfont.color": themed("ink"),
    }, [ARCS, SELECTED]);
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
  return { x, y };
}
