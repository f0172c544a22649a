// Pairs of images: those most alike first, which may be copies.

import { fixed, setNumber, short, site } from "./concepts.js";
import { choice, el } from "./elements.js";
import { loadPairs, picture } from "./panel.js";
import { set, state } from "./state.js";

const PAIRS_A_PAGE = 24;
const SCORES = {
  cosine: ["cosine (1 is a copy)", (x) => -x],
  absolute_difference: ["sum of |difference|", (x) => x],
  mean_difference: ["mean difference (the paper's)", (x) => Math.abs(x)],
};

/** Draws the view into `root`. */
export async function showImages(root) {
  const i = setNumber(state.model);
  const pairs = await loadPairs(i);
  const name = Object.hasOwn(SCORES, state.score) ? state.score : "cosine";
  const key = SCORES[name][1];
  const order = [...pairs.scores[name].keys()].sort((a, b) => key(pairs.scores[name][a]) - key(pairs.scores[name][b]) || a - b);
  const list = el("div", { className: "pairs wide" });
  const more = el("button", { type: "button", onclick: () => add() });
  root.replaceChildren(
    el("div", { className: "toolbar" },
      choice("rank by", Object.entries(SCORES).map(([value, [text]]) => [value, text]), name, (score) => set({ score })),
      el("p", { className: "hint", textContent:
        `Real on the left, ${site.sets[i].name} on the right. The first places are always filled: only a cosine near 1 speaks for a memorised image.` })),
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
      el("br"), `cosine ${fixed(pairs.scores.cosine[p])}, |difference| ${short(pairs.scores.absolute_difference[p])}`, el("br"),
      ...shared.map((k) => el("button", { type: "button", onclick: () => set({ concept: k }) }, `${k} `, el("bdi", { textContent: site.names[k] })))));
}
