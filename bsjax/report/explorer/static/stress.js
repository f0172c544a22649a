// Findings that were asked for again and again: how often they were drawn, best and worst.

import { el } from "./elements.js";

/** Parts of a finding's card, one a test; none where it was not tested. */
export const stressTests = (tests = []) => tests.map((test) => el("details", { className: "stress" },
  el("summary", { textContent: `Stress test: drawn in ${test.headline} images` }),
  el("p", { className: "hint", textContent: test.told }),
  gallery("Best: images that show it most, one a prompt", test.best, "No image shows it."),
  gallery("Worst: images that do not show it, one a prompt", test.worst, "Every image shows it.")));

function gallery(title, images, none) {
  if (!images.length) return el("p", { textContent: none });
  return el("div", {}, el("p", { className: "hint", textContent: title }), el("div", { className: "strip" },
    ...images.map(({ image, prompt }) => el("figure", { className: "pair" },
      image ? el("img", { src: `data:image/webp;base64,${image}`, alt: `drawn for: ${prompt}`, width: 128, height: 128 })
        : el("span", { className: "gone", textContent: "image file is gone" }),
      el("figcaption", { title: prompt }, el("bdi", { textContent: prompt }))))));
}
