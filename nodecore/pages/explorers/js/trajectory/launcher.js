// Trajectories of the reader's own: where a click starts one, or a cross that the keyboard moves.

import { clip, fixed } from "../ui/dom.js";
import { makeSpoken } from "../ui/spoken.js";

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const STRIDE = 1 / 40; // of a key, as a share of the view

/**
 * Listeners for a plane, and cross(), where the keyboard would start a trajectory, or null. `spoken`
 * says where the cross is, and tell(shown, labels) what became of a trajectory that was started.
 *
 * @param {Shell} shell
 */
export function makeLauncher({ model, put, ask }) {
  /** @type {Pixel | null} */
  let cross = null;
  /** @type {() => Plane} */
  let over = null;
  let told = Infinity; // how many there were: nothing is told of those at the start
  const { element: spoken, say } = makeSpoken("unseen");
  const launch = (point) => put({ launched: [...model.get("launched"), point] });

  function steer(event, [x0, x1, y0, y1]) {
    const [u, v] = MOVES[event.key] ?? [0, 0];
    if (event.key === "Enter" && cross) launch(cross);
    else if (!u && !v) return;
    event.preventDefault();
    const [x, y] = cross ?? [(x0 + x1) / 2, (y0 + y1) / 2];
    cross = [clip(x + u * STRIDE * (x1 - x0), x0, x1), clip(y + v * STRIDE * (y1 - y0), y0, y1)];
    if (u || v) say(`Cross at ${tellPoint(cross)}.`);
    ask();
  }
  return {
    spoken,
    cross: () => cross,
    /** The picture takes the keys, where it is: what the hand just used may be gone. */
    focus: () => over().canvas.focus({ preventScroll: true }),
    /** @param {() => Plane} plane */
    listeners(plane) {
      over = plane;
      return {
        onclick: (event) => launch(plane().toPoint(event.offsetX, event.offsetY)),
        onkeydown: (event) => steer(event, plane().view),
        onblur: () => {
          cross = null;
          ask();
        },
      };
    },
    tell({ dataset, launched }, labels) {
      if (launched.length > told) {
        const name = dataset.classes[labels.at(-1)];
        say(`Trajectory from ${tellPoint(launched.at(-1))}: its class at t = 1 is ${name}.`);
      }
      told = launched.length;
    },
  };
}

function tellPoint([x, y]) {
  return `z₁ = ${fixed(x, 2)}, z₂ = ${fixed(y, 2)}`.replaceAll("-", "−");
}
