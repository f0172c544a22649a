// How the map shows concepts: in which colour, how large, and how much of what lies below shines through.

import { between, isDark, rgbOf } from "./colour.js";
import { columnsOf, formOf, short, site } from "./concepts.js";
import { el } from "./elements.js";
import { countVerdicts } from "./filter.js";
import { SYMBOLS } from "./glpoints.js";
import { set, state } from "./state.js";

const RATIO_END = Math.log(8); // generated / real at the ends of its colours
const CELLS = 24; // a side, in which points are counted
const COVERED = 0.6; // of a place, by the points that lie there, which is still clear
const FADED = 0.06; // opacity of what the filter leaves out
const SMALL = 3.5; // pixels of a concept that was not judged
const CHANGED_SIZE = 11; // least pixels of one that changed
const CALLED_SIZE = 14; // of one that was called

/** Ways to colour the map: [value, text]. */
export const colourings = () => [["verdict", "verdict"], ["ratio", "generated / real"],
  ...Object.keys(site.palettes).map((name) => [name, `delta (${name})`])];

/** The colour [red, green, blue] of each concept of set i: {rgb(k), ramp: of a legend or null, ends: what its ends mean}. */
export function paint(i) {
  const c = columnsOf(i);
  const scheme = isDark() ? "dark" : "light";
  const colours = site.verdicts.map((each) => rgbOf(each[scheme]));
  const isJudged = site.verdicts.map((each) => each.is_judged);
  if (Object.hasOwn(site.palettes, state.colour)) {
    const ramp = site.palettes[state.colour];
    const parts = ramp.map(rgbOf);
    return { rgb: (k) => between(parts, c.delta[k]), ramp, ends: ["0", `delta (${formOf(i)})`, "1"] };
  }
  if (state.colour === "ratio") {
    const ramp = site.ratio[scheme];
    const parts = ramp.map(rgbOf);
    const grey = colours[isJudged.indexOf(false)];
    return {
      rgb: (k) => (isJudged[c.verdict[k]] && !Number.isNaN(c.log_ratio[k]) ? between(parts, 0.5 + c.log_ratio[k] / RATIO_END / 2) : grey),
      ramp, ends: [`1/${short(Math.exp(RATIO_END))}×`, "as real", `${short(Math.exp(RATIO_END))}×`],
    };
  }
  return { rgb: (k) => colours[c.verdict[k]], ramp: null };
}

/** Pixels of concepts of set i where nothing is crowded. */
export function sizesOf(i) {
  const c = columnsOf(i);
  const isDelta = Object.hasOwn(site.palettes, state.colour);
  const contrast = site.sets[i].form === "difference" ? c.difference : c.relative;
  let most = 1e-9;
  if (state.size === "contrast") for (const v of contrast) most = Math.max(most, Math.abs(v));
  const own = (k) => (state.size === "equal" ? 6 : state.size === "contrast"
    ? 3 + 10 * Math.abs(contrast[k]) / most
    : 3 + 1.8 * Math.log10(1 + c.fires_real[k] + c.fires_generated[k]));
  const isLeft = site.verdicts.map((each) => !each.is_judged && !isDelta);
  const least = site.verdicts.map((each) => (!each.sign ? 0 : site.called.includes(each.name) ? CALLED_SIZE : CHANGED_SIZE));
  return (k) => {
    const verdict = c.verdict[k];
    const size = isLeft[verdict] ? SMALL : own(k);
    return Number.isNaN(size) ? SMALL : Math.max(least[verdict], size);
  };
}

/** Symbols of concepts that changed, by verdict: filled where it was called. */
export const symbolsOf = () => site.verdicts.map(({ name, sign }) =>
  SYMBOLS[`${site.called.includes(name) ? "" : "open "}${sign < 0 ? "down" : "up"}`]);

/**
 * How much points are shrunk and how opaque they are, so that many do not become one mass.
 *
 * @param place x, y of each point
 * @param from, end of those that count
 * @param area mean pixels that a point covers
 * @param view {left, right, low, high} of the shown part
 * @param size {width, height} of it in pixels
 * @returns {shrink, opacity}: factors from 0 to 1
 */
export function crowding(place, [from, end], area, view, { width, height }) {
  const counts = new Float64Array(CELLS * CELLS);
  const [dx, dy] = [CELLS / (view.right - view.left), CELLS / (view.high - view.low)];
  let n = 0;
  for (let p = from; p < end; p += 1) {
    const [column, row] = [Math.floor((place[2 * p] - view.left) * dx), Math.floor((place[2 * p + 1] - view.low) * dy)];
    if (!(column >= 0 && row >= 0 && column < CELLS && row < CELLS)) continue;
    counts[row * CELLS + column] += 1;
    n += 1;
  }
  let others = 0; // in the cell of each, summed up
  for (const count of counts) others += count * count;
  // What covers the place of the typical point.
  const covered = n ? (others / n) * area * CELLS * CELLS / (width * height) : 0;
  const free = Math.min(1, COVERED / Math.max(covered, 1e-9));
  return { shrink: Math.max(0.55, free ** 0.25), opacity: Math.max(0.15, free ** 0.5) };
}

/** Opacity of concepts of set i where nothing is crowded: of those that the filter keeps, and of the others. */
export function opacityOf(i, keep) {
  const { verdict } = columnsOf(i);
  const own = site.verdicts.map((each) => (each.is_judged ? 0.85 : 0.55));
  return (k) => (keep[k] ? own[verdict[k]] : FADED);
}

/** What colours and symbols of a map mean, with how many there are; a click filters. */
export function legend(i, keep, isFiltered) {
  const { ramp, ends } = paint(i);
  const all = countVerdicts(i);
  const kept = isFiltered ? countVerdicts(i, keep) : all;
  const items = site.verdicts.map((verdict, v) => (all[v] ? el("button", {
    type: "button", "aria-pressed": String(state.verdict === verdict.name), title: site.sets[i].meanings[v],
    onclick: () => set({ verdict: state.verdict === verdict.name ? "" : verdict.name }),
  }, el("span", {
    className: `swatch${ramp ? "" : " verdict"}${verdict.is_judged ? "" : " small"}`, "aria-hidden": "true",
    textContent: verdict.sign ? verdict.symbol : "●", css: { "--light": verdict.light, "--dark": verdict.dark },
  }), ` ${verdict.name} `, el("span", { className: "count", textContent: isFiltered ? `${kept[v]} of ${all[v]}` : String(all[v]) })) : null)).filter(Boolean);
  const bar = ramp ? el("span", { className: "ramp", role: "img", "aria-label": `colours from ${ends.join(", ")}` },
    el("i", { css: { background: `linear-gradient(to right, ${ramp.join(", ")})` } }), ...ends.map((text) => el("span", { textContent: text }))) : null;
  return el("div", { className: "legend", role: "group", "aria-label": `legend of ${site.sets[i].name}: verdicts and how many` }, bar, ...items);
}
