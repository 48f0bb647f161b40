// The plane of cost and accuracy: where a training stands, beside trainings of fixed steps.

import { drawAxes, powerOfTwo } from "../draw/axes.js";
import { drawDisc } from "../draw/marks.js";
import { clipped, makePlane } from "../draw/plane.js";
import { lastCheck, lastLook } from "./rule.js";

const LABEL =
  "Test accuracy against evaluations per iteration so far, beside trainings of fixed steps";
const ROOM = 0.04; // of the height, above an accuracy of 1, for half a disc
const SIZES = { fixed: 2.5, present: 4.5 };

/** @param {Shell} shell */
export function makeBalance(shell) {
  const plane = makePlane(shell, 0.75, { role: "img", "aria-label": LABEL });
  return {
    element: plane.element,
    draw(colour, { run, history }, iteration) {
      if (!plane.width) return;
      const context = plane.begin(viewOf(run));
      clipped(plane, context, () => {
        drawFixed(plane, context, colour, run);
        drawTrail(plane, context, colour, history, iteration);
      });
      drawAxes(plane, context, colour, "evaluations per iteration", "test accuracy", {
        xText: powerOfTwo,
      });
    },
    symbols: (colour, { run }) => [
      [disc(colour("accent"), SIZES.present), "this training so far"],
      [disc(colour("accent"), SIZES.present, true), "its exact flow, in the end"],
      ...(run.fixed.length
        ? [
            [disc(colour("muted"), SIZES.fixed), "fixed steps, as trained"],
            [disc(colour("muted"), SIZES.fixed, true), "fixed steps, exact flow"],
          ]
        : []),
    ],
  };
}

function disc(colour, size, open = false) {
  return (context, pixel) => drawDisc(context, colour, pixel, size, open);
}

/** The part of the plane that holds all seeds of a run, so that the axes stay as the seed changes. */
function viewOf({ histories, fixed }) {
  const costs = fixed.map(([nfe]) => nfe).concat(histories.flatMap(({ spent }) => spent));
  const accuracies = fixed
    .flatMap(([, ...both]) => both)
    .concat(histories.flatMap((each) => [...each.accuracies, each.exact]))
    .filter((accuracy) => accuracy !== null);
  const low = Math.max(0, Math.floor(10 * Math.min(1, ...accuracies) - 0.5) / 10);
  const [first, last] = [Math.min(...costs), Math.max(...costs)].map(Math.log2);
  /** @type {View} */
  const view = [Math.floor(first) - 0.3, Math.ceil(last) + 0.3, low, 1 + ROOM * (1 - low)];
  return view;
}

/** Means over the seeds of each training of fixed steps. */
function drawFixed(plane, context, colour, { fixed }) {
  for (const [nfe, own, exact] of fixed) {
    const place = (accuracy) => plane.toPixel(Math.log2(nfe), accuracy);
    if (own !== null) drawDisc(context, colour("muted"), place(own), SIZES.fixed);
    if (exact !== null) drawDisc(context, colour("muted"), place(exact), SIZES.fixed, true);
  }
}

/** From look to look to the present point; nothing before the first look. */
function drawTrail(plane, context, colour, history, iteration) {
  const { iterations, looks, spent, accuracies, exact } = history;
  const last = lastLook(history, iteration);
  if (last < 0) return;
  const place = (check, accuracy) => plane.toPixel(Math.log2(spent[check]), accuracy);
  const present = place(lastCheck(history, iteration), accuracies[last]);
  context.strokeStyle = colour("ink");
  context.lineWidth = 1;
  context.beginPath();
  for (let look = 0; look <= last; look++) {
    context.lineTo(...place(lastCheck(history, looks[look]), accuracies[look]));
  }
  context.lineTo(...present);
  context.stroke();
  drawDisc(context, colour("accent"), present, SIZES.present);
  if (iteration >= iterations.at(-1) && exact !== null) {
    drawDisc(context, colour("accent"), place(iterations.length - 1, exact), SIZES.present, true);
  }
}
