// What is shown, kept in the address, so that a link shows the same.

export const DEFAULTS = {
  view: "findings", finding: 0, model: "", second: "", concept: -1, colour: "verdict", size: "fires", q: "",
  low: 0, high: 1, fires: 0, verdict: "", all: false, sort: "strength", down: false, score: "", heat: 0.7,
  x: "ratio", image: "", mark: -1, caption: "", shows: -1, arm: "both",
};
// Not in a notebook's frame.
export const hasAddress = location.protocol !== "about:";
const listeners = [];
export const state = { ...DEFAULTS };
// A set of concepts caught with the lasso; not in the address, which it would not fit.
export const lasso = { ids: null };

// Safari lets a page change its address 100 times in 30 s and then throws. So many changes are written
// at once, and then one per pause: 30 + 30 s / 0.5 s are less than 100.
const BURST = 30;
const PAUSE = 500; // ms
const REFUSED_PAUSE = 5000; // ms until a browser that refused is asked again
const writing = { left: BURST, since: 0, timer: null, isStep: false };

/** Changes what is shown; a new concept or view can be gone back from. */
export function set(changes) {
  const isStep = ["concept", "view", "finding", "image"].some((key) => key in changes && changes[key] !== state[key]);
  Object.assign(state, changes);
  writing.isStep ||= isStep;
  if (writing.timer === null) writeAddress();
  tell(new Set(Object.keys(changes)));
}

/** Writes the address now, or the newest one as soon as that is allowed. */
function writeAddress() {
  writing.timer = null;
  if (!hasAddress) return;
  const now = performance.now();
  writing.left = Math.min(BURST, writing.left + (now - writing.since) / PAUSE);
  writing.since = now;
  let pause = (1 - writing.left) * PAUSE;
  if (pause <= 0) {
    const hash = `#${address()}`;
    try {
      if (writing.isStep) history.pushState(null, "", hash);
      else history.replaceState(null, "", hash);
      writing.left -= 1;
      writing.isStep = false;
      return;
    } catch {
      pause = REFUSED_PAUSE;
    }
  }
  writing.timer = setTimeout(writeAddress, Math.ceil(pause));
}

/** Calls back with the set of changed keys. */
export function listen(callback) {
  listeners.push(callback);
}

/** Tells everyone that these keys changed. */
export function tell(keys) {
  for (const listener of listeners) listener(keys);
}

/** Everything that is not as it was at first, as a query. */
export function address() {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (value !== DEFAULTS[key]) query.set(key, String(value));
  }
  return query.toString();
}

/** A link to what is shown, which the address may not say yet. */
export const link = () => `${location.href.split("#")[0]}#${address()}`;

/** Takes over what the address says, in place of what was still to be written there. */
export function readAddress() {
  clearTimeout(writing.timer);
  Object.assign(writing, { timer: null, isStep: false });
  const query = new URLSearchParams(location.hash.slice(1));
  for (const [key, standard] of Object.entries(DEFAULTS)) {
    const text = query.get(key);
    if (text === null) state[key] = standard;
    else if (typeof standard === "number") state[key] = text.trim() && Number.isFinite(+text) ? +text : standard;
    else if (typeof standard === "boolean") state[key] = text === "true";
    else state[key] = text;
  }
  for (const key of ["concept", "mark", "shows"]) if (!Number.isInteger(state[key])) state[key] = DEFAULTS[key];
}
