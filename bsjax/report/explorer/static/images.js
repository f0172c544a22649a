// Pairs of images: those most unusually alike first, which may be copies.

import { fixed, setNumber, short, site } from "./concepts.js";
import { choice, el } from "./elements.js";
import { loadPairs, picture } from "./pictures.js";
import { set, state } from "./state.js";

const PAIRS_A_PAGE = 24;
const SCORES = { // the order of z is that of the table: bland pairs come last
  z: ["unusually alike for this caption (z)", null],
  patch_similarity: ["patch by patch (1 is a copy)", (x) => -x],
  cosine: ["cosine (1 is a copy)", (x) => -x],
  absolute_difference: ["sum of |difference|", (x) => x],
  mean_difference: ["mean difference (the paper's)", (x) => Math.abs(x)],
};

/** Draws the view into `root`. */
export async function showImages(root) {
  const i = setNumber(state.model);
  const pairs = await loadPairs(i);
  const known = Object.keys(SCORES).filter((score) => Object.hasOwn(pairs.scores, score));
  const name = known.includes(state.score) ? state.score : known[0];
  const key = SCORES[name][1];
  const order = [...pairs.scores[name].keys()];
  if (key) order.sort((a, b) => key(pairs.scores[name][a]) - key(pairs.scores[name][b]) || a - b);
  const list = el("div", { className: "pairs wide" });
  const more = el("button", { type: "button", onclick: () => add() });
  root.replaceChildren(
    el("div", { className: "toolbar" },
      choice("rank by", known.map((score) => [score, SCORES[score][0]]), name, (score) => set({ score })),
      el("p", { className: "hint", textContent:
        `Real on the left, ${site.sets[i].name} on the right. The first places are always filled. ${known[0] === "z" ? "z: how far a pair is more alike than its real image is with images drawn for other captions." : "Only a cosine near 1 speaks for a copy."}` })),
    list, more);
  let shown = 0;
  async function add() {
    const part = order.slice(shown, shown + PAIRS_A_PAGE);
    shown += part.length;
    more.hidden = shown >= order.length;
    more.textContent = `${order.length - shown} more`;
    list.append(...await Promise.all(part.map((p) => tile(pairs, p, i))));
  }
  await add();
}

async function tile(pairs, p, i) {
  const caption = site.captions[pairs.real[p]];
  const [left, right] = await Promise.all([
    picture(0, pairs.real[p], caption), picture(i + 1, pairs.generated[p], `generated for: ${caption}`)]);
  const shared = [...pairs.shared.slice(3 * p, 3 * p + 3)].filter((k) => k >= 0);
  return el("figure", { className: "pair" },
    el("div", { className: "two" }, el("div", { className: "frame" }, left), el("div", { className: "frame" }, right)),
    el("figcaption", {}, el("bdi", { textContent: caption || site.keys[pairs.real[p]] }),
      el("br"), ...patches(pairs, p),
      `cosine ${fixed(pairs.scores.cosine[p])}, |difference| ${short(pairs.scores.absolute_difference[p])}`, el("br"),
      ...shared.map((k) => el("button", { type: "button", onclick: () => set({ concept: k }) }, `${k} `, el("bdi", { textContent: site.names[k] })))));
}

/** What patch tokens say of a pair, in lines. */
function patches(pairs, p) {
  if (!pairs.scores.z) return [];
  const z = pairs.scores.z[p];
  const lines = [`${Number.isNaN(z) ? "" : `z ${z.toFixed(1)}, `}patch by patch ${fixed(pairs.scores.patch_similarity[p])}${pairs.marks[p] & 1 ? ", mirrored" : ""}`];
  if (pairs.marks[p] & 2) lines.push("plain: likeness means little");
  if (pairs.twin[p] >= 0) lines.push(`real image nearly the same as ${site.keys[pairs.twin[p]]}`);
  return lines.flatMap((text) => [text, el("br")]);
}
