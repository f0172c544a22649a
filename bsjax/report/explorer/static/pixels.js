// The same points without WebGL: what lies below is blended into pixels by hand, as density; what lies on top is drawn.

import { LARGER, LAYERS, PER_LAYER, STROKE } from "./glpoints.js";

const PARTS = 4; // steps of a disc's radius in a pixel

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
      pixels.fill(packed(paper, 0));
      const end = drawBelow(pixels, width, height, view, points, weights, ratio);
      context.putImageData(image, 0, 0);
      context.lineJoin = "round";
      for (let p = end; p < points.ids.length; p += 1) drawAbove(context, view, points, p, weights, paper, ratio);
      context.globalAlpha = 1;
    },
    dispose() { image = null; },
  };
}

/** A colour from place c of a list as one number, opaque: red in the lowest byte. */
const packed = (colour, c) => (0xff000000 | (colour[c + 2] << 16) | (colour[c + 1] << 8) | colour[c]) >>> 0;

/** Blends all points that are not on top into pixels; the number of the first that is. */
function drawBelow(pixels, width, height, view, points, { shrink, fade }, ratio) {
  const { place, size, colour, kind } = points;
  const [unitX, unitY] = [width / (view.right - view.left), height / (view.high - view.low)];
  const first = PER_LAYER * LAYERS.above;
  let p = 0;
  for (; p < points.ids.length && kind[p] < first; p += 1) {
    const layer = kind[p] >= PER_LAYER ? 1 : 0;
    const { side, reach, shares } = discOf(size[p] * shrink[layer] * ratio / 2);
    const left = Math.floor((place[2 * p] - view.left) * unitX) - reach;
    const top = Math.floor((view.high - place[2 * p + 1]) * unitY) - reach;
    if (left + side <= 0 || top + side <= 0 || left >= width || top >= height) continue;
    const opacity = colour[4 * p + 3] * fade[layer] / 255;
    const ink = packed(colour, 4 * p);
    const [red, green] = [ink & 0xff00ff, ink & 0xff00];
    for (let row = Math.max(0, -top); row < side && top + row < height; row += 1) {
      for (let column = Math.max(0, -left); column < side && left + column < width; column += 1) {
        const alpha = (shares[row * side + column] * opacity + 0.5) | 0; // of 256
        if (!alpha) continue;
        const to = (top + row) * width + left + column;
        const below = pixels[to];
        // Red and blue at once, each in 16 bits of its own; then green.
        pixels[to] = 0xff000000
          | (((below & 0xff00ff) * (256 - alpha) + red * alpha + 0x800080) >>> 8 & 0xff00ff)
          | (((below & 0xff00) * (256 - alpha) + green * alpha + 0x8000) >>> 8 & 0xff00);
      }
    }
  }
  return p;
}

const discs = []; // by radius in parts of a pixel: {side, reach, shares}

/** How much of each pixel of a square a disc covers, of 256. */
function discOf(radius) {
  const key = Math.round(PARTS * radius);
  if (!discs[key]) {
    const reach = Math.ceil(key / PARTS);
    const side = 2 * reach + 1;
    const beyond = (p) => Math.hypot(p % side - reach, Math.floor(p / side) - reach) - key / PARTS;
    discs[key] = { side, reach, shares: Float64Array.from({ length: side * side }, (_, p) => 256 * Math.max(0, Math.min(1, 0.5 - beyond(p)))) };
  }
  return discs[key];
}

function drawAbove(context, view, { place, kind, size, colour }, p, { shrink, fade }, paper, ratio) {
  const x = context.canvas.width * (place[2 * p] - view.left) / (view.right - view.left);
  const y = context.canvas.height * (view.high - place[2 * p + 1]) / (view.high - view.low);
  const radius = size[p] * shrink[LAYERS.above] * ratio / 2;
  if (!(x > -radius && y > -radius && x < context.canvas.width + radius && y < context.canvas.height + radius)) return;
  const symbol = kind[p] % PER_LAYER;
  const [isOpen, way] = [symbol > 2, symbol > 2 ? symbol - 2 : symbol];
  const ink = `rgb(${colour.slice(4 * p, 4 * p + 3).join(",")})`;
  const line = `rgb(${paper.join(",")})`;
  context.globalAlpha = colour[4 * p + 3] / 255 * fade[LAYERS.above];
  context.beginPath();
  if (!way) context.arc(x, y, radius, 0, 2 * Math.PI);
  else {
    const corner = radius * LARGER;
    const [top, foot] = way === 1 ? [y - corner, y + corner / 2] : [y + corner, y - corner / 2];
    context.moveTo(x, top);
    context.lineTo(x + 0.866 * corner, foot);
    context.lineTo(x - 0.866 * corner, foot);
    context.closePath();
  }
  context.strokeStyle = line;
  context.lineWidth = 2 * ratio;
  context.stroke();
  context.fillStyle = isOpen ? line : ink;
  context.fill();
  if (!isOpen) return;
  context.strokeStyle = ink;
  context.lineWidth = STROKE * ratio;
  context.stroke();
}
