// What went wrong, in a bar at the foot of the page: a page that fails in silence looks like a result.

/** Shows what went wrong; the page goes on. */
export function fault(error) {
  const text = (error?.message ?? String(error)) || "an error without a message";
  console.error(error);
  const bar = document.getElementById("fault");
  if (!bar) return;
  bar.querySelector("span").textContent = error?.isNoFault ? text : `This page went wrong: ${text}`;
  bar.hidden = false;
}

/** The same function, whose errors are shown, also those of what it awaits. */
export function guarded(work) {
  return async (...given) => {
    try {
      return await work(...given);
    } catch (error) {
      fault(error);
      return undefined;
    }
  };
}

/** Shows also the errors that nobody caught; what a data file cannot do, its loader says. */
export function watchFaults() {
  document.getElementById("no-fault").onclick = () => { document.getElementById("fault").hidden = true; };
  window.addEventListener("error", (event) => {
    const isData = /\/data\/[^?#]*\.js$/.test(event.filename ?? "");
    const isHarmless = /ResizeObserver loop/.test(event.message);
    if (!isData && !isHarmless && event.message && event.message !== "Script error.") fault(event.error ?? event);
  });
  window.addEventListener("unhandledrejection", (event) => fault(event.reason));
}
