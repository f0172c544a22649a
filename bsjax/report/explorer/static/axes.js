// Axes of a plot: ticks in words beside the plane that points lie in, lines behind and over them.

import { themed } from "./colour.js";
import { el } from "./elements.js";

const APART = { x: 66, y: 22 }; // pixels between the middles of two ticks
const STEPS = [1, 2, 5, 10];

/**
 * Axes of `box`.
 *
 * @param titles {x, y}
 * @param ticks [value, text] of both axes, most telling first; null: round numbers
 * @returns {over(context, plot): draws lines, write(plot): writes ticks}
 */
export function axesOf(box, titles, ticks) {
  const layer = el("div", { className: "ticks", "aria-hidden": "true" });
  box.append(layer);
  const shown = (plot) => {
    const { left, right, low, high } = plot.view;
    return { x: fitting(ticks ?? roundTicks(left, right), left, right, plot.width / APART.x),
      y: fitting(ticks ?? roundTicks(low, high), low, high, plot.height / APART.y) };
  };
  return {
    write(plot) {
      const { offsetLeft, offsetTop, offsetHeight } = plot.plane;
      const { x, y } = shown(plot);
      layer.replaceChildren(
        ...x.map(([value, text]) => el("span", { className: "tick across", textContent: text, css: { left: `${offsetLeft + plot.at(value, 0).x}px`, top: `${offsetTop + offsetHeight + 5}px` } })),
        ...y.map(([value, text]) => el("span", { className: "tick up", textContent: text, css: { right: `calc(100% - ${offsetLeft - 7}px)`, top: `${offsetTop + plot.at(0, value).y}px` } })),
        el("span", { className: "axis across", css: { left: `${offsetLeft}px`, width: `${plot.width}px` } }, el("bdi", { textContent: titles.x })),
        el("span", { className: "axis up", css: { top: `${offsetTop}px`, height: `${plot.height}px` } }, el("bdi", { textContent: titles.y })));
    },
    over(context, plot) {
      const { x, y } = shown(plot);
      const { left, right, low, high } = plot.view;
      context.lineWidth = 1;
      context.strokeStyle = themed("line");
      for (const [value] of x) line(context, plot, [value, low], [value, high]);
      for (const [value] of y) line(context, plot, [left, value], [right, value]);
      context.strokeStyle = themed("soft");
      context.strokeRect(0.5, 0.5, plot.width - 1, plot.height - 1);
      context.setLineDash([2, 4]);
      context.lineWidth = 1.5;
      const [from, to] = [Math.max(left, low), Math.min(right, high)];
      if (from < to) line(context, plot, [from, from], [to, to]);
      context.setLineDash([]);
    },
  };
}

function line(context, plot, from, to) {
  const [a, b] = [plot.at(...from), plot.at(...to)];
  context.beginPath();
  context.moveTo(a.x, a.y);
  context.lineTo(b.x, b.y);
  context.stroke();
}

/** Those ticks between two ends that have room, the first first. */
function fitting(ticks, low, high, most) {
  const apart = (high - low) / most;
  const found = [];
  for (const tick of ticks) {
    if (tick[0] < low || tick[0] > high || found.some(([other]) => Math.abs(other - tick[0]) < apart)) continue;
    found.push(tick);
  }
  return found;
}

function roundTicks(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * STEPS.find((each) => each * power >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return Array.from({ length: 8 }, (_, n) => (Math.ceil(low / step) + n) * step)
    .filter((value) => value <= high).map((value) => [value, Math.abs(value) < step / 2 ? "0" : value.toFixed(Math.min(digits, 20))]);
}
