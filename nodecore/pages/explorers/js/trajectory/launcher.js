// Trajectories of the reader's own: where a click starts one, or a cross that the keyboard moves.

import { clip } from "../ui/dom.js";

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const STRIDE = 1 / 40; // of a key, as a share of the view

/**
 * Listeners for a plane, and cross(), where the keyboard would start a trajectory, or null.
 *
 * @param {Shell} shell
 */
export function makeLauncher({ model, put, ask }) {
  /** @type {Pixel | null} */
  let cross = null;
  const launch = (point) => put({ launched: [...model.get("launched"), point] });

  function steer(event, [x0, x1, y0, y1]) {
    const [u, v] = MOVES[event.key] ?? [0, 0];
    if (event.key === "Enter" && cross) launch(cross);
    else if (!u && !v) return;
    event.preventDefault();
    const [x, y] = cross ?? [(x0 + x1) / 2, (y0 + y1) / 2];
    cross = [clip(x + u * STRIDE * (x1 - x0), x0, x1), clip(y + v * STRIDE * (y1 - y0), y0, y1)];
    ask();
  }
  return {
    cross: () => cross,
    /** @param {() => Plane} plane */
    listeners: (plane) => ({
      onclick: (event) => launch(plane().toPoint(event.offsetX, event.offsetY)),
      onkeydown: (event) => steer(event, plane().view),
      onblur: () => {
        cross = null;
        ask();
      },
    }),
  };
}
