// Images as large as they are there: the files themselves where `bsjax explore` serves them, else thumbnails.

import { site } from "./concepts.js";
import { stampOf } from "./data.js";
import { el } from "./elements.js";
import { picture } from "./pictures.js";
import { set, state } from "./state.js";

/** Whether the files themselves are served beside the page. */
export const hasOriginals = () => document.querySelector('meta[name="bsjax-originals"]') !== null;

/** A frame with an image in it, as large as there is room. */
export async function loadLarge(arm, row, label) {
  const small = await picture(arm, row, label);
  const frame = el("div", { className: "whole" }, small);
  if (small.tagName !== "IMG" || !hasOriginals()) return frame;
  const full = el("img", { alt: label, onload: () => {
    frame.classList.add("full");
    frame.style.setProperty("--ratio", full.naturalWidth / full.naturalHeight);
    small.replaceWith(full);
    const heat = frame.querySelector(".heat");
    if (heat) lay(frame, heat, arm);
  } });
  full.src = `originals/${arm}/${row}?report=${encodeURIComponent(stampOf())}`; // where that fails, the thumbnail stays
  return frame;
}

/** Lays a map of patches over the part of the image that the encoder saw. */
export function lay(frame, heat, arm) {
  const [resize, crop] = site.frames[arm];
  const image = frame.querySelector("img");
  if (frame.classList.contains("full") && resize > 0) {
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    const side = Math.min(width, height) * crop / resize;
    const [w, h] = [100 * side / width, 100 * side / height];
    for (const [name, value] of Object.entries({ left: 50 - w / 2, top: 50 - h / 2, width: w, height: h })) heat.style.setProperty(name, `${value}%`);
  }
  frame.append(heat);
}

/** How much of the map is seen. */
export function heatSlider() {
  const slider = el("input", {
    type: "range", min: 0, max: 1, step: 0.05, value: state.heat,
    oninput: () => { set({ heat: Number(slider.value) }); },
  });
  return el("label", { className: "slider" }, "where it fires ", slider);
}
