// Which pairs of images are listed, and in which order.

import { site } from "./concepts.js";
import { load, unpack } from "./data.js";
import { loadPairs } from "./pictures.js";
import { state } from "./state.js";

// Name of a score, its text, and its key where it is another order than the table's, in which bland pairs come last.
export const SCORES = {
  z: ["unusually alike for this caption (z)", null],
  patch_similarity: ["alike patch by patch", (x) => -x],
  cosine: ["same concepts (cosine of the codes)", (x) => -x],
  absolute_difference: ["sum of |difference| of the codes", (x) => x],
  mean_difference: ["mean difference (the paper's)", (x) => Math.abs(x)],
};
/** In which image of a pair a concept is to be: [value, text]. */
export const ARMS = [["both", "both images"], ["real", "the real image"], ["generated", "the generated image"],
  ["missed", "the real image alone"], ["added", "the generated image alone"]];
/** Keys whose change lists other pairs, or in another order. */
export const LIST_KEYS = ["score", "caption", "shows", "arm"];
const pairOrders = new Map(); // "set score" -> pairs in order

/** Scores that the pairs have. */
export const knownScores = (pairs) => Object.keys(SCORES).filter((score) => Object.hasOwn(pairs.scores, score));

/** The score that they are ranked by. */
export function scoreOf(pairs) {
  const known = knownScores(pairs);
  return known.includes(state.score) ? state.score : known[0];
}

/** Whether that concept filters the pairs. */
export const isConcept = (k) => k >= 0 && k < site.n;

/** The pairs of set i that are listed: {pairs, order}. */
export async function listPairs(i) {
  const pairs = await loadPairs(i);
  const words = state.caption.trim().toLowerCase();
  const isShown = isConcept(state.shows) ? await concerned(pairs, i, state.shows, state.arm) : null;
  const order = ordered(pairs, i).filter((p) => (!isShown || isShown(p))
    && (!words || site.lowerCaptions[pairs.real[p]].includes(words)));
  return { pairs, order };
}

function ordered(pairs, i) {
  const score = scoreOf(pairs);
  const name = `${i} ${score}`;
  if (!pairOrders.has(name)) {
    const [values, key] = [pairs.scores[score], SCORES[score][1]];
    const order = [...values.keys()];
    if (key) order.sort((a, b) => key(values[a]) - key(values[b]) || a - b);
    pairOrders.set(name, order);
  }
  return pairOrders.get(name);
}

async function concerned(pairs, i, k, arm) {
  const [real, generated] = await Promise.all([loadShowing(0, k), loadShowing(i + 1, k)]);
  const tests = {
    both: (r, g) => r && g, real: (r) => r, generated: (r, g) => g, missed: (r, g) => r && !g, added: (r, g) => g && !r,
  };
  const test = Object.hasOwn(tests, arm) ? tests[arm] : tests.both;
  return (p) => test(real.has(pairs.real[p]), generated.has(pairs.generated[p]));
}

/** Rows of the images of an arm that show a concept. */
async function loadShowing(arm, k) {
  const size = site.chunk.concepts;
  const chunk = await load(`showing/${arm}/${Math.floor(k / size)}`);
  const ends = unpack(chunk.ends);
  const steps = unpack(chunk.rows).subarray((k % size ? ends[k % size - 1] : 0), ends[k % size]);
  const rows = new Set();
  let row = -1;
  for (const step of steps) rows.add(row += step);
  return rows;
}
