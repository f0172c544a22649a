// Names on the map, beside their points and none on another.

import { site } from "./concepts.js";
import { el } from "./elements.js";
import { marked } from "./marked.js";
import { state } from "./state.js";

const MOST_LABELS = 20;
const LONGEST = 28; // letters
const HEIGHT = 16; // pixels
const GAP = 10; // from the middle of the point

/**
 * Writes as many names as have room, the first first.
 *
 * @param layer element over the plot
 * @param ids concepts, most telling first
 * @param place pixels {x, y} of a concept in the layer
 * @param room {left, top, right, bottom} of the plot in the layer
 */
export function drawLabels(layer, ids, place, room) {
  const taken = [];
  const written = new Set();
  const labels = [];
  for (const k of ids) {
    if (labels.length >= MOST_LABELS) break;
    const name = site.names[k];
    const text = name.length > LONGEST ? `${name.slice(0, LONGEST - 1)}…` : name;
    if (!text || written.has(text)) continue; // concepts of one finding bear one name
    const { x, y } = place(k);
    if (!(x >= room.left && x <= room.right && y >= room.top && y <= room.bottom)) continue;
    const width = widthOf(text);
    const box = [[GAP, -HEIGHT / 2], [-GAP - width, -HEIGHT / 2], [-width / 2, -GAP - HEIGHT], [-width / 2, GAP]]
      .map(([dx, dy]) => ({ left: x + dx, top: y + dy, right: x + dx + width, bottom: y + dy + HEIGHT }))
      .find((each) => each.left >= room.left && each.right <= room.right && each.top >= room.top && each.bottom <= room.bottom
        && !taken.some((other) => each.left < other.right && other.left < each.right && each.top < other.bottom && other.top < each.bottom));
    if (!box) continue;
    taken.push(box, { left: x - GAP + 1, right: x + GAP - 1, top: y - GAP + 1, bottom: y + GAP - 1 });
    written.add(text);
    labels.push(el("span", { className: "label", css: { left: `${box.left}px`, top: `${box.top}px`, width: `${width}px` } }, marked(text, state.q)));
  }
  layer.replaceChildren(...labels);
}

let context = null;

/** Pixels that a label takes. */
function widthOf(text) {
  if (!context) {
    context = el("canvas").getContext("2d");
    context.font = "600 12px system-ui, sans-serif"; // as .label has it
  }
  return Math.ceil(context.measureText(text).width) + 4;
}
