// Tables as files of comma-separated values, which spreadsheets open.

import { site } from "./concepts.js";
import { download, el } from "./elements.js";

const DIGITS = 7; // as many as a float32 has

/** A cell: text in quotes, a number as the tables of bsjax have it, nothing where nothing is known. */
export function cell(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  if (typeof value === "number") return String(Number.isSafeInteger(value) ? value : Number(value.toPrecision(DIGITS))).replace("Infinity", "inf");
  if (typeof value !== "string") return String(value);
  // What a spreadsheet would take for a formula is marked as text.
  return `"${value.replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
}

/** Offers a table as a file: its heads and rows of values. */
export function downloadCsv(name, heads, rows) {
  const lines = [heads, ...rows].map((row) => row.map((value, place) => (row === heads ? heads[place] : cell(value))).join(","));
  download(`${name}.csv`, `${lines.join("\n")}\n`, "text/csv");
}

/** A button that does so; `make` gives [name, heads, rows] or a promise of it. */
export const csvButton = (text, make) => el("button", {
  type: "button", className: "csv", textContent: text, onclick: async () => downloadCsv(...await make()),
});

/** The same of the correlations of every two models. */
export const matrixButton = () => csvButton("CSV of the matrix", () => {
  const rows = site.sets.flatMap((a, i) => site.sets.map((b, j) =>
    [a.name, b.name, i === j ? null : site.correlations[i][j], site.correlation_texts[i][j]]));
  return ["models", ["a", "b", "r", "in_words"], rows];
});
