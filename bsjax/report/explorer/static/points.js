// How a plot draws its points: by WebGL, or by SVG where the browser has none.

const MOST_SVG = 3000; // points that SVG draws and moves at once without a wait
const EXTENSIONS = ["ANGLE_instanced_arrays", "OES_element_index_uint"]; // what plotly asks for

let isGl = null;

/** Whether plotly can draw by WebGL: virtual machines and remote desktops often cannot. */
export function hasGl() {
  if (isGl === null) {
    try {
      const gl = document.createElement("canvas").getContext("webgl");
      isGl = Boolean(gl) && EXTENSIONS.every((name) => gl.getExtension(name));
      gl?.getExtension("WEBGL_lose_context")?.loseContext();
    } catch {
      isGl = false;
    }
  }
  return isGl;
}

/** From now on by SVG: a graphics card was lost. */
export function loseGl() {
  isGl = false;
}

/** plotly's kind of trace for points. */
export const pointType = () => (hasGl() ? "scattergl" : "scatter");

/** Whether so many points are more than can be drawn at once. */
export const isThinned = (n) => !hasGl() && n > MOST_SVG;

/**
 * Those of the ids to draw: all, or as many as SVG takes of those that lie in the shown part.
 *
 * @param ids what could be drawn
 * @param x, y places, by position in ids
 * @param rank of a position; the least come first
 * @param box the plot, if it is drawn already: zoomed in, fewer points compete
 * @returns positions in ids, ascending
 */
export function drawn(ids, x, y, rank, box) {
  const positions = [...ids.keys()];
  if (!isThinned(ids.length)) return positions;
  const [within, order] = [shownPart(box), Float64Array.from(positions, rank)];
  const shown = positions.filter((p) => Number.isFinite(x[p]) && Number.isFinite(y[p]) && within(x[p], y[p]));
  for (const p of outermost(shown, x, y)) order[p] = -Infinity; // the axes reach as far as with all
  return shown.sort((p, q) => (order[p] < order[q] ? -1 : order[p] > order[q] ? 1 : p - q))
    .slice(0, MOST_SVG).sort((p, q) => p - q);
}

function outermost(positions, x, y) {
  return [x, y].flatMap((values) => [1, -1].map((sign) =>
    positions.reduce((best, p) => (sign * values[p] < sign * values[best] ? p : best), positions[0])));
}

function shownPart(box) {
  const axes = [box?._fullLayout?.xaxis?.range, box?._fullLayout?.yaxis?.range];
  if (!axes.every((range) => range?.every(Number.isFinite))) return () => true;
  const [[left, right], [low, high]] = axes.map((range) => [...range].sort((a, b) => a - b));
  return (x, y) => x >= left && x <= right && y >= low && y <= high;
}

/** What is said where not all points are drawn. */
export const thinnedText = (n, first) =>
  `This browser draws without WebGL: at most ${MOST_SVG} of ${n} points at once, ${first} first; zoom in to see the others.`;

/** Whether a point lies within a polygon {x: [...], y: [...]}. */
export function isInside(polygon, px, py) {
  let inside = false;
  const { x, y } = polygon;
  for (let i = 0, j = x.length - 1; i < x.length; j = i, i += 1) {
    if ((y[i] > py) !== (y[j] > py) && px < ((x[j] - x[i]) * (py - y[i])) / (y[j] - y[i]) + x[i]) inside = !inside;
  }
  return inside;
}
