// Mouse, fingers, wheel and keys on a plot: move, zoom, point at, click, catch with a lasso.

const MOVED = 4; // pixels from which a press is no click
const STEP = 1.4; // zoom of a key
const WAY = 0.15; // of the shown part, that a key moves
const MOST_TURN = 100; // of a wheel at once
const E_FOLD = 250; // turn of a wheel that zooms e times
const PINCHED = 6; // what two fingers on a trackpad turn counts so many times

/**
 * @param plane the element that points lie in
 * @param plot {pan(dx, dy), zoom(factor, x, y), showAll(), point(x, y), leave(), click(x, y), lasso(points, isDone), isCatching()}
 */
export function takeHands(plane, plot) {
  const down = new Map(); // what presses: id -> {x, y}
  let press = null; // {x, y, isMoved, caught: points of the lasso, or null}
  const at = (event) => {
    const { left, top } = plane.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  };
  plane.addEventListener("wheel", (event) => {
    event.preventDefault();
    const turn = event.deltaY * (event.deltaMode ? 30 : 1) * (event.ctrlKey ? PINCHED : 1);
    const { x, y } = at(event);
    plot.zoom(Math.exp(-Math.max(-MOST_TURN, Math.min(MOST_TURN, turn)) / E_FOLD), x, y);
  }, { passive: false });
  plane.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const place = at(event);
    plane.setPointerCapture(event.pointerId);
    down.set(event.pointerId, place);
    if (down.size > 1) {
      if (press?.caught) plot.lasso(null, false);
      press = { isMoved: true, caught: null };
    } else press = { ...place, isMoved: false, caught: plot.isCatching() || event.shiftKey ? [place] : null };
  });
  plane.addEventListener("pointermove", (event) => {
    const place = at(event);
    const before = down.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") plot.point(place.x, place.y);
      return;
    }
    if (down.size > 1) {
      pinch(event.pointerId, before, place);
    } else if (press) {
      press.isMoved ||= Math.hypot(place.x - press.x, place.y - press.y) >= MOVED;
      if (!press.isMoved) return;
      plot.leave();
      if (press.caught) plot.lasso([...press.caught, place], false);
      if (press.caught) press.caught.push(place);
      else plot.pan(place.x - before.x, place.y - before.y);
    }
    down.set(event.pointerId, place);
  });
  function pinch(id, before, place) {
    const [, other] = [...down].find(([each]) => each !== id);
    const far = (a) => Math.max(1, Math.hypot(a.x - other.x, a.y - other.y));
    plot.pan((place.x - before.x) / 2, (place.y - before.y) / 2);
    plot.zoom(far(place) / far(before), (place.x + other.x) / 2, (place.y + other.y) / 2);
  }
  plane.addEventListener("pointerup", (event) => {
    if (!down.delete(event.pointerId) || down.size) return;
    const done = press;
    press = null;
    if (done?.caught && done.isMoved) plot.lasso(done.caught, true);
    else if (done && !done.isMoved) plot.click(done.x, done.y);
  });
  plane.addEventListener("pointercancel", (event) => { down.delete(event.pointerId); press = null; });
  plane.addEventListener("pointerleave", () => plot.leave());
  plane.addEventListener("dblclick", () => plot.showAll());
  plane.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== plane) return;
    const [width, height] = [plane.clientWidth, plane.clientHeight];
    const acts = {
      ArrowLeft: () => plot.pan(WAY * width, 0), ArrowRight: () => plot.pan(-WAY * width, 0),
      ArrowUp: () => plot.pan(0, WAY * height), ArrowDown: () => plot.pan(0, -WAY * height),
      "+": () => plot.zoom(STEP, width / 2, height / 2), "=": () => plot.zoom(STEP, width / 2, height / 2),
      "-": () => plot.zoom(1 / STEP, width / 2, height / 2), 0: () => plot.showAll(),
    };
    if (!Object.hasOwn(acts, event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    acts[event.key]();
  });
}
