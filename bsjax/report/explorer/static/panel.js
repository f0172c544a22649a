// The panel of the selected concept: numbers, where it fires in its top images, what it goes with.

import { themed, verdictLabel } from "./colour.js";
import { columnsOf, fixed, formOf, loadColumns, percent, ratioText, setNumber, short, site, verdictOf, whole } from "./concepts.js";
import { inflate, load, unpack } from "./data.js";
import { copyButton, el } from "./elements.js";
import { fault } from "./faults.js";
import { firingWith } from "./map.js";
import { link, set, state } from "./state.js";

const SHOWN = 6; // images of each arm
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

/** Draws the panel, or how to get one. */
export async function showPanel(root) {
  const k = state.concept;
  if (k < 0 || k >= site.n) {
    const text = k < 0 ? "Select a concept: a point of the map, a row of a table, or its number above."
      : `There is no concept ${k}; they run from 0 to ${site.n - 1}.`;
    root.replaceChildren(el("p", { className: "hint", textContent: text }));
    return;
  }
  const i = setNumber(state.model);
  await Promise.all(site.sets.map((_, each) => loadColumns(each)));
  const parts = await Promise.all([
    topImages(k, i, 0, "top real images", "generated for their captions"),
    topImages(k, i, i + 1, "top generated images", "real ones of their captions"),
    histogram(k, i), together(k),
  ].map(orWhy));
  if (state.concept !== k || setNumber(state.model) !== i) return;
  // Where several parts fail of one reason, it is told once.
  const isNew = (part, place) => part.className !== "note"
    || parts.findIndex((other) => other.textContent === part.textContent) === place;
  root.replaceChildren(head(k), numbers(k, i), ranks(k), heatSlider(), ...parts.filter(isNew));
}

/** A part of the panel, or why there is none. */
async function orWhy(part) {
  try {
    return await part;
  } catch (error) {
    fault(error);
    return el("p", { className: "note", textContent: error.message });
  }
}

function head(k) {
  return el("div", { className: "head" },
    el("h2", {}, el("span", { className: "id", textContent: `${k} ` }),
      el("bdi", { textContent: site.names[k] || "(no typical word)" })),
    copyButton("copy link", "copy a link to this concept", () => navigator.clipboard.writeText(link())),
    el("button", { type: "button", textContent: "close", onclick: () => set({ concept: -1 }) }));
}

function numbers(k, i) {
  const c = columnsOf(i);
  const rows = [
    ["verdict", verdictLabel(verdictOf(i, k)), `: ${site.sets[i].meanings[c.verdict[k]]}`],
    ["generated / real", ratioText(c, k)],
    ["made of", `${short(c.prevalence_ratio[k])} by images that show it × ${short(c.amount_ratio[k])} by amount${Number.isNaN(c.area_ratio[k]) ? "" : ` × ${short(c.area_ratio[k])} by area`}`],
    ["q (false discovery)", `${short(c.q_material[k])} of the margin, ${short(c.q_direction[k])} of the direction`],
    ["the paper's thresholds on delta say", site.verdicts_paper[c.verdict_paper[k]]],
    [`delta (${formOf(i)})`, `${fixed(c.delta[k])} [${fixed(c.delta_low[k])}, ${fixed(c.delta_high[k])}]`],
    ["both forms", `relative ${fixed(c.delta_relative[k])}, difference ${fixed(c.delta_difference[k])}`],
    ["energy per image", `${short(c.energy_real[k])} real, ${short(c.energy_generated[k])} generated`],
    ["in images", `${percent(c.prevalence_real[k])} real, ${percent(c.prevalence_generated[k])} generated`],
    ["fires", `${whole(c.fires_real[k])} real, ${whole(c.fires_generated[k])} generated`],
  ];
  return el("dl", { className: "numbers" },
    ...rows.map(([name, ...value]) => el("div", {}, el("dt", { textContent: name }), el("dd", {}, ...value))));
}

/** Place of the concept by delta in every set, from the most suppressed. */
function ranks(k) {
  const list = site.sets.map((each, i) => {
    const { delta } = columnsOf(i);
    let rank = 1;
    for (const other of delta) rank += other < delta[k];
    return el("li", {}, el("button", { type: "button", textContent: each.name, onclick: () => set({ model: each.name }) }),
      ` delta ${fixed(delta[k])}, place ${rank} of ${site.n} from the most suppressed`);
  });
  return el("ul", { className: "ranks" }, ...list);
}

function heatSlider() {
  const slider = el("input", {
    type: "range", min: 0, max: 1, step: 0.05, value: state.heat,
    oninput: () => { set({ heat: Number(slider.value) }); },
  });
  return el("label", { className: "slider" }, "where it fires ", slider);
}

async function topImages(k, i, arm, title, otherTitle) {
  const size = site.chunk.concepts;
  const chunk = await load(`concepts/${arm}/${Math.floor(k / size)}`);
  const [rows, maps, special] = [unpack(chunk.rows), await inflate(chunk.maps), await inflate(chunk.special)];
  const nSlots = chunk.rows.shape[1];
  const [h, w] = chunk.grid;
  const nSpecial = chunk.special.shape[2];
  const pairs = await loadPairs(i);
  const tiles = [];
  for (let slot = 0; slot < Math.min(SHOWN, nSlots); slot += 1) {
    const place = (k % size) * nSlots + slot;
    const row = rows[place];
    if (row < 0) break;
    const other = (arm ? pairs.toReal : pairs.toGenerated).get(row) ?? -1;
    const caption = captionOf(arm, row, pairs);
    const own = await picture(arm, row, caption);
    const heat = heatCanvas(maps.subarray(place * h * w, (place + 1) * h * w), h, w);
    const bars = tokenBars(special.subarray(place * nSpecial, (place + 1) * nSpecial), chunk.special_names);
    const counterpart = await picture(arm ? 0 : i + 1, other, `counterpart of: ${caption}`);
    tiles.push(el("figure", { className: "pair" },
      el("div", { className: "two" }, el("div", { className: "frame" }, own, heat), el("div", { className: "frame" }, counterpart)),
      bars,
      el("figcaption", {}, el("bdi", { textContent: caption || "(no caption)" }), " ",
        copyButton("caption", "copy this caption", () => navigator.clipboard.writeText(caption)),
        own.tagName === "IMG" ? copyButton("image", "copy this image", () => copyImage(own)) : null)));
  }
  return el("section", {}, el("h3", { textContent: title }),
    el("p", { className: "hint", textContent: `left: ${title}; right: ${otherTitle}` }),
    tiles.length ? el("div", { className: "pairs" }, ...tiles)
      : el("p", { className: "hint", textContent: "it fires in none" }));
}

function captionOf(arm, row, pairs) {
  const real = arm ? pairs.toReal.get(row) : row;
  return real === undefined ? "" : site.captions[real];
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

async function histogram(k, i) {
  const size = site.chunk.concepts;
  const chunk = await load(`histograms/${i}/${Math.floor(k / size)}`);
  const nBins = chunk.real.shape[1];
  const from = (k % size) * nBins;
  const arms = ["real", "generated"].map((arm) => [...unpack(chunk[arm]).slice(from, from + nBins)]);
  const top = unpack(chunk.top)[k % size];
  const canvas = el("canvas", {
    className: "histogram", width: 640, height: 220, role: "img",
    "aria-label": `images by energy of concept ${k}: ${sum(arms[0])} real and ${sum(arms[1])} generated images show it, energies up to ${short(top)}`,
  });
  drawHistogram(canvas, arms, top);
  return el("section", {}, el("h3", { textContent: "how strongly images show it" }), canvas,
    el("p", { className: "hint" }, el("b", { className: "real", textContent: "real" }), " and ",
      el("b", { className: "generated", textContent: "generated" }), " images by energy; those without it are left out"));
}

const sum = (values) => values.reduce((a, b) => a + b, 0);

function drawHistogram(canvas, arms, top) {
  const context = canvas.getContext("2d");
  const [width, height, foot] = [canvas.width, canvas.height, 28];
  const most = Math.max(1, ...arms.flat());
  const step = width / arms[0].length;
  for (const [a, colour] of [themed("real"), themed("generated")].entries()) {
    context.fillStyle = colour;
    arms[a].forEach((count, bin) => {
      const tall = (height - foot - 16) * count / most;
      context.fillRect(bin * step + 2 + a * (step / 2 - 2), height - foot - tall, step / 2 - 3, tall);
    });
  }
  context.fillStyle = themed("soft");
  context.font = "20px system-ui, sans-serif";
  context.fillText("0", 2, height - 6);
  context.textAlign = "right";
  context.fillText(`energy ${short(top)}`, width - 2, height - 6);
  context.fillText(`${most} images`, width - 2, 18);
}

async function together(k) {
  const { ids, strength } = await firingWith(k);
  return el("section", {}, el("h3", { textContent: "fires together with" }),
    ids.length ? el("ul", { className: "together" }, ...ids.map((id, place) => el("li", {},
      el("button", { type: "button", onclick: () => set({ concept: id }) }, `${id} `, el("bdi", { textContent: site.names[id] })),
      ` strength ${fixed(strength[place], 2)}`)))
      : el("p", { className: "hint", textContent: "it fires alone" }));
}
