// Elements of the page; text is always set as text.

import { guarded } from "./faults.js";

/** An element with properties, listeners (onclick, ...), attributes ("aria-label") and children. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role" || key === "for") node.setAttribute(key, value);
    else if (key === "css") for (const [k, v] of Object.entries(value)) node.style.setProperty(k, v);
    else node[key] = key.startsWith("on") ? guarded(value) : value;
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** A choice from a list of [value, text]. */
export function choice(label, options, value, onchange) {
  const select = el("select", { onchange: () => onchange(select.value) });
  for (const [key, text] of options) select.append(el("option", { value: key, textContent: text }));
  select.value = value;
  return el("label", {}, `${label} `, select);
}

/** Offers text as a file. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** A line that is read out and goes away. */
export function say(text) {
  const status = document.getElementById("status");
  status.textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { status.textContent = ""; }, 3000);
}

/** A button that puts something on the clipboard. */
export function copyButton(text, label, write) {
  const onclick = async () => {
    try {
      await write();
      say("copied");
    } catch {
      say("the browser does not allow copying here");
    }
  };
  return el("button", { type: "button", className: "copy", textContent: text, "aria-label": label, onclick });
}

/** Lets the browser paint and answer before the work goes on. */
export const breathe = () => new Promise((done) => { setTimeout(done); });
