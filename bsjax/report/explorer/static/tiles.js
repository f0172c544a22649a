// Parts that the list of pairs and the page of one image share.

import { fixed, short } from "./concepts.js";
import { el } from "./elements.js";
import { guarded } from "./faults.js";
import { frameOf } from "./opening.js";
import { labelOf, picture } from "./pictures.js";

const MEANINGS = [
  ["z", "By how many standard deviations a pair is more alike, patch by patch, than its real image is with images drawn for other captions. It says which pairs to look at, not that one is a copy."],
  ["mirrored, shifted", "At which place the generated image is most alike: as it is, turned left to right, or moved by up to one patch."],
  ["alike patch by patch", "Cosine of the two images' patches there, of those 2 % that agree least: 1 where all agree."],
  ["cosine of codes", "How nearly both show the same concepts in the same proportions; near 1 for many drawings of one caption."],
  ["|difference|", "Sum over all concepts of the difference of their energies: 0 where they are the same."],
];

/** What the numbers of a pair mean; the first three where patch tokens were kept. */
export const numbersHelp = (hasPatches) => el("details", { className: "help" }, el("summary", { textContent: "What the numbers mean" }),
  el("dl", {}, ...MEANINGS.slice(hasPatches ? 0 : 3).map(([name, text]) => el("div", {}, el("dt", { textContent: name }), el("dd", { textContent: text })))));

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
