// Text in which the hits of a search are marked.

import { el } from "./elements.js";

/** Places [from, to] of what is searched, in a text; none where letters change their number. */
export function hits(text, query) {
  const words = query.trim().toLowerCase();
  const lower = text.toLowerCase();
  const found = [];
  if (!words || lower.length !== text.length) return found;
  for (let from = lower.indexOf(words); from >= 0; from = lower.indexOf(words, from + words.length)) {
    found.push([from, from + words.length]);
  }
  return found;
}

/** A text as an element, its hits marked. */
export function marked(text, query, properties = {}) {
  const parts = [];
  let at = 0;
  for (const [from, to] of hits(text, query)) {
    parts.push(text.slice(at, from), el("mark", { textContent: text.slice(from, to) }));
    at = to;
  }
  return el("bdi", properties, ...parts, text.slice(at));
}

/** A text from its first hit on. */
export function fromHit(text, query) {
  const from = hits(text, query)[0]?.[0] ?? 0;
  return from ? `…${text.slice(from)}` : text;
}
