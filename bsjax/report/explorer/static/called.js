// What was found: findings in words, and what is said of each concept that was called.

import { site } from "./concepts.js";
import { load, unpack } from "./data.js";
import { el } from "./elements.js";
import { set } from "./state.js";

const SCALE = Math.log(32); // a bar reaches from 1/32 to 32 times the real amount
const calls = new Map(); // of each set

/** Findings of set i in words: {headline, basis, nothing, findings}. */
export const loadFindings = (i) => load(`findings/${i}`);

/** What is said of the called concepts of set i: concept -> {change, shown, sure, asked, instead, finding}. */
export async function loadCalls(i) {
  if (!calls.has(i)) {
    const [packed, { findings }] = await Promise.all([load(`called/${i}`), loadFindings(i)]);
    const found = new Map([...unpack(packed.concepts)].map((k, place) => [k, {
      change: packed.change[place], shown: packed.shown[place], sure: packed.sure[place], asked: packed.asked[place], instead: [], finding: null,
    }]));
    for (const each of findings) for (const k of each.concepts) if (found.has(k)) found.get(k).finding = each;
    const s = Object.fromEntries(Object.entries(packed.substitutions).map(([name, array]) => [name, unpack(array)]));
    for (let p = 0; p < s.concept.length; p += 1) {
      found.get(s.concept[p])?.instead.push({ concept: s.instead[p], finding: found.get(s.instead[p])?.finding?.finding ?? 0, n: s.n[p], lift: s.lift[p] });
    }
    calls.set(i, found);
  }
  return calls.get(i);
}

export const nameOf = (k) => site.names[k] || "(no typical word)";
/** Words of a finding: the name of the first of its concepts that has one. */
export const titleOf = (finding) => finding.concepts.map((k) => site.names[k]).find(Boolean) ?? "(no typical word)";

/** Opens the panel of a concept, and changes what else is given. */
export const conceptButton = (k, changes = {}) => el("button", { type: "button", className: "link", onclick: () => set({ concept: k, ...changes }) },
  el("span", { className: "id", textContent: `${k} ` }), el("bdi", { textContent: nameOf(k) }));

/** Leads to the card of a finding. */
export const findingButton = (number) => el("button", {
  type: "button", className: "link", textContent: `→ finding ${number}`, onclick: () => set({ view: "findings", finding: number }),
});

/** What appears where a concept is missing; of an exaggerated one: what it takes the place of. */
export function insteadOf(instead, isMissing) {
  if (!instead.length) return el("p", { className: "hint", textContent: "No single concept stands out." });
  const text = isMissing ? `Where the generated image misses it (${instead[0].n} pairs), there appears:`
    : `Where the generated image adds it (${instead[0].n} pairs), there disappears:`;
  return el("div", {}, el("span", { className: "hint", textContent: text }), el("ul", { className: "instead" },
    ...instead.map(({ concept, finding, lift }) => el("li", {}, conceptButton(concept),
      el("span", { className: "hint", textContent: ` in ${Math.round(100 * lift)} % more of them than of other pairs ` }),
      finding ? findingButton(finding) : ""))));
}

/** An interval of log ratios on a scale from less to more than real; null: an open end. */
export function intervalBar(low, point, high, verdict, text) {
  const bar = bareBar(low, point, high, verdict, text);
  bar.append(...["1/32×", "1/4×", "as real", "4×", "32×"].map((label, step) => el("span", { textContent: label, css: { left: `${25 * step + (step === 1 ? 5 : step === 3 ? -5 : 0)}%` } })));
  return bar;
}

/** The same without a scale, for a row of a table. */
export function bareBar(low, point, high, verdict, text) {
  const place = (value) => 50 + 50 * Math.max(-1, Math.min(1, value / SCALE));
  const [from, to] = [place(low ?? -SCALE), place(high ?? SCALE)];
  return el("div", { className: "interval", role: "img", "aria-label": text, css: { "--light": verdict.light, "--dark": verdict.dark } },
    el("i", { className: "range", css: { left: `${from}%`, width: `${to - from}%` } }),
    el("i", { className: "point", css: { left: `${place(point)}%` } }));
}
