// Colours of delta, from suppressed to exaggerated; of the page for what plotly draws.

export const PALETTES = {
  paper: ["#65c7de", "#5776b4", "#582949", "#b16243", "#e8b548"],
  "colour-blind safe": ["#2166ac", "#67a9cf", "#bdbdbd", "#ef8a62", "#b2182b"],
};

/** plotly's form of a palette. */
export function scale(name) {
  const colours = Object.hasOwn(PALETTES, name) ? PALETTES[name] : PALETTES.paper;
  return colours.map((colour, i) => [i / (colours.length - 1), colour]);
}

/** A colour of the style sheet as it is now, light or dark. */
export function themed(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** The library that draws plots. */
export function plotly() {
  if (!window.Plotly) throw new Error("plotly.min.js is missing or damaged; write the report anew with `bsjax report`");
  return window.Plotly;
}

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
