// The panel of the selected concept: numbers, where it fires in its top images, what it goes with.

import { findingButton, insteadOf, intervalBar, loadCalls, titleOf } from "./called.js";
import { themed, verdictLabel } from "./colour.js";
import { columnsOf, fixed, formOf, loadColumns, percent, ratioText, setNumber, short, site, verdictOf, whole } from "./concepts.js";
import { load, unpack, unpackRow } from "./data.js";
import { copyButton, el } from "./elements.js";
import { fault } from "./faults.js";
import { firingWith } from "./map.js";
import { marked } from "./marked.js";
import { heatSlider } from "./originals.js";
import { copies, loadTop, pairOf } from "./pictures.js";
import { hasAddress, link, set, state } from "./state.js";

const SHOWN = 6; // images of each arm

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
  const calls = await loadCalls(i).catch((error) => { fault(error); return new Map(); });
  const parts = await Promise.all([
    topImages(k, i, 0, "top real images", "generated for their captions"),
    topImages(k, i, i + 1, "top generated images", "real ones of their captions"),
    histogram(k, i), together(k),
  ].map(orWhy));
  if (state.concept !== k || setNumber(state.model) !== i) return;
  // Where several parts fail of one reason, it is told once.
  const isNew = (part, place) => part.className !== "note"
    || parts.findIndex((other) => other.textContent === part.textContent) === place;
  root.replaceChildren(head(k), numbers(k, i, calls.get(k)), ranks(k), heatSlider(), ...parts.filter(isNew));
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
      marked(site.names[k] || "(no typical word)", state.q)),
    el("button", { type: "button", className: "copy", textContent: "its images", title: "image pairs of which both show this concept", onclick: () => set({ view: "images", shows: k, arm: "both", image: "", mark: -1 }) }),
    hasAddress ? copyButton("copy link", "copy a link to this concept", () => navigator.clipboard.writeText(link())) : null,
    el("button", { type: "button", textContent: "close", onclick: () => set({ concept: -1 }) }));
}

/** In words first, then in numbers. */
function numbers(k, i, call) {
  const c = columnsOf(i);
  const verdict = verdictOf(i, k);
  const rows = [
    ["q (false discovery)", `${short(c.q_material[k])} of the margin, ${short(c.q_direction[k])} of the direction`],
    ["the paper's thresholds on delta say", site.verdicts_paper[c.verdict_paper[k]]],
    [`delta (${formOf(i)})`, `${fixed(c.delta[k])} [${fixed(c.delta_low[k])}, ${fixed(c.delta_high[k])}]`],
    ["both forms", `relative ${fixed(c.delta_relative[k])}, difference ${fixed(c.delta_difference[k])}`],
    ["energy per image", `${short(c.energy_real[k])} real, ${short(c.energy_generated[k])} generated`],
    ["tokens on which it fires", `${whole(c.fires_real[k])} real, ${whole(c.fires_generated[k])} generated`],
  ];
  const pair = ([name, ...value]) => el("div", {}, el("dt", { textContent: name }), el("dd", {}, ...value));
  return el("section", { className: "numbers" },
    el("p", { className: "kind" }, verdictLabel(verdict), `: ${site.sets[i].meanings[c.verdict[k]]}`),
    call ? el("p", { className: "change", textContent: call.change }) : null,
    ...amounts(k, i, verdict, call),
    call ? el("dl", { className: "answers" }, ...[
      [verdict.sign < 0 ? "Drawn instead" : "In place of", insteadOf(call.instead, verdict.sign < 0)],
      ["Asked for?", call.asked],
      ["Part of", call.finding ? findingButton(call.finding.finding) : "no finding", call.finding ? el("bdi", { textContent: ` ${titleOf(call.finding)}` }) : ""],
    ].map(pair)) : null,
    el("dl", { className: "details" }, ...rows.map(pair)));
}

/** In how many images, how much in all with its interval, and the factors of that. */
function amounts(k, i, verdict, call) {
  const c = columnsOf(i);
  if (Number.isNaN(c.log_ratio[k])) return [];
  const ends = [c.low[k], c.log_ratio[k], c.high[k]].map((end) => (Number.isFinite(end) ? end : null));
  const hasArea = !Number.isNaN(c.area_ratio[k]);
  const factors = [
    [c.prevalence_ratio[k], "images that show it"],
    [c.amount_ratio[k], hasArea ? "strength per token" : "amount per image"],
    ...(hasArea ? [[c.area_ratio[k], "tokens per image (area)"]] : []),
  ];
  return [
    el("p", { textContent: call?.shown ?? `It is in ${percent(c.prevalence_real[k])} of the real images and in ${percent(c.prevalence_generated[k])} of the generated ones.` }),
    intervalBar(...ends, verdict, `generated / real ${ratioText(c, k)}`),
    call ? el("p", { className: "hint", textContent: call.sure }) : null,
    el("p", {}, el("span", { className: "hint", textContent: "generated / real, with its 95 % interval: " }), `${ratioText(c, k)}, which is` ),
    el("div", { className: "split" }, ...factors.map(([value, name], place) =>
      el("span", { className: "factor" }, el("b", { textContent: `${place ? "× " : ""}${short(value)}` }), el("small", { textContent: name })))),
  ].filter(Boolean);
}

/** Place of the concept by delta in every set, from the most suppressed. */
function ranks(k) {
  const list = site.sets.map((each, i) => {
    const { delta } = columnsOf(i);
    let rank = 1;
    for (const other of delta) rank += other < delta[k];
    return el("li", {}, el("button", { type: "button", textContent: each.name, onclick: () => set({ model: each.name, finding: 0 }) }),
      ` delta ${fixed(delta[k])}, place ${rank} of ${site.n} from the most suppressed`);
  });
  return el("ul", { className: "ranks" }, ...list);
}

async function topImages(k, i, arm, title, otherTitle) {
  const top = await loadTop(k, i, arm);
  const tiles = await Promise.all(top.slice(0, SHOWN).map(async (each) => {
    const { own, two } = await pairOf(each, i, arm);
    return el("figure", { className: "pair" }, two, each.bars(),
      el("figcaption", {}, marked(each.caption || "(no caption)", state.q), " ", ...copies(each.caption, own)));
  }));
  return el("section", {}, el("h3", { textContent: title }),
    el("p", { className: "hint", textContent: `left: ${title}; right: ${otherTitle}` }),
    tiles.length ? el("div", { className: "pairs" }, ...tiles)
      : el("p", { className: "hint", textContent: "it fires in none" }));
}

async function histogram(k, i) {
  const size = site.chunk.concepts;
  const chunk = await load(`histograms/${i}/${Math.floor(k / size)}`);
  const arms = ["real", "generated"].map((arm) => [...unpackRow(chunk[arm], k % size, chunk.bins)]);
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
