// A plot of many points that moves and zooms at once, by WebGL where there is some.

import { rgbOf, themed } from "./colour.js";
import { el } from "./elements.js";
import { guarded } from "./faults.js";
import { glPainter, LAYERS, PER_LAYER } from "./glpoints.js";
import { takeHands } from "./hands.js";
import { pixelPainter } from "./pixels.js";

const REST = 160; // ms without a move until names are written anew
const NEAR = 5; // pixels from a point that still hit it
const BEFORE = [0, -3, 2]; // pixels by which points are hit sooner, by layer
const DEEPEST = 1e4; // zoom, times all
const MOST_AROUND = 8; // all, so many times as large as the plot
const ROOM = 1.06; // around all
const SHARPEST = 2; // pixels of a canvas in one of the page
const plots = new Set(); // that are shown
let isGl = true; // until it was lost, or is not there

/**
 * Draws into `box`, whose property `plot` it becomes.
 *
 * @param box an element of class plot
 * @param made {label: for who hears it,
 *   ends: {left, right, low, high} of all, isEven: whether both directions have one scale,
 *   margin: {left, right, top, bottom} pixels around the plane that points lie in,
 *   weigh(view, points): {shrink, fade}, factors of size and opacity by layer,
 *   over(context, at): draws lines over the points, tip(id): lines told of a point,
 *   onClick(id), onLasso(Set of ids) or none, onRest(plot): writes names, onMove(view, isWhole)}
 */
export function scatter(box, made) {
  const plane = el("div", { className: "plane", tabIndex: 0, role: "group", "aria-label": made.label });
  const over = el("canvas", { className: "over", "aria-hidden": "true" });
  const labels = el("div", { className: "labels", "aria-hidden": "true" });
  const tip = el("div", { className: "tip", hidden: true, "aria-hidden": "true" });
  const plot = {
    box, plane, labels, view: null, isWhole: true, width: 0, height: 0, points: emptyPoints(), lasso: null, isCatching: false, weights: null,
    /** Pixels of a place. */
    at: (x, y) => ({
      x: plot.width * (x - plot.view.left) / (plot.view.right - plot.view.left),
      y: plot.height * (plot.view.high - y) / (plot.view.high - plot.view.low),
    }),
    setPoints(points) { plot.points = points; painter.setPoints(points); ask(); later(0); },
    /** Shows a part; isWhole: it is all there is, also once the plot has another size. */
    setView(view, isWhole = false) { Object.assign(plot, { view, isWhole }); moved(); },
    showAll: () => go(fitted(made, plot), true),
    pan: (dx, dy) => go(panned(plot, dx, dy)),
    zoom: (factor, px, py) => go(zoomed(made, plot, factor, px, py)),
    nearest: (px, py) => nearestPoint(plot, px, py),
    ask, draw, dispose,
  };
  let [canvas, painter, asked, timer] = [null, null, 0, 0];
  function takePainter() {
    const fresh = el("canvas", { className: "points", "aria-hidden": "true" });
    painter = isGl ? glPainter(fresh, lost) : null;
    isGl = painter !== null;
    // A canvas that was asked for WebGL draws nothing else.
    const used = isGl ? fresh : el("canvas", { className: "points", "aria-hidden": "true" });
    painter ??= pixelPainter(used);
    if (canvas) canvas.replaceWith(used);
    canvas = used;
    plane.dataset.by = isGl ? "webgl" : "pixels";
  }
  function lost() {
    isGl = false;
    takePainter();
    painter.setPoints(plot.points);
    resize();
  }
  function resize() {
    const before = [plot.width, plot.height];
    [plot.width, plot.height] = [plane.clientWidth, plane.clientHeight];
    if (!plot.width || !plot.height) return;
    const ratio = Math.min(SHARPEST, window.devicePixelRatio);
    for (const each of [canvas, over]) Object.assign(each, { width: Math.round(ratio * plot.width), height: Math.round(ratio * plot.height) });
    if (plot.isWhole) plot.view = fitted(made, plot);
    else if (made.isEven && before[0]) plot.view = resized(plot, ...before);
    draw();
    rest();
  }
  /** Draws with the next picture. */
  function ask() {
    asked ||= requestAnimationFrame(guarded(() => { asked = 0; draw(); }));
  }
  function go(view, isWhole = false) {
    plot.setView(view, isWhole);
    made.onMove?.(view, isWhole);
  }
  function moved() {
    labels.hidden = true;
    tip.hidden = true;
    later(REST);
    ask();
  }
  function later(wait) {
    clearTimeout(timer);
    timer = setTimeout(guarded(rest), wait);
  }
  function rest() {
    if (!plot.view) return;
    made.onRest?.(plot);
    labels.hidden = false;
  }
  function draw() {
    if (!plot.view || !plot.width) return;
    const ratio = canvas.width / plot.width;
    plot.weights = made.weigh(plot.view, plot);
    painter.draw(plot.view, plot.weights, rgbOf(themed("paper")), ratio);
    const context = over.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, plot.width, plot.height);
    made.over?.(context, plot);
    if (plot.lasso) drawLasso(context, plot);
  }
  function dispose() {
    sizes.disconnect();
    clearTimeout(timer);
    cancelAnimationFrame(asked);
    painter.dispose();
    plots.delete(plot);
  }
  takePainter();
  plane.append(canvas, over, labels, tip);
  for (const [side, pixels] of Object.entries(made.margin ?? {})) plane.style.setProperty(side, `${pixels}px`);
  box.replaceChildren(plane, tools(plot, made));
  box.plot = plot;
  plots.add(plot);
  takeHands(plane, {
    pan: plot.pan, zoom: plot.zoom, showAll: plot.showAll, isCatching: () => plot.isCatching,
    leave() { tip.hidden = true; },
    point(x, y) { showTip(plot, tip, made, x, y); },
    click(x, y) { const id = plot.nearest(x, y); if (id >= 0) made.onClick(id); },
    lasso(pixels, isDone) { catchPoints(plot, made, pixels, isDone); ask(); },
  });
  const sizes = new ResizeObserver(guarded(resize));
  sizes.observe(plane);
  resize();
  return plot;
}

/** Gives back what plots hold that are no longer shown. */
export function leavePlots() {
  for (const plot of plots) plot.dispose();
}

/** Arrays of n points: their ids, places, pixels across, colours and kinds, those on top last. */
export const emptyPoints = (n = 0) => ({
  ids: new Int32Array(n), place: new Float32Array(2 * n), size: new Float32Array(n), colour: new Uint8Array(4 * n), kind: new Uint8Array(n),
});

/** Sets point p of such arrays. */
export function setPoint(points, p, { id, x, y, size, rgb, opacity, symbol, layer }) {
  points.ids[p] = id;
  points.place[2 * p] = x;
  points.place[2 * p + 1] = y;
  points.size[p] = size;
  points.colour.set(rgb, 4 * p);
  points.colour[4 * p + 3] = Math.round(255 * opacity);
  points.kind[p] = symbol + PER_LAYER * layer;
}

/** Layer of a point. */
export const layerOf = (points, p) => Math.floor(points.kind[p] / PER_LAYER);

/** All, with some room around. */
function fitted({ ends, isEven }, { width, height }) {
  let [w, h] = [ends.right - ends.left || 1, ends.high - ends.low || 1];
  if (isEven) {
    const unit = ROOM * Math.max(w / width, h / height); // a pixel
    [w, h] = [unit * width, unit * height];
  }
  const [x, y] = [(ends.left + ends.right) / 2, (ends.low + ends.high) / 2];
  return { left: x - w / 2, right: x + w / 2, low: y - h / 2, high: y + h / 2 };
}

/** The same middle and scale in another size. */
function resized({ view, width, height }, oldWidth, oldHeight) {
  const [x, y] = [(view.left + view.right) / 2, (view.low + view.high) / 2];
  const [w, h] = [width / oldWidth * (view.right - view.left) / 2, height / oldHeight * (view.high - view.low) / 2];
  return { left: x - w, right: x + w, low: y - h, high: y + h };
}

function panned({ view, width, height }, dx, dy) {
  const [x, y] = [-dx * (view.right - view.left) / width, dy * (view.high - view.low) / height];
  return { left: view.left + x, right: view.right + x, low: view.low + y, high: view.high + y };
}

/** Larger, while what lies at a pixel stays there. */
function zoomed(made, { view, width, height }, factor, px, py) {
  const [w, h] = [view.right - view.left, view.high - view.low];
  const all = Math.max(made.ends.right - made.ends.left, made.ends.high - made.ends.low) || 1;
  const span = Math.max(w, h) / all;
  const times = Math.min(Math.max(factor, span / MOST_AROUND), DEEPEST * span);
  const [x, y] = [view.left + w * px / width, view.high - h * py / height];
  const [left, high] = [x - w / times * px / width, y + h / times * py / height];
  return { left, right: left + w / times, low: high - h / times, high };
}

/** Id of the point at a pixel; -1: none is. */
function nearestPoint({ view, width, height, points, weights }, px, py) {
  const [unitX, unitY] = [width / (view.right - view.left), height / (view.high - view.low)];
  let [best, found] = [Infinity, -1];
  for (let p = 0; p < points.ids.length; p += 1) {
    const dx = (points.place[2 * p] - view.left) * unitX - px;
    const dy = (view.high - points.place[2 * p + 1]) * unitY - py;
    if (dx > 40 || dx < -40 || dy > 40 || dy < -40) continue;
    const layer = layerOf(points, p);
    const distance = Math.hypot(dx, dy);
    if (distance > Math.max(NEAR, points.size[p] * weights.shrink[layer] / 2 + 2) || distance - BEFORE[layer] > best) continue;
    [best, found] = [distance - BEFORE[layer], points.ids[p]];
  }
  return found;
}

function showTip(plot, tip, made, x, y) {
  const id = plot.view ? plot.nearest(x, y) : -1;
  plot.plane.classList.toggle("hit", id >= 0);
  tip.hidden = id < 0;
  if (id < 0) return;
  tip.replaceChildren(...made.tip(id).map((line) => el("div", {}, el("bdi", { textContent: line }))));
  const [w, h] = [tip.offsetWidth, tip.offsetHeight];
  tip.style.left = `${Math.max(0, Math.min(plot.width - w, x + 14))}px`;
  tip.style.top = `${y + 14 + h > plot.height ? Math.max(0, y - 10 - h) : y + 14}px`;
}

/** The lasso grows, or is closed: what lies in it is caught. */
function catchPoints(plot, made, pixels, isDone) {
  if (!made.onLasso) return;
  const { view, width, height, points } = plot;
  plot.lasso = pixels?.map(({ x, y }) => [view.left + x * (view.right - view.left) / width, view.high - y * (view.high - view.low) / height]) ?? null;
  if (!isDone || !plot.lasso) return;
  const caught = new Set();
  points.ids.forEach((id, p) => { if (isInside(plot.lasso, points.place[2 * p], points.place[2 * p + 1])) caught.add(id); });
  if (!caught.size) plot.lasso = null;
  made.onLasso(caught);
}

/** Whether a point lies within a polygon of [x, y]. */
function isInside(polygon, px, py) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i, i += 1) {
    const [[ax, ay], [bx, by]] = [polygon[i], polygon[j]];
    if ((ay > py) !== (by > py) && px < ((bx - ax) * (py - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}

function drawLasso(context, plot) {
  context.beginPath();
  for (const [x, y] of plot.lasso) {
    const place = plot.at(x, y);
    context.lineTo(place.x, place.y);
  }
  context.closePath();
  context.setLineDash([5, 4]);
  context.lineWidth = 1.5;
  context.strokeStyle = themed("accent");
  context.stroke();
  context.setLineDash([]);
}

/** Buttons for who has no wheel. */
function tools(plot, made) {
  const zoom = (factor) => () => plot.zoom(factor, plot.width / 2, plot.height / 2);
  const button = (text, label, onclick) => el("button", { type: "button", textContent: text, title: label, "aria-label": label, onclick });
  const lasso = made.onLasso ? button("lasso", "lasso: draw around concepts to filter by them", () => {
    plot.isCatching = !plot.isCatching;
    lasso.setAttribute("aria-pressed", String(plot.isCatching));
    plot.plane.classList.toggle("catching", plot.isCatching);
  }) : null;
  lasso?.setAttribute("aria-pressed", "false");
  return el("div", { className: "tools", role: "group", "aria-label": "zoom" },
    button("+", "zoom in", zoom(1.5)), button("−", "zoom out", zoom(1 / 1.5)), button("all", "show all points", () => plot.showAll()), lasso);
}
