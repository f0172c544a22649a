// The page of one image: the way to it, and back to where one came from.

import { el } from "./elements.js";
import { set, state } from "./state.js";

const NOWHERE = { view: "images", finding: 0, concept: -1 };
let origin = NOWHERE;

/** Whether the panel lies over the page, as on a phone. */
export const isSheet = () => matchMedia("(max-width: 760px)").matches;

/** Shows the page of an image, with where concept `mark` (by default the same as before) fires; `finding`: of the card that it stood on. */
export function openImage(image, mark = state.mark, finding = 0) {
  if (state.view !== "images" || !state.image) origin = { view: state.view, finding: finding || state.finding, concept: state.concept };
  set({ view: "images", image, mark, ...(isSheet() ? { concept: -1 } : {}) });
}

/** Where one came from: its view. */
export const cameFrom = () => origin.view;

/** Goes back there. */
export function leaveImage() {
  const { view, finding, concept } = origin;
  origin = NOWHERE;
  set({ view, finding, image: "", mark: -1, ...(isSheet() ? { concept } : {}) });
}

/** A picture, or what stands in its place, that opens the page of its image; `key` null: of none. */
export function frameOf(key, label, concept, finding, ...parts) {
  if (key === null) return el("div", { className: "frame" }, ...parts);
  return el("button", {
    type: "button", className: "frame opens", "aria-label": label, title: "open the page of this image",
    onclick: () => openImage(key, concept, finding),
  }, ...parts);
}
