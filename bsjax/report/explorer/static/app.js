// Puts the page together: views, choices, panel, keys, address.

import { loadSite, setNumber, site } from "./concepts.js";
import { el, say } from "./elements.js";
import { fault, guarded, watchFaults } from "./faults.js";
import { showCard, showFigures } from "./about.js";
import { goToFinding, showFindings } from "./findings.js";
import { matrixButton } from "./csv.js";
import { stepImage } from "./image.js";
import { showImages, updateImages } from "./images.js";
import { showMap, updateMap } from "./map.js";
import { showModels } from "./models.js";
import { showPanel } from "./panel.js";
import { leaveImage } from "./opening.js";
import { leavePlots } from "./scatter.js";
import { address, listen, readAddress, set, state, tell } from "./state.js";
import { listed, showTable, updateTable } from "./table.js";

const VIEWS = {
  findings: ["Findings", showFindings], map: ["Map", showMap], table: ["Concepts", showTable], models: ["Models", withMatrix],
  images: ["Images", showImages], figures: ["Figures", showFigures], card: ["Run card", showCard],
};
/** The models, and their matrix as a file. */
async function withMatrix(root) {
  await showModels(root);
  if (site.sets.length > 1) root.append(matrixButton());
}

const byId = (id) => document.getElementById(id);
const ALL = new Set(["view", "model", "concept", "finding", "image"]);

async function start() {
  watchFaults();
  readAddress();
  await loadSite();
  document.title = `bsjax: ${site.sets.map((each) => each.name).join(", ")}`;
  for (const [name, [text]] of Object.entries(VIEWS)) {
    byId("tabs").append(el("button", { type: "button", role: "tab", id: `tab-${name}`, textContent: text, "aria-controls": "view", onclick: () => set({ view: name, image: "", mark: -1 }) }));
  }
  for (const each of site.sets) {
    byId("model").append(el("option", { value: each.name, textContent: each.name }));
    byId("second").append(el("option", { value: each.name, textContent: each.name }));
  }
  byId("second").prepend(el("option", { value: "", textContent: "none" }));
  byId("model").onchange = () => set({ model: byId("model").value, finding: 0 });
  byId("second").onchange = () => set({ second: byId("second").value });
  byId("goto").onchange = () => {
    const text = byId("goto").value.trim();
    if (/^\d+$/.test(text)) set({ concept: Number(text) });
    else if (text) say(`${text} is no number of a concept; they run from 0 to ${site.n - 1}`);
  };
  listen(update);
  // Browsers tell of a changed fragment twice.
  const readAgain = () => {
    const before = address();
    readAddress();
    if (address() !== before) tell(ALL);
  };
  window.addEventListener("popstate", readAgain);
  window.addEventListener("hashchange", readAgain);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => tell(ALL));
  document.addEventListener("keydown", guarded(onKey));
  await update(ALL);
  document.body.dataset.ready = "true";
}

const viewName = () => (Object.hasOwn(VIEWS, state.view) ? state.view : "findings");

async function update(keys) {
  const view = viewName();
  const i = setNumber(state.model);
  byId("model").value = site.sets[i].name;
  byId("second").value = state.second;
  byId("goto").value = state.concept >= 0 ? state.concept : "";
  document.body.classList.toggle("open", state.concept >= 0);
  for (const tab of byId("tabs").children) {
    const isOn = tab.id === `tab-${view}`;
    tab.setAttribute("aria-selected", String(isOn));
    tab.tabIndex = isOn ? 0 : -1;
    if (isOn) bringIntoSight(tab, byId("tabs"));
  }
  byId("view").setAttribute("aria-labelledby", `tab-${view}`);
  byId("notes").replaceChildren(...site.sets[i].notes.map((text) => el("p", { className: "note", role: "alert", textContent: text })));
  for (const canvas of document.querySelectorAll("canvas.heat")) canvas.style.opacity = state.heat;
  await Promise.all([drawView(keys), drawPanel(keys)]);
}

/** Scrolls a list sideways as far as a part of it needs. */
function bringIntoSight(part, list) {
  const from = part.offsetLeft - list.offsetLeft;
  if (from < list.scrollLeft || from + part.offsetWidth > list.scrollLeft + list.clientWidth) list.scrollLeft = from;
}

/** Calls `work` with the keys changed since it last began; one call at a time, the last one last. */
function oneByOne(work) {
  let waiting = new Set();
  let last = Promise.resolve();
  return (keys) => {
    waiting = new Set([...waiting, ...keys]);
    last = last.then(async () => {
      const changed = waiting;
      waiting = new Set();
      if (changed.size) await work(changed);
    });
    return last;
  };
}

/** Puts in place of a part why it is not there. */
function giveUp(root, error) {
  fault(error);
  root.replaceChildren(el("p", { className: "note", role: "alert", textContent: error.message }));
}

const drawView = oneByOne(async (keys) => {
  const [view, root] = [viewName(), byId("view")];
  const isNew = ["view", "model", "second"].some((key) => keys.has(key))
    || (view === "models" && keys.has("x"));
  root.dataset.view = view;
  try {
    if (isNew) {
      leavePlots();
      await VIEWS[view][1](root);
    } else if (view === "findings" && keys.has("finding")) goToFinding();
    else if (view === "map") await updateMap(keys);
    else if (view === "table") updateTable(keys);
    else if (view === "images") await updateImages(root, keys);
  } catch (error) {
    if (isNew) giveUp(root, error);
    else fault(error);
  }
});

const drawPanel = oneByOne(async (keys) => {
  if (!keys.has("concept") && !keys.has("model")) return;
  try {
    await showPanel(byId("panel"));
  } catch (error) {
    giveUp(byId("panel"), error);
  }
});

function onKey(event) {
  const isTyping = event.target.matches?.("input, select, textarea");
  if (event.key === "Escape") {
    if (isTyping) event.target.blur();
    else if (state.concept < 0 && state.view === "images" && state.image) leaveImage();
    else set({ concept: -1 });
  } else if (isTyping || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  } else if (event.key === "/") {
    event.preventDefault();
    if (state.view !== "table") set({ view: "table" });
    setTimeout(() => byId("search")?.focus(), 50);
  } else if (event.target.getAttribute?.("role") === "tab" && /^Arrow(Left|Right)$/.test(event.key)) {
    const names = Object.keys(VIEWS);
    const step = event.key === "ArrowRight" ? 1 : names.length - 1;
    const view = names[(names.indexOf(viewName()) + step) % names.length];
    set({ view });
    byId(`tab-${view}`).focus();
  } else if (/^Arrow(Left|Right)$/.test(event.key) && state.view === "images" && state.image) {
    // Sideways a table that has the focus scrolls.
    if (!event.target.closest?.("#panel, .scroll")) stepImage(event.key === "ArrowRight" ? 1 : -1);
  } else if (/^Arrow/.test(event.key) && viewName() === "table") {
    const isInList = event.target.closest?.(".scroll") && !event.target.closest?.("#panel");
    const ids = listed();
    // Sideways a list that has the focus scrolls.
    if (!ids.length || (isInList && /Left|Right/.test(event.key)) || event.target.closest?.("#panel, summary")) return;
    const step = event.key === "ArrowRight" || event.key === "ArrowDown" ? 1 : -1;
    const place = ids.indexOf(state.concept);
    event.preventDefault();
    set({ concept: ids[place < 0 ? 0 : (place + step + ids.length) % ids.length] });
  }
}

start().catch((error) => giveUp(byId("view"), error));
