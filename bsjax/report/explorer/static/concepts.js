// The concepts: numbers of each set, names, what is filtered and in which order.

import { load, unpack } from "./data.js";
import { breathe } from "./elements.js";
import { state, lasso } from "./state.js";

export let site = null;
const columns = new Map(); // of each set

/** Loads what the page needs before it can draw. */
export async function loadSite() {
  const found = await load("site");
  site = { ...found, places: unpack(found.places), top: unpack(found.top) };
  site.n = site.names.length;
  site.nTop = site.n ? site.top.length / site.n : 0;
  const lower = site.captions.map((caption) => caption.toLowerCase());
  site.lowerNames = site.names.map((name) => name.toLowerCase());
  site.lowerCaptions = lower;
}

/** Number of the set with that name; the first, if there is none. */
export function setNumber(name) {
  return Math.max(site.sets.findIndex((each) => each.name === name), 0);
}

/** Numbers of every concept of set i: {delta: Float32Array, ...}. */
export async function loadColumns(i) {
  if (!columns.has(i)) {
    const packed = await load(`columns/${i}`);
    await breathe();
    const found = {};
    for (const [name, array] of Object.entries(packed)) {
      // A twin stands where it was told first.
      const twin = array.column && (array.set === i ? packed : await load(`columns/${array.set}`))[array.column];
      found[name] = unpack(twin ?? array);
    }
    columns.set(i, found);
  }
  return columns.get(i);
}

/** Columns that are loaded already. */
export const columnsOf = (i) => columns.get(i);

/** What the page's data say of a concept's verdict: {name, symbol, light, dark, sign, is_judged}. */
export const verdictOf = (i, concept) => site.verdicts[columnsOf(i).verdict[concept]];

/** Whether a concept was called, and does not just seem to change. */
export const isCalled = (i, concept) => site.called.includes(verdictOf(i, concept).name);

/** Whether the list of set i shows what changed alone: nothing else was asked for, and something did. */
export const isNarrowed = (i) => !state.all && isUnfiltered() && columnsOf(i).verdict.some((v) => site.verdicts[v].sign);

/** Marks the concepts of set i that pass the filter. */
export function passing(i) {
  const c = columnsOf(i);
  const words = state.q.trim().toLowerCase();
  const hasWords = words ? mentions(words) : null;
  const wanted = state.verdict ? site.verdicts.findIndex((each) => each.name === state.verdict) : -1;
  const caught = lasso.ids;
  const keep = new Uint8Array(site.n);
  for (let k = 0; k < site.n; k += 1) {
    if (caught && !caught.has(k)) continue;
    if (c.delta[k] < state.low || c.delta[k] > state.high) continue;
    if (c.fires_real[k] < state.fires) continue;
    if (wanted >= 0 && c.verdict[k] !== wanted) continue;
    if (hasWords && !hasWords(k)) continue;
    keep[k] = 1;
  }
  return keep;
}

/** Ids that the table lists of set i, in order. */
export function filtered(i) {
  const { verdict } = columnsOf(i);
  const keep = passing(i);
  const isNarrow = isNarrowed(i);
  const isTold = site.verdicts.map((each) => Boolean(each.sign));
  const ids = [];
  for (const k of orderOf(i)) if (keep[k] && (!isNarrow || isTold[verdict[k]])) ids.push(k);
  return ids;
}

const orders = new Map(); // "set column down" -> all ids in order

/** All ids in the order that is asked for; what is not known last, and the lower id first of equals. */
function orderOf(i) {
  const name = `${i} ${state.sort} ${state.down}`;
  if (!orders.has(name)) {
    const keys = keysOf(i);
    const sign = state.down ? -1 : 1;
    orders.set(name, Uint32Array.from({ length: site.n }, (_, k) => k).sort((a, b) => {
      const [x, y] = [keys[a], keys[b]];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
      return x < y ? -sign : x > y ? sign : a - b;
    }));
  }
  return orders.get(name);
}

/** What concepts of set i are sorted by. */
function keysOf(i) {
  const c = columnsOf(i);
  if (state.sort === "name") return site.lowerNames;
  if (state.sort === "strength") return Float64Array.from({ length: site.n }, (_, k) => k).map(strength(c));
  return Object.hasOwn(c, state.sort) ? c[state.sort] : Uint32Array.from({ length: site.n }, (_, k) => k);
}

/** Least for what changed most beyond doubt; concepts that were not judged come last. */
export function strength(c) {
  const isJudged = site.verdicts.map((each) => each.is_judged);
  const last = 1e6; // more than any log ratio
  return (k) => (isJudged[c.verdict[k]] ? 0 : last) - Math.abs(c.near[k]);
}

let heard = { words: null, rows: null }; // the last search: which captions have the words

/** Tells of a concept whether its number, its name or a caption of its top images has the words. */
function mentions(words) {
  if (heard.words !== words) heard = { words, rows: Uint8Array.from(site.lowerCaptions, (caption) => Number(caption.includes(words))) };
  const { rows } = heard;
  const { top, nTop, lowerNames } = site;
  return (k) => {
    if (lowerNames[k].includes(words) || String(k) === words) return true;
    for (let slot = k * nTop; slot < (k + 1) * nTop; slot += 1) if (top[slot] >= 0 && rows[top[slot]]) return true;
    return false;
  };
}

/** The first caption of the concept's top images that has the words, in lower case; null: none has. */
export function captionWith(concept, words) {
  for (let slot = 0; slot < site.nTop; slot += 1) {
    const row = site.top[concept * site.nTop + slot];
    if (row >= 0 && site.lowerCaptions[row].includes(words)) return site.captions[row];
  }
  return null;
}

/** Whether the filter lets everything through. */
export const isUnfiltered = () => !state.q && !state.verdict && !lasso.ids && state.low <= 0
  && state.high >= 1 && state.fires <= 0;

export const fixed = (x, digits = 3) => (Number.isNaN(x) ? "–" : x.toFixed(digits));
const SMALL_NUMBER = 5e-4; // smaller ones are told as 2.4e-6
const inDigits = (x) => (x && Math.abs(x) < SMALL_NUMBER ? x.toExponential(1) : Number(x.toPrecision(3)).toString());
export const short = (x) => (Number.isNaN(x) ? "–" : Number.isFinite(x) ? inDigits(x) : x > 0 ? "∞" : "−∞");
export const whole = (x) => (Number.isNaN(x) ? "–" : String(x));
/** Energy generated / real with its interval. */
export const ratioText = (c, k) => (Number.isNaN(c.log_ratio[k]) ? "–"
  : `${short(Math.exp(c.log_ratio[k]))} [${short(Math.exp(c.low[k]))}, ${short(Math.exp(c.high[k]))}]`);
// Of the number that the column was written from: 0.1175 as a float32 is a little less.
export const percent = (x) => (Number.isNaN(x) ? "–" : `${(Math.round(Number((1000 * x).toPrecision(6))) / 10).toFixed(1)}\u00a0%`);
export const formOf = (i) => `${site.sets[i].form}, T = ${site.sets[i].temperature}`;
