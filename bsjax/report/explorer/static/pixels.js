// The same points without WebGL, blended into pixels by hand: thousands become density, and none is left out.

import { LARGER, LAYERS, PER_LAYER, STROKE } from "./glpoints.js";

const PARTS = 4; // steps of a radius in a pixel

/** What draws points on a canvas: {setPoints, draw, dispose}. */
export function pixelPainter(canvas) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let points = { ids: [] };
  let image = null;
  return {
    setPoints(all) { points = all; },
    draw(view, weights, paper, ratio) {
      const [width, height] = [canvas.width, canvas.height];
      if (!width || !height) return;
      if (image?.width !== width || image.height !== height) image = context.createImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      pixels.fill(packedColour(paper, 0));
      blendPoints({ pixels, width, height }, view, points, weights, paper, ratio);
      context.putImageData(image, 0, 0);
    },
    dispose() { image = null; },
  };
}

/** A colour from place c of a list as one number, opaque: red in the lowest byte. */
const packedColour = (colour, c) => (0xff000000 | (colour[c + 2] << 16) | (colour[c + 1] << 8) | colour[c]) >>> 0;

function blendPoints({ pixels, width, height }, view, { ids, place, size, colour, kind }, { shrink, fade }, paper, ratio) {
  const [unitX, unitY] = [width / (view.right - view.left), height / (view.high - view.low)];
  const ground = packedColour(paper, 0);
  for (let p = 0; p < ids.length; p += 1) {
    const layer = Math.floor(kind[p] / PER_LAYER);
    const { side, reach, whole, ink } = maskOf(kind[p] % PER_LAYER, size[p] * shrink[layer] * ratio / 2, layer === LAYERS.above ? ratio : 0, ratio);
    const left = Math.floor((place[2 * p] - view.left) * unitX) - reach;
    const top = Math.floor((view.high - place[2 * p + 1]) * unitY) - reach;
    if (!(left + side > 0 && top + side > 0 && left < width && top < height)) continue;
    const opacity = colour[4 * p + 3] * fade[layer] / 255;
    const own = packedColour(colour, 4 * p);
    const [firstColumn, endColumn] = [Math.max(0, -left), Math.min(side, width - left)];
    for (let row = Math.max(0, -top); row < side && top + row < height; row += 1) {
      let to = (top + row) * width + left + firstColumn;
      for (let at = row * side + firstColumn; at < row * side + endColumn; at += 1, to += 1) {
        const alpha = (whole[at] * opacity + 0.5) | 0; // of 256
        if (alpha) pixels[to] = mixed(pixels[to], ink ? mixed(ground, own, ink[at]) : own, alpha);
      }
    }
  }
}

/** One opaque colour on another, `alpha` of 256: red and blue at once, each in 16 bits of its own; then green. */
const mixed = (below, above, alpha) => 0xff000000
  | (((below & 0xff00ff) * (256 - alpha) + (above & 0xff00ff) * alpha + 0x800080) >>> 8 & 0xff00ff)
  | (((below & 0xff00) * (256 - alpha) + (above & 0xff00) * alpha + 0x8000) >>> 8 & 0xff00);

const masks = new Map(); // by symbol, radius and line

/**
 * How much of each pixel of a square a symbol covers with its line, and how much of that is ink; of 256.
 *
 * @param radius half its size in pixels
 * @param line pixels of the paper's colour around it
 */
function maskOf(symbol, radius, line, ratio) {
  const steps = Math.round(PARTS * radius * (symbol ? LARGER : 1));
  const key = (steps * 2 + Number(line > 0)) * PER_LAYER + symbol;
  if (!masks.has(key)) masks.set(key, makeMask(symbol, steps / PARTS, line, ratio));
  return masks.get(key);
}

function makeMask(symbol, radius, line, ratio) {
  const isOpen = symbol > 2;
  const way = isOpen ? symbol - 2 : symbol;
  const reach = Math.ceil(radius + line);
  const side = 2 * reach + 1;
  const [whole, ink] = [new Float64Array(side * side), line > 0 ? new Uint16Array(side * side) : null];
  const share = (beyond) => Math.max(0, Math.min(1, 0.5 - beyond));
  for (let at = 0; at < side * side; at += 1) {
    const [x, y] = [at % side - reach, (way === 2 ? -1 : 1) * (Math.floor(at / side) - reach)];
    const beyond = way ? Math.max(y, 0.866 * Math.abs(x) - 0.5 * y) - 0.5 * radius : Math.hypot(x, y) - radius;
    whole[at] = 256 * share(beyond - line);
    const inked = share(beyond) * (isOpen ? Math.max(0, Math.min(1, 0.5 + beyond + STROKE * ratio)) : 1);
    if (ink && whole[at]) ink[at] = Math.min(256, 65536 * inked / whole[at]);
  }
  return { side, reach, whole, ink };
}
