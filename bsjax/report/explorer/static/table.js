// The table of concepts: filter, sort, and the current view as CSV.

import { verdictLabel } from "./colour.js";
import { columnsOf, filtered, fixed, formOf, loadColumns, percent, setNumber, short, site, verdictOf } from "./concepts.js";
import { choice, download, el } from "./elements.js";
import { DEFAULTS, set, state } from "./state.js";

const ROWS_A_PAGE = 200; // rows added at a time
const HEADINGS = [
  ["concept", "id"], ["name", "name"], ["delta", "delta [95 %]"], ["difference", "difference"],
  ["relative", "relative"], ["fires_real", "fires real"], ["fires_generated", "fires generated"],
  ["prevalence_real", "real images"], ["prevalence_generated", "generated images"], ["q", "q"], ["verdict", "verdict"],
];
let shown = ROWS_A_PAGE;

/** Draws the view into `root`. */
export async function showTable(root) {
  const i = setNumber(state.model);
  await loadColumns(i);
  root.replaceChildren(quick(), filters(i), el("div", { id: "rows" }));
  shown = ROWS_A_PAGE;
  drawRows();
}

/** Brings the rows up to date. */
export function updateTable(keys) {
  if (["q", "verdict", "low", "high", "fires", "sort", "down", "lasso"].some((k) => keys.has(k))) {
    shown = ROWS_A_PAGE;
    drawRows();
  } else if (keys.has("concept")) {
    for (const row of document.querySelectorAll("#rows tr[data-concept]")) {
      row.classList.toggle("selected", Number(row.dataset.concept) === state.concept);
    }
  }
}

function quick() {
  const button = (text, changes) => el("button", {
    type: "button", textContent: text,
    onclick: () => { set({ q: "", low: 0, high: 1, fires: 0, ...changes }); redrawFilters(); },
  });
  return el("div", { className: "toolbar", role: "group", "aria-label": "ready-made views" },
    ...site.verdicts.filter((each) => each.sign).map(({ name, sign }) =>
      button(`most ${name}`, { verdict: name, sort: "delta", down: sign > 0 })),
    ...site.verdicts.filter((each) => !each.is_judged).map(({ name }) =>
      button(name, { verdict: name, sort: "fires_real", down: true })),
    button("all", { verdict: "", sort: "delta", down: false }));
}

function redrawFilters() {
  document.querySelector(".filters")?.replaceWith(filters(setNumber(state.model)));
}

/** The fields that decide what is listed, here and on the map. */
export function filters(i) {
  const number = (label, key, step, most) => {
    const field = el("input", {
      type: "number", min: 0, max: most, step, value: state[key],
      onchange: () => set({ [key]: field.value === "" ? DEFAULTS[key] : Number(field.value) }),
    });
    return el("label", {}, `${label} `, field);
  };
  const text = el("input", {
    type: "search", id: "search", value: state.q, placeholder: "name, caption or id",
    oninput: () => set({ q: text.value }),
  });
  return el("div", { className: "toolbar filters" },
    el("label", {}, "search ", text),
    choice("verdict", [["", "any"], ...site.verdicts.map(({ name }) => [name, name])], state.verdict, (verdict) => set({ verdict })),
    number(`delta from`, "low", 0.01, 1), number("to", "high", 0.01, 1), number("least fires", "fires", 1, 1e12),
    el("button", { type: "button", textContent: "CSV of this view", onclick: () => exportCsv(i) }),
    el("span", { className: "hint", textContent: `delta: ${formOf(i)}` }));
}

function drawRows() {
  const i = setNumber(state.model);
  const c = columnsOf(i);
  if (!c) return; // another model is on its way
  const ids = filtered(i);
  const head = el("tr", {}, ...HEADINGS.map(([key, text]) => {
    const isSorted = state.sort === key;
    return el("th", { scope: "col", "aria-sort": isSorted ? (state.down ? "descending" : "ascending") : "none" },
      el("button", {
        type: "button", textContent: text + (isSorted ? (state.down ? " ↓" : " ↑") : ""),
        onclick: () => set({ sort: key, down: isSorted ? !state.down : false }),
      }));
  }));
  const rows = ids.slice(0, shown).map((k) => {
    const cells = [
      el("button", { type: "button", textContent: String(k), "aria-label": `show concept ${k}`, onclick: () => set({ concept: k }) }),
      el("bdi", { textContent: site.names[k] }),
      `${fixed(c.delta[k])} [${fixed(c.delta_low[k])}, ${fixed(c.delta_high[k])}]`,
      short(c.difference[k]), fixed(c.relative[k]), String(c.fires_real[k]), String(c.fires_generated[k]),
      percent(c.prevalence_real[k]), percent(c.prevalence_generated[k]), short(c.q[k]), verdictLabel(verdictOf(i, k)),
    ];
    const row = el("tr", { className: k === state.concept ? "selected" : "", onclick: () => set({ concept: k }) },
      ...cells.map((cell) => el("td", {}, cell)));
    row.dataset.concept = k;
    row.dataset.verdict = verdictOf(i, k).name;
    return row;
  });
  const more = el("button", {
    type: "button", textContent: `${ids.length - shown} more`, hidden: ids.length <= shown,
    onclick: () => { shown += ROWS_A_PAGE; drawRows(); },
  });
  document.getElementById("rows")?.replaceChildren(
    el("p", { className: "hint", role: "status", textContent: `${ids.length} of ${site.n} concepts` }),
    el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "concepts" },
      el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows))), more);
}

/** The ids listed now, in their order; none while their numbers are on their way. */
export function listed() {
  const i = setNumber(state.model);
  return columnsOf(i) ? filtered(i) : [];
}

function exportCsv(i) {
  const c = columnsOf(i);
  const names = Object.keys(c).filter((name) => name !== "verdict");
  // What a spreadsheet would take for a formula is marked as text.
  const quote = (text) => `"${text.replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
  const value = (x) => (Number.isNaN(x) ? "" : String(x));
  const lines = filtered(i).map((k) =>
    [k, quote(site.names[k]), ...names.map((name) => value(c[name][k])), quote(verdictOf(i, k).name)].join(","));
  download(`${site.sets[i].name}.csv`, `${["concept", "name", ...names, "verdict"].join(",")}\n${lines.join("\n")}\n`, "text/csv");
}
