// A table of many rows, of which the page holds those that are in sight.

import { el } from "./elements.js";

const WHOLE = 200; // rows that are all there at once
const BESIDE = 14; // rows kept above and below what is in sight

/**
 * A scrolling table of `ids`.
 *
 * @param head its head, whose cells name the class of their column in data-width
 * @param row makes the row of an id
 * @param label what it lists, for who hears it
 * @returns {node, show(place): scrolls to a row, each(work): calls work(row) of those that are there,
 *   start(): to be called once it is on the page}
 */
export function rowsOf(ids, head, row, label) {
  const body = el("tbody");
  const widths = el("colgroup", {}, ...[...head.children].map((cell) => el("col", { className: cell.dataset.width })));
  const table = el("table", { "aria-rowcount": ids.length + 1 }, widths, el("thead", {}, head), body);
  const node = el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": label }, table);
  const isWhole = ids.length <= WHOLE;
  let [from, to] = [0, 0]; // rows that are there
  let height = 0; // of a row; all have the same
  const spacer = (n) => el("tr", { className: "spacer", "aria-hidden": "true" }, el("td", { colSpan: head.children.length, css: { height: `${n * height}px` } }));
  let made = new Map(); // rows that are there, by place
  function draw(first, end) {
    [from, to] = [first, end];
    const before = made;
    made = new Map();
    const rows = [];
    for (let place = from; place < to; place += 1) {
      const each = before.get(place) ?? row(ids[place]);
      each.setAttribute("aria-rowindex", place + 2);
      made.set(place, each);
      rows.push(each);
    }
    body.replaceChildren(...from ? [spacer(from)] : [], ...rows, ...to < ids.length ? [spacer(ids.length - to)] : []);
  }
  /** Draws anew where rows are in sight that are not there. */
  function fill() {
    if (isWhole) return;
    height ||= body.querySelector("tr:not(.spacer)")?.getBoundingClientRect().height || 0;
    if (!height) return; // not shown yet
    const first = Math.floor(node.scrollTop / height);
    const end = Math.min(ids.length, first + Math.ceil(node.clientHeight / height) + 1);
    if (first >= from && end <= to) return;
    draw(Math.max(0, first - BESIDE), Math.min(ids.length, end + BESIDE));
  }
  draw(0, isWhole ? ids.length : 2 * BESIDE);
  let isAsked = false;
  node.addEventListener("scroll", () => {
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame(() => { isAsked = false; fill(); });
  }, { passive: true });
  /** Once it is on the page: with spacers as high as the rows that they stand for. */
  function start() {
    if (isWhole) return;
    height = body.querySelector("tr")?.getBoundingClientRect().height || 0;
    draw(from, to);
  }
  function show(place) {
    const tall = height || body.querySelector("tr")?.getBoundingClientRect().height || 0;
    const room = node.clientHeight - table.tHead.offsetHeight - tall;
    const top = place * tall;
    if (top < node.scrollTop) node.scrollTop = top;
    else if (top > node.scrollTop + room) node.scrollTop = top - Math.max(0, room);
    fill();
  }
  return { node, start, show, each: (work) => { for (const each of made.values()) work(each); } };
}
