// What is shown, kept in the address, so that a link shows the same.

const DEFAULTS = {
  view: "map", model: "", second: "", concept: -1, colour: "paper", size: "fires", q: "",
  low: 0, high: 1, fires: 0, verdict: "", sort: "delta", down: false, score: "cosine", heat: 0.7,
  x: "relative",
};
const listeners = [];
export const state = { ...DEFAULTS };
// A set of concepts caught with the lasso; not in the address, which it would not fit.
export const lasso = { ids: null };

/** Changes what is shown; a new concept or view can be gone back from. */
export function set(changes) {
  const isStep = ["concept", "view"].some((key) => key in changes && changes[key] !== state[key]);
  Object.assign(state, changes);
  const hash = `#${address()}`;
  if (isStep) history.pushState(null, "", hash);
  else history.replaceState(null, "", hash);
  tell(new Set(Object.keys(changes)));
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

/** Takes over what the address says. */
export function readAddress() {
  const query = new URLSearchParams(location.hash.slice(1));
  for (const [key, standard] of Object.entries(DEFAULTS)) {
    const text = query.get(key);
    if (text === null) state[key] = standard;
    else if (typeof standard === "number") state[key] = Number.isFinite(+text) ? +text : standard;
    else if (typeof standard === "boolean") state[key] = text === "true";
    else state[key] = text;
  }
}
