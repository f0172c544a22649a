// Colours as numbers, of verdicts and of the page.

import { el } from "./elements.js";

const parsed = new Map(); // colours as numbers

/** [red, green, blue] of "#rgb" or "#rrggbb". */
export function rgbOf(colour) {
  if (!parsed.has(colour)) {
    const digits = colour.length === 4 ? [...colour.slice(1)].map((digit) => digit + digit).join("") : colour.slice(1);
    parsed.set(colour, [0, 2, 4].map((at) => Number.parseInt(digits.slice(at, at + 2), 16)));
  }
  return parsed.get(colour);
}

/** The colour at a place from 0 to 1 of a ramp of colours [red, green, blue]. */
export function between(ramp, share) {
  const at = Math.max(0, Math.min(1, share)) * (ramp.length - 1);
  const step = Math.min(ramp.length - 2, Math.floor(at));
  const [from, to, part] = [ramp[step], ramp[step + 1], at - step];
  return [from[0] + part * (to[0] - from[0]) + 0.5 | 0, from[1] + part * (to[1] - from[1]) + 0.5 | 0, from[2] + part * (to[2] - from[2]) + 0.5 | 0];
}

/** A verdict in its colour, light or dark. */
export function verdictLabel({ name, symbol, light, dark }, meaning = "") {
  return el("span", { className: "verdict", title: meaning, css: { "--light": light, "--dark": dark } },
    el("span", { "aria-hidden": "true", textContent: `${symbol} ` }), name);
}

/** A colour of the style sheet as it is now, light or dark. */
export function themed(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Whether the page is dark now. */
export const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
