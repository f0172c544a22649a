// Images of both arms: thumbnails, counterparts, and where a concept fires in them.

import { site } from "./concepts.js";
import { inflate, load, unpack } from "./data.js";
import { copyButton, el } from "./elements.js";
import { fault } from "./faults.js";
import { state } from "./state.js";

const pairsOf = new Map(); // of each set: rows of the counterparts

/** Thumbnail of an image as a data address; null where the file was gone. */
export async function thumbnail(arm, row) {
  const size = site.chunk.images;
  const chunk = await load(`thumbnails/${arm}/${Math.floor(row / size)}`);
  const data = chunk[row % size];
  return data ? `data:image/webp;base64,${data}` : null;
}

/** An image that may be missing. */
export async function picture(arm, row, alt) {
  let address = null;
  try {
    if (row >= 0) address = await thumbnail(arm, row);
  } catch (error) {
    fault(error);
    return el("span", { className: "gone", textContent: "no data of this image" });
  }
  return address ? el("img", { src: address, alt, loading: "lazy", width: 128, height: 128 })
    : el("span", { className: "gone", textContent: row < 0 ? "no counterpart" : "image file is gone" });
}

/** Rows of the other arm, both ways, and the pairs in order. */
export async function loadPairs(i) {
  if (!pairsOf.has(i)) {
    const packed = await load(`pairs/${i}`);
    const real = unpack(packed.real);
    const generated = unpack(packed.generated);
    pairsOf.set(i, {
      real, generated, shared: unpack(packed.shared), marks: unpack(packed.marks), twin: unpack(packed.twin),
      scores: Object.fromEntries(Object.entries(packed.scores).map(([k, v]) => [k, unpack(v)])),
      toGenerated: new Map([...real].map((row, p) => [row, generated[p]])),
      toReal: new Map([...generated].map((row, p) => [row, real[p]])),
    });
  }
  return pairsOf.get(i);
}

/** The images of an arm (0: real) that show a concept most, with their counterparts in set i. */
export async function loadTop(k, i, arm) {
  const size = site.chunk.concepts;
  const chunk = await load(`concepts/${arm}/${Math.floor(k / size)}`);
  const [rows, maps, special] = [unpack(chunk.rows), await inflate(chunk.maps), await inflate(chunk.special)];
  const nSlots = chunk.rows.shape[1];
  const [h, w] = chunk.grid;
  const nSpecial = chunk.special.shape[2];
  const pairs = await loadPairs(i);
  const images = [];
  for (let slot = 0; slot < nSlots; slot += 1) {
    const place = (k % size) * nSlots + slot;
    const row = rows[place];
    if (row < 0) break;
    const real = arm ? pairs.toReal.get(row) : row;
    const codes = maps.subarray(place * h * w, (place + 1) * h * w);
    images.push({
      row, isPlaced: codes.some((code) => code > 0), other: (arm ? pairs.toReal : pairs.toGenerated).get(row) ?? -1,
      caption: real === undefined ? "" : site.captions[real],
      heat: () => heatCanvas(codes, h, w),
      bars: () => tokenBars(special.subarray(place * nSpecial, (place + 1) * nSpecial), chunk.special_names),
    });
  }
  return images;
}

/** An image beside its counterpart; where the concept fires lies over it. */
export async function pairOf({ row, other, caption, heat }, i, arm) {
  const own = await picture(arm, row, caption);
  const counterpart = await picture(arm ? 0 : i + 1, other, `counterpart of: ${caption}`);
  const frame = (...parts) => el("div", { className: "frame" }, ...parts);
  return { own, two: el("div", { className: "two" }, frame(own, heat()), frame(counterpart)) };
}

/** Buttons that copy a caption and, where there is one, an image. */
export function copies(caption, image) {
  return [
    copyButton("caption", "copy this caption", () => navigator.clipboard.writeText(caption)),
    image.tagName === "IMG" ? copyButton("image", "copy this image", () => copyImage(image)) : null,
  ];
}

/** A picture of codes over patches: clear where silent, bright where it fires most. */
function heatCanvas(codes, h, w) {
  const canvas = el("canvas", { className: "heat", width: w, height: h, "aria-hidden": "true", css: { opacity: state.heat } });
  const context = canvas.getContext("2d");
  const image = context.createImageData(w, h);
  for (let p = 0; p < codes.length; p += 1) {
    image.data.set([255, 60 + 0.76 * codes[p], 20, codes[p] ? 70 + 0.6 * codes[p] : 0], 4 * p);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Codes of class tokens and registers, by the image's strongest; null where there are none. */
function tokenBars(codes, names) {
  if (!codes.length) return null;
  const bars = [...codes].map((code, i) => el("span", { title: `${names[i]}: ${Math.round(code / 2.55)} % of the strongest` },
    el("i", { css: { height: `${code / 2.55}%` } })));
  const text = names.map((name, i) => `${name} ${Math.round(codes[i] / 2.55)} %`).join(", ");
  return el("div", { className: "bars", role: "img", "aria-label": `tokens besides the patches: ${text}` }, ...bars);
}

async function copyImage(image) {
  const canvas = el("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0);
  const blob = await new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
  await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
}
