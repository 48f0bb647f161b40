// The planes of the adaption explorer: steps over the iterations, and the accuracies that decided.

import { drawAxes, powerOfTwo } from "../draw/axes.js";
import { drawSquare, drawLine, drawSample, drawUpright } from "../draw/lines.js";
import { clipped, makePlane } from "../draw/plane.js";

const STEPS = "Number of steps over the iterations: recorded, and with other constants";
const ACCURACIES =
  "Accuracy of a batch over the iterations under the training and the test solver";
const DASHES = [4, 3]; // of what is no record

/** @param {Shell} shell */
export function makePicture(shell) {
  const upper = makePlane(shell, 0.32, { role: "img", "aria-label": STEPS });
  const lower = makePlane(shell, 0.26, { role: "img", "aria-label": ACCURACIES });
  return {
    elements: [upper.element, lower.element],
    draw(colour, { history }, other, iteration) {
      if (!upper.width || !lower.width) return;
      drawSteps(upper, colour, history, other, iteration);
      drawAccuracies(lower, colour, history, iteration);
    },
    symbols: (colour, { run }) => [
      [(context, pixel) => drawSample(context, colour("ink"), pixel), "recorded steps"],
      [
        (context, pixel) => drawSample(context, colour("crossing"), pixel, DASHES),
        "other constants",
      ],
      [(context, pixel) => drawSquare(context, colour("crossing"), pixel, 3), "failed check"],
      [(context, pixel) => drawSample(context, colour("class-0"), pixel), run.solver],
      [(context, pixel) => drawSample(context, colour("class-1"), pixel), run.testSolver],
    ],
  };
}

/** The number of steps on a scale of powers of two: recorded, and from where another rule departs. */
function drawSteps(plane, colour, history, other, iteration) {
  const { iterations } = history;
  const last = iterations.at(-1);
  const exponents = (sizes) => sizes.map((size) => -Math.log2(size));
  const recorded = exponents(history.steps);
  const others = exponents(other?.steps ?? []);
  const low = Math.floor(Math.min(...recorded, ...others));
  const high = Math.max(low + 1, Math.ceil(Math.max(...recorded, ...others)));
  const since = [0, ...iterations.slice(0, -1)]; // the step of a check was taken at the one before
  const context = plane.begin([0, last, low - 0.1, high + 0.1]);
  clipped(plane, context, () => {
    drawLine(plane, context, since, recorded, colour("ink"), iteration);
    if (other && other.departs !== null) {
      context.setLineDash(DASHES);
      drawLine(plane, context, since, others, colour("crossing"), last, other.departs);
      context.setLineDash([]);
    }
    markFailed(plane, context, colour, history, recorded, iteration);
    drawUpright(plane, context, colour, iteration);
  });
  drawAxes(plane, context, colour, "iteration", "steps K", { yText: powerOfTwo });
}

function drawAccuracies(plane, colour, { iterations, train, test }, iteration) {
  const context = plane.begin([0, iterations.at(-1), 0, 1]);
  clipped(plane, context, () => {
    drawLine(plane, context, iterations, train, colour("class-0"), iteration);
    drawLine(plane, context, iterations, test, colour("class-1"), iteration);
    drawUpright(plane, context, colour, iteration);
  });
  drawAxes(plane, context, colour, "iteration", "accuracy of the batch");
}

function markFailed(plane, context, colour, { iterations, failed }, recorded, iteration) {
  failed.forEach((fails, i) => {
    if (!fails || iterations[i] > iteration) return;
    drawSquare(context, colour("crossing"), plane.toPixel(iterations[i], recorded[i]), 1.5);
  });
}
