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

/** The colour at a place from 0 to 1 of a ramp of colours. */
export function between(colours, share) {
  const at = Math.max(0, Math.min(1, share)) * (colours.length - 1);
  const step = Math.min(colours.length - 2, Math.floor(at));
  const [from, to] = [rgbOf(colours[step]), rgbOf(colours[step + 1])];
  return from.map((part, c) => Math.round(part + (at - step) * (to[c] - part)));
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
