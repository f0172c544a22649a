// Parts that the list of pairs and the page of one image share.

import { fixed, short } from "./concepts.js";
import { el } from "./elements.js";
import { guarded } from "./faults.js";
import { frameOf } from "./opening.js";
import { labelOf, picture } from "./pictures.js";

/** A picture that opens the page of image `key`; it comes as soon as it is loaded. */
export function pictured(key, arm, row, caption, mark = undefined) {
  const label = labelOf(arm, caption);
  const frame = frameOf(row < 0 ? null : key, label, mark, 0);
  guarded(async () => frame.append(await picture(arm, row, label)))();
  return frame;
}

/** How alike a pair is, in words. */
export function likeness(pairs, p) {
  const { z, patch_similarity: similarity, cosine, absolute_difference: difference } = pairs.scores;
  const lines = [];
  if (z) {
    const place = pairs.places[pairs.place[p]];
    lines.push(el("p", {}, el("b", { textContent: Number.isNaN(z[p]) ? "no z: no other captions" : `z ${z[p].toFixed(1)}` }), place ? `, ${place}` : ""));
    if (pairs.bland[p]) lines.push(el("p", { className: "bland", textContent: "plain image: likeness means little" }));
    lines.push(el("p", { textContent: `alike patch by patch ${fixed(similarity[p])}` }));
  }
  lines.push(el("p", { textContent: `cosine of codes ${fixed(cosine[p])}, |difference| ${short(difference[p])}` }));
  return lines;
}
