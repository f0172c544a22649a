// Moves and zooms a plot at once, however many points it has: while a hand moves it what is drawn is
// moved as a picture, and when the hand rests it is drawn anew.

import { plotly } from "./colour.js";
import { guarded } from "./faults.js";

const REST = 160; // ms without a turn of the wheel
const MOVED = 4; // pixels from which a press is no click
const MOST_ZOOM = 40; // in one go

/**
 * Takes the mouse of a plot of plotly whose dragmode is "pan".
 *
 * @param box the plot
 * @param layer what lies over it and is hidden meanwhile
 * @param onClick called where a press did not move
 */
export function glide(box, layer, onClick) {
  let view = { k: 1, x: 0, y: 0 }; // drawn pixel p is shown at k p + (x, y)
  let press = null;
  let timer = null;
  const parts = () => box.querySelectorAll(".gl-container, .main-svg");
  const isPan = () => box._fullLayout?.dragmode === "pan";
  const show = () => {
    const isMoved = view.k !== 1 || view.x || view.y;
    for (const part of parts()) {
      part.style.transformOrigin = "0 0";
      part.style.transform = isMoved ? `translate(${view.x}px, ${view.y}px) scale(${view.k})` : "";
    }
    if (isMoved) layer.hidden = true;
  };
  const settle = guarded(async () => {
    timer = null;
    const { k, x, y } = view;
    if (k === 1 && !x && !y) return;
    const { xaxis, yaxis } = box._fullLayout;
    const at = (axis, pixel, shift) => axis.p2d((axis._offset + pixel - shift) / k - axis._offset);
    await plotly().relayout(box, {
      "xaxis.range": [at(xaxis, 0, x), at(xaxis, xaxis._length, x)],
      "yaxis.range": [at(yaxis, yaxis._length, y), at(yaxis, 0, y)],
    });
    view = { k: 1, x: 0, y: 0 };
    show();
  });
  box.addEventListener("wheel", (event) => {
    if (event.ctrlKey || !event.target.closest?.(".nsewdrag")) return;
    event.preventDefault();
    event.stopPropagation();
    const { left, top } = box.getBoundingClientRect();
    const step = Math.exp(-Math.max(-100, Math.min(100, event.deltaY * (event.deltaMode ? 30 : 1))) / 250);
    const factor = Math.max(1 / MOST_ZOOM, Math.min(MOST_ZOOM, view.k * step)) / view.k;
    const [px, py] = [event.clientX - left, event.clientY - top];
    view = { k: view.k * factor, x: px - factor * (px - view.x), y: py - factor * (py - view.y) };
    show();
    clearTimeout(timer);
    timer = setTimeout(settle, REST);
  }, { capture: true, passive: false });
  box.addEventListener("mousedown", (event) => {
    if (event.button || !isPan() || !event.target.closest?.(".nsewdrag")) return;
    event.preventDefault();
    event.stopPropagation();
    clearTimeout(timer);
    press = { x: event.clientX, y: event.clientY, from: view, hit: box._hoverdata, isMoved: false };
    window.addEventListener("mousemove", move, true);
    window.addEventListener("mouseup", release, true);
  }, true);
  function move(event) {
    const [dx, dy] = [event.clientX - press.x, event.clientY - press.y];
    press.isMoved ||= Math.hypot(dx, dy) >= MOVED;
    if (!press.isMoved) return;
    event.stopPropagation(); // no hovering meanwhile
    view = { ...press.from, x: press.from.x + dx, y: press.from.y + dy };
    show();
  }
  function release() {
    window.removeEventListener("mousemove", move, true);
    window.removeEventListener("mouseup", release, true);
    const { isMoved, hit } = press;
    press = null;
    if (isMoved || view.k !== 1) settle();
    else if (hit?.length) onClick(hit);
  }
  box.addEventListener("dblclick", guarded(async (event) => {
    if (!isPan() || !event.target.closest?.(".nsewdrag")) return;
    await plotly().relayout(box, { "xaxis.autorange": true, "yaxis.autorange": true });
  }), true);
}
