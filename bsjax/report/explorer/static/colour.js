// Colours of delta, from suppressed to exaggerated; of the page for what plotly draws.

import { site } from "./concepts.js";
import { el } from "./elements.js";

/** plotly's form of a palette. */
export function scale(name) {
  const { palettes } = site;
  const colours = Object.hasOwn(palettes, name) ? palettes[name] : Object.values(palettes)[0];
  return colours.map((colour, i) => [i / (colours.length - 1), colour]);
}

/** A verdict in its colour, light or dark. */
export function verdictLabel({ name, symbol, light, dark }, meaning = "") {
  return el("span", { className: "verdict", title: meaning, css: { "--light": light, "--dark": dark } },
    el("span", { "aria-hidden": "true", textContent: `${symbol} ` }), name);
}

/** A colour of the style sheet as it is now, light or dark. */
export function themed(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Whether the page is dark now. */
export const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

let arriving = null; // plotly, once a plot was asked for

/** The library that draws plots, once it is there: it is large, and not every view has a plot. */
export function needPlotly() {
  arriving ??= new Promise((resolve, reject) => {
    const kept = document.getElementById("plotly-source"); // of a page that bears everything itself
    const script = document.createElement("script");
    const end = () => (window.Plotly ? resolve(window.Plotly) : reject(
      new Error("plotly.min.js is missing or damaged; write the report anew with `bsjax report`")));
    script.onload = end;
    script.onerror = end;
    if (kept) script.textContent = kept.textContent;
    else script.src = "plotly.min.js";
    document.head.append(script);
    if (kept) end();
  }).catch((error) => {
    arriving = null; // asked for again, it may be there
    throw error;
  });
  return arriving;
}

/** The same, where a plot is drawn already. */
export const plotly = () => window.Plotly;

/** What every plot has in common. */
export function plotLayout(more) {
  const ink = themed("ink");
  const axis = {
    gridcolor: themed("line"), zerolinecolor: themed("line"), linecolor: themed("line"),
    tickfont: { color: themed("soft") }, title: { font: { color: ink } },
  };
  const layout = {
    paper_bgcolor: themed("paper"), plot_bgcolor: themed("paper"), font: { color: ink },
    margin: { l: 8, r: 8, t: 8, b: 8 }, showlegend: false, hovermode: "closest",
    hoverlabel: { bgcolor: themed("card"), bordercolor: themed("line"), font: { color: ink } },
    ...more,
  };
  layout.xaxis = { ...axis, ...more.xaxis };
  layout.yaxis = { ...axis, ...more.yaxis };
  return layout;
}

export const PLOT_CONFIG = { responsive: true, displaylogo: false, scrollZoom: true };

/** Text for plotly, which takes some markup: captions are text alone. */
export function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
