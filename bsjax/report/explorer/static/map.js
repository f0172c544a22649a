// The map of the dictionary: one point per concept, what changed on top; one model, or two side by side.

import { themed } from "./colour.js";
import { columnsOf, fixed, formOf, isCalled, isUnfiltered, loadColumns, passing, ratioText, setNumber, site, strength, verdictOf, whole } from "./concepts.js";
import { load, unpack } from "./data.js";
import { breathe, choice, el } from "./elements.js";
import { chips, FILTER_KEYS } from "./filter.js";
import { LAYERS, SYMBOLS } from "./glpoints.js";
import { drawLabels } from "./labels.js";
import { colourings, crowding, legend, opacityOf, paint, sizesOf, symbolsOf } from "./marks.js";
import { emptyPoints, scatter, setPoint } from "./scatter.js";
import { lasso, set, state, tell } from "./state.js";

const NEIGHBOURS = 6; // nearest on the map
let maps = []; // {i: of the set, plot, key: of the legend, keep, told: those on top, weakest first, n: points, areas: mean ones of those below and on top}
let ends = null; // of the places
let rings = { k: -1, near: [], ids: [] }; // the selected concept, its neighbours, what fires with it

/** Draws the view into `root`. */
export async function showMap(root) {
  const shown = [setNumber(state.model)];
  if (state.second) shown.push(setNumber(state.second));
  for (const i of shown) await loadColumns(i);
  await breathe();
  ends = endsOf(site.places);
  rings = { k: -1, near: [], ids: [] };
  maps = shown.map((i) => ({ i, box: el("div", { className: "plot" }), key: el("div"), keep: null, told: [], n: [0, 0, 0], areas: [0, 0] }));
  root.replaceChildren(toolbar(), el("div", { id: "map-chips" }), el("div", { className: shown.length > 1 ? "maps two" : "maps" },
    ...maps.map(({ box, key, i }) => el("figure", { className: "map" }, el("figcaption", { textContent: site.sets[i].name }), key, box))));
  tellFilter();
  for (const map of maps) {
    await breathe();
    map.plot = plotOf(map);
    await breathe();
    await drawPoints(map);
  }
  await markSelected();
}

/** Brings the drawn map up to date. */
export async function updateMap(keys) {
  if ([...FILTER_KEYS, "colour", "size"].some((k) => keys.has(k))) {
    if (keys.has("lasso") && !lasso.ids) for (const { plot } of maps) plot.lasso = null;
    tellFilter();
    for (const map of maps) await drawPoints(map);
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
      `Places: ${site.places_are ?? "as the report has them"}. Scroll or pinch to zoom, drag to move, lasso (or drag with Shift) to filter.` }));
}

/** What acts on the map, and what its colours mean. */
function tellFilter() {
  document.getElementById("map-chips")?.replaceChildren(chips(maps[0].i, false));
  for (const map of maps) {
    const isFiltered = !isUnfiltered();
    map.keep = isFiltered ? passing(map.i) : new Uint8Array(site.n).fill(1);
    map.key.replaceChildren(legend(map.i, map.keep, isFiltered));
  }
}

/** Least and largest of places x, y. */
function endsOf(places) {
  const found = { left: Infinity, right: -Infinity, low: Infinity, high: -Infinity };
  for (let p = 0; p < places.length; p += 2) {
    const [x, y] = [places[p], places[p + 1]];
    if (!Number.isFinite(x) || !Number.isFinite(y)) continue;
    if (x < found.left) found.left = x;
    if (x > found.right) found.right = x;
    if (y < found.low) found.low = y;
    if (y > found.high) found.high = y;
  }
  return Number.isFinite(found.left) ? found : { left: 0, right: 1, low: 0, high: 1 };
}

function plotOf(map) {
  return scatter(map.box, {
    label: `map of ${site.n} concepts coloured by what was said of ${site.sets[map.i].name}; the table view lists them. Arrow keys move it, + and - zoom, 0 shows all`,
    ends, isEven: true,
    weigh: (view, plot) => weigh(map, view, plot),
    over: drawRings,
    tip: (k) => tipOf(map.i, k),
    onClick: (concept) => set({ concept }),
    onLasso: (ids) => { lasso.ids = ids.size ? ids : null; tell(new Set(["lasso"])); },
    onRest: (plot) => writeNames(map, plot),
    onMove(view, isWhole) { for (const { plot } of maps) if (plot && plot !== map.plot) plot.setView(view, isWhole); },
  });
}

/** Size and opacity by how crowded the points are in the shown part: zoomed in, they are large and clear. */
function weigh({ n: [faded, below, above], areas }, view, plot) {
  const [lower, upper] = [[0, faded + below], [faded + below, faded + below + above]].map((part, p) =>
    crowding(plot.points.place, part, areas[p], view, plot));
  return {
    shrink: [lower.shrink, lower.shrink, upper.shrink],
    fade: [lower.opacity, Math.min(1, 2 * lower.opacity), upper.opacity],
  };
}

/** All points in the order in which they lie on one another: what is filtered out, not judged, judged, and what changed. */
async function drawPoints(map) {
  const lists = inLayers(map);
  await breathe(); // between parts of some 20 ms at 32,000 concepts
  const points = pointsOf(map, lists);
  await breathe();
  map.plot.setPoints(points);
}

/** Ids by where they lie, the lowest first. */
function inLayers(map) {
  const { i, keep } = map;
  const { verdict } = columnsOf(i);
  const isCall = site.verdicts.map((each) => site.called.includes(each.name));
  const signs = site.verdicts.map((each) => each.sign);
  const isJudged = site.verdicts.map((each) => each.is_judged);
  const lists = [[], [], [], []];
  for (let k = 0; k < site.n; k += 1) {
    if (!Number.isFinite(site.places[2 * k]) || !Number.isFinite(site.places[2 * k + 1])) continue;
    lists[!keep[k] ? 0 : signs[verdict[k]] ? 3 : isJudged[verdict[k]] ? 2 : 1].push(k);
  }
  const weak = strength(columnsOf(i));
  map.told = lists[3].sort((a, b) => isCall[verdict[a]] - isCall[verdict[b]] || weak(b) - weak(a));
  return lists;
}

function pointsOf(map, lists) {
  const { i, keep } = map;
  const { verdict } = columnsOf(i);
  const isCall = site.verdicts.map((each) => site.called.includes(each.name));
  map.n = [lists[0].length, lists[1].length + lists[2].length, lists[3].length];
  const points = emptyPoints(map.n[0] + map.n[1] + map.n[2]);
  const [size, opacity, symbols, { rgb }] = [sizesOf(i), opacityOf(i, keep), symbolsOf(), paint(i)];
  let p = 0;
  const areas = [0, 0];
  for (const [place, ids] of lists.entries()) {
    const isOnTop = place === 3;
    const layer = isOnTop ? LAYERS.above : place ? LAYERS.below : LAYERS.faded;
    for (const k of ids) {
      const pixels = size(k);
      areas[Number(isOnTop)] += 0.785 * pixels * pixels;
      setPoint(points, p, {
        id: k, x: site.places[2 * k], y: site.places[2 * k + 1], size: pixels, rgb: rgb(k), layer,
        opacity: isOnTop ? (isCall[verdict[k]] ? 1 : 0.8) : opacity(k), symbol: isOnTop ? symbols[verdict[k]] : SYMBOLS.disc,
      });
      p += 1;
    }
  }
  map.areas = [areas[0] / Math.max(1, map.n[0] + map.n[1]), areas[1] / Math.max(1, map.n[2])];
  return points;
}

/** What is told of a concept that one points at. */
function tipOf(i, k) {
  const c = columnsOf(i);
  const verdict = verdictOf(i, k);
  return [`${k} ${site.names[k] || "(no typical word)"}`, `generated / real ${ratioText(c, k)}`, `delta ${fixed(c.delta[k])} (${formOf(i)})`,
    `fires ${whole(c.fires_real[k])} times in real, ${whole(c.fires_generated[k])} in generated images`, `${verdict.symbol} ${verdict.name}`];
}

const placeOf = (plot, k) => plot.at(site.places[2 * k], site.places[2 * k + 1]);

/** Names of the called concepts, those that changed most first. */
function writeNames({ i, told }, plot) {
  const called = told.filter((k) => isCalled(i, k)).reverse();
  drawLabels(plot.labels, called, (k) => placeOf(plot, k), { left: 0, right: plot.width, top: 0, bottom: plot.height });
}

/** Rings the selected concept, its neighbours, and draws arcs to what fires with it. */
async function markSelected() {
  const k = state.concept;
  rings = { k: -1, near: [], ids: [] };
  if (k >= 0 && k < site.n) {
    const near = nearest(k);
    const { ids } = await firingWith(k);
    if (state.concept !== k) return;
    rings = { k, near, ids };
  }
  for (const { plot } of maps) plot.ask();
}

function drawRings(context, plot) {
  const { k, near, ids } = rings;
  if (k < 0) return;
  const from = placeOf(plot, k);
  context.strokeStyle = themed("soft");
  context.lineWidth = 1.5;
  for (const j of ids) {
    const to = placeOf(plot, j);
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.quadraticCurveTo(from.x + dx / 2 + 0.3 * dy, from.y + dy / 2 - 0.3 * dx, to.x, to.y);
    context.stroke();
  }
  context.strokeStyle = themed("ink");
  context.fillStyle = themed("ink");
  for (const [radius, each] of [[10, from], ...near.map((j) => [5.5, placeOf(plot, j)])]) {
    context.beginPath();
    context.arc(each.x, each.y, radius, 0, 2 * Math.PI);
    context.stroke();
  }
  context.font = "600 13px system-ui, sans-serif";
  context.textAlign = "center";
  context.lineWidth = 4;
  context.strokeStyle = themed("paper");
  context.strokeText(String(k), from.x, from.y - 14);
  context.fillText(String(k), from.x, from.y - 14);
}

function nearest(k) {
  const distance = (j) => (site.places[2 * j] - site.places[2 * k]) ** 2 + (site.places[2 * j + 1] - site.places[2 * k + 1]) ** 2;
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
