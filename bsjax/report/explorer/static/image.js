// The page of one image: what was generated for it, how alike, which concepts it shows and where.

import { conceptButton } from "./called.js";
import { verdictLabel } from "./colour.js";
import { columnsOf, loadColumns, percent, setNumber, site, verdictOf } from "./concepts.js";
import { load, unpack } from "./data.js";
import { el } from "./elements.js";
import { fault } from "./faults.js";
import { isConcept, listPairs } from "./listing.js";
import { marked } from "./marked.js";
import { cameFrom, leaveImage } from "./opening.js";
import { hasOriginals, heatSlider, lay, loadLarge } from "./originals.js";
import { keyOf, labelOf, loadCounterparts, loadMaps, loadPairs } from "./pictures.js";
import { set, state } from "./state.js";
import { likeness, numbersHelp, pictured } from "./tiles.js";

const LISTED = 10; // listed before one asks for all
const MOST_REPEATS = 12;
const WHOLE_SHARE = 65535; // stands for a share of 1
const NO_SLOT = 255;
let shown = null; // {images: as `large` makes them, i: number of the set, energies: place of their table}

/** Draws the page of the image that the address names into `root`. */
export async function showImage(root) {
  const found = await findImage(state.image);
  if (!found) {
    shown = null;
    root.replaceChildren(steps([], -1), el("p", { className: "note", role: "alert", textContent: `There is no image ${state.image} in this report.` }));
    return;
  }
  const i = setNumber(state.model);
  const { real } = found;
  const [{ pairs, order }, images, others] = await Promise.all([listPairs(i), Promise.all(found.images.map(large)), repeatsOf(real), loadColumns(i)]);
  const caption = real < 0 ? "" : site.captions[real];
  const before = root.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  const twin = real < 0 ? -1 : pairs.twin[pairs.at.get(real)] ?? -1;
  shown = { images, i, energies: el("div") };
  root.replaceChildren(
    steps(order.map((p) => pairs.real[p]), real),
    el("h2", { tabIndex: -1 }, marked(caption || "(no caption)", state.caption)),
    el("p", { className: "hint" }, "image ", el("bdi", { textContent: found.key }),
      ...hasOriginals() ? [] : ["; shown as thumbnails, ", el("code", { textContent: "bsjax explore" }), " shows the image files"]),
    el("div", { className: images.length > 2 ? "large" : "large two-alone" }, ...await Promise.all(images.map((image) => figure(image, real)))),
    numbersHelp("z" in pairs.scores), el("div", { className: "marks" }), shown.energies,
    ...besides("Real image nearly the same", twin < 0 ? [] : [twin], i, "Where a model repeats one of its training images, that image was often there several times. By itself this is no evidence of copying."),
    ...besides("Other images of this caption, other captions of this image", others.filter((row) => row !== twin), i, ""));
  drawEnergies(false);
  // Who steps on goes on stepping; who came from elsewhere begins at the caption.
  const step = [...root.querySelectorAll(".steps button:not(:disabled)")].find((each) => before && each.getAttribute("aria-label") === before);
  (step ?? root.querySelector("h2")).focus({ preventScroll: true });
  await markConcept();
}

/** {key, real: row or -1, images: [{arm, row}]} of a key, or of a row of the real images; null: there is none. */
async function findImage(name) {
  let real = site.keys.indexOf(name);
  const sets = await Promise.all(site.sets.map((_, j) => loadCounterparts(j)));
  if (real < 0) {
    const alone = sets.flatMap(({ keys }, j) => Object.keys(keys).filter((row) => keys[row] === name).map((row) => ({ arm: j + 1, row: Number(row) })));
    if (alone.length) return { key: name, real: -1, images: alone };
    real = /^\d+$/.test(name) && Number(name) < site.keys.length ? Number(name) : -1;
  }
  if (real < 0) return null;
  const images = sets.map(({ generated }, j) => ({ arm: j + 1, row: generated[real] })).filter(({ row }) => row >= 0);
  return { key: site.keys[real], real, images: [{ arm: 0, row: real }, ...images] };
}

/** What is to be shown of an image: its strongest concepts and a frame with its picture. */
async function large({ arm, row }) {
  const caption = arm ? "" : site.captions[row];
  return { arm, row, ...await strongest(arm, row), frame: await loadLarge(arm, row, labelOf(arm, caption)) };
}

/** {concepts: Map of concept -> {share, slot}, rest: the largest share that others can have}. */
async function strongest(arm, row) {
  const size = site.chunk.images;
  const chunk = await load(`strongest/${arm}/${Math.floor(row / size)}`);
  const [ids, shares, slots] = ["concepts", "shares", "slots"].map((name) => unpack(chunk[name]));
  const n = chunk.concepts.shape[1];
  const concepts = new Map();
  let rest = 0;
  for (let at = (row % size) * n; at < (row % size + 1) * n && ids[at] >= 0; at += 1) {
    rest = shares[at] / WHOLE_SHARE;
    concepts.set(ids[at], { share: rest, hasMap: slots[at] !== NO_SLOT });
  }
  return { concepts, rest: unpack(chunk.count)[row % size] > concepts.size ? rest : 0 };
}

/** The way back, and to the images before and after it in the list. */
function steps(rows, real) {
  const at = rows.indexOf(real);
  const names = { images: "the list", table: "the concepts", card: "the run card" };
  const step = (text, label, row) => el("button", {
    type: "button", textContent: text, "aria-label": label, disabled: row === undefined,
    onclick: () => set({ image: site.keys[row] }),
  });
  return el("div", { className: "toolbar steps" },
    el("button", { type: "button", className: "back", textContent: `← back to ${names[cameFrom()] ?? `the ${cameFrom()}`}`, onclick: leaveImage }),
    step("‹ previous", "previous image", rows[at < 0 ? -1 : at - 1]), step("next ›", "next image", at < 0 ? undefined : rows[at + 1]),
    el("span", { className: "hint", textContent: at < 0 ? "not in the list of pairs" : `${at + 1} of ${rows.length} in the list of pairs` }));
}

/** Goes one image on in the list, or back. */
export function stepImage(step) {
  document.querySelector(`.steps [aria-label="${step < 0 ? "previous" : "next"} image"]:not(:disabled)`)?.click();
}

async function figure({ arm, row, frame }, real) {
  const name = el("p", {}, el("b", { className: arm ? "generated" : "real" }, arm ? "generated by " : "real image",
    arm ? el("bdi", { textContent: site.sets[arm - 1].name }) : ""));
  let said = [];
  if (arm && real >= 0) {
    const pairs = await loadPairs(arm - 1);
    const p = pairs.at.get(real);
    said = p === undefined ? [el("p", { textContent: "Not ranked: another pair with this real image is, which is more alike." })] : likeness(pairs, p);
  } else if (arm) said = [el("p", { textContent: `image ${await keyOf(arm, row)} without a real counterpart` })];
  return el("figure", {}, frame, el("figcaption", {}, name, ...said, el("p", { className: "map" })));
}

/** Other pairs, each with a button that opens its page. */
function besides(title, rows, i, hint) {
  if (!rows.length) return [];
  const list = el("div", { className: "pairs" });
  loadCounterparts(i).then(({ generated }) => list.append(...rows.slice(0, MOST_REPEATS).map((row) => el("figure", { className: "pair" },
    el("div", { className: "two" }, pictured(site.keys[row], 0, row, site.captions[row]), pictured(site.keys[row], i + 1, generated[row], site.captions[row])),
    el("figcaption", {}, el("bdi", { textContent: site.captions[row] || site.keys[row] }), el("p", {}, "image ", el("bdi", { textContent: site.keys[row] })))))), fault);
  const rest = rows.length - MOST_REPEATS;
  return [el("h3", { textContent: title }), hint ? el("p", { className: "hint", textContent: hint }) : "", list,
    rest > 0 ? el("p", { className: "hint", textContent: `and ${rest} more` }) : ""];
}

/** Rows of other real images that share its caption or file. */
async function repeatsOf(real) {
  if (real < 0) return [];
  const labels = unpack(await load("repeats"));
  return [...labels.keys()].filter((row) => row !== real && labels[row] === labels[real]);
}

/** Draws the table of the images' strongest concepts. */
function drawEnergies(isAll) {
  const { images, i, energies } = shown;
  // Those first that the real image or that of the chosen model shows most.
  const most = new Map(images.flatMap(({ concepts }) => [...concepts.keys()].map((k) => [k, 0])));
  for (const { arm, concepts } of images) {
    if (arm && arm !== i + 1 && images.length > 1) continue;
    for (const [k, { share }] of concepts) most.set(k, Math.max(share, most.get(k)));
  }
  const ids = [...most.keys()].sort((a, b) => most.get(b) - most.get(a) || a - b);
  const listed = isAll ? ids : ids.slice(0, LISTED);
  if (isConcept(state.mark) && !listed.includes(state.mark)) listed.unshift(state.mark);
  const top = Math.max(...images.flatMap(({ concepts }) => listed.map((k) => concepts.get(k)?.share ?? 0)), 1e-9);
  const more = el("button", { type: "button", className: "link", textContent: `all ${ids.length}`, onclick: () => { drawEnergies(true); drawButtons(); energies.querySelector(".scroll").focus(); } });
  energies.replaceChildren(
    el("h3", { textContent: "Its strongest concepts" }),
    el("p", { className: "hint", textContent: "Share of an image's energy: how much of all that the SAE sees in it is this concept. Maps of where a concept fires are kept of the images of each arm that show it most." }),
    el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "strongest concepts" },
      el("table", { className: "energies" },
        el("thead", {}, el("tr", {}, ...["concept", ...images.map(({ arm }) => (arm ? site.sets[arm - 1].name : "real")), "where it fires", `verdict of ${site.sets[i].name}`]
          .map((textContent) => el("th", { scope: "col", textContent })))),
        el("tbody", {}, ...listed.map((k) => el("tr", {}, el("th", { scope: "row" }, conceptButton(k, { mark: k })),
          ...images.map((image) => el("td", {}, ...shareOf(image, k, top))), el("td", {}, whereButton(k)),
          el("td", {}, verdictLabel(verdictOf(i, k), site.sets[i].meanings[columnsOf(i).verdict[k]]))))))),
    listed.length < ids.length ? more : "");
}

function shareOf({ arm, concepts, rest }, k, top) {
  const share = concepts.get(k)?.share;
  if (share === undefined) return [el("span", { className: "hint", textContent: rest ? `under ${percent(rest)}` : "not shown" })];
  return [el("span", { className: arm ? "share generated" : "share", "aria-hidden": "true" }, el("i", { css: { width: `${100 * share / top}%` } })), ` ${percent(share)}`];
}

/** Lays where a concept fires over the images, or takes it off. */
function whereButton(k) {
  if (k !== state.mark && !shown.images.some(({ concepts }) => concepts.get(k)?.hasMap)) return el("span", { className: "hint", textContent: "no map kept" });
  return el("button", {
    type: "button", className: "small where", textContent: "show", "aria-label": `show where concept ${k} fires`, value: String(k),
    onclick: () => set({ mark: state.mark === k ? -1 : k }),
  });
}

function drawButtons() {
  for (const button of document.querySelectorAll("button.where")) button.setAttribute("aria-pressed", String(Number(button.value) === state.mark));
}

/** Shows where the concept that the address names fires, as far as maps of it are kept. */
export async function markConcept() {
  if (!shown) return;
  const [mine, k] = [shown, state.mark];
  const isOne = isConcept(k);
  const maps = await Promise.all(mine.images.map(async ({ arm, row }) =>
    (isOne ? (await loadMaps(k, arm)).find((each) => each.row === row) : undefined)));
  if (mine !== shown || k !== state.mark) return;
  if (isOne && !document.querySelector(`button.where[value="${k}"]`)) drawEnergies(false);
  drawButtons();
  const place = document.querySelector(".marks");
  const isPlaced = maps.some((each) => each?.isPlaced);
  place.replaceChildren(...isOne ? [el("p", {}, isPlaced ? "Coloured is where it fires: " : "Nothing is coloured: ", conceptButton(k)), isPlaced ? heatSlider() : ""] : []);
  mine.images.forEach(({ frame }, at) => {
    frame.querySelector(".heat")?.remove();
    if (maps[at]) lay(frame, maps[at].heat(), mine.images[at].arm);
    const isSilent = maps[at] && !maps[at].isPlaced;
    frame.parentElement.querySelector(".map").textContent = !isOne ? "" : !maps[at] ? `No map of concept ${k} is kept of this image: it is not among those that show it most.`
      : isSilent ? `Concept ${k} fires on no patch of it, but on the class token or registers.` : "";
  });
}
