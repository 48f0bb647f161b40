// The plane of the tolerance explorer: trajectories, a dot or a cross where each step ended.

import { drawAxes } from "../draw/axes.js";
import { drawCrosses, drawMark, drawStarts } from "../draw/marks.js";
import { clipped, makePlane } from "../draw/plane.js";
import { drawTrajectories } from "../draw/trajectories.js";
import { classSymbols } from "../ui/figures.js";
import { classColour } from "../ui/theme.js";

const LABEL = "Trajectories with the accepted and the rejected steps";

/** @param {Shell} shell */
export function makePicture(shell) {
  const plane = makePlane(shell, 0.72, { role: "img", "aria-label": LABEL });

  function draw(colour, { starts, labels, view }, { runs }) {
    if (!plane.width) return;
    const context = plane.begin(view);
    clipped(plane, context, () => {
      for (const run of runs) drawSteps(plane, context, colour, run, labels[run.start]);
      const rejected = runs.flatMap(({ attempts }) =>
        attempts.filter(({ accepted }) => !accepted).map(({ end }) => plane.toPixel(end[0], end[1])),
      );
      drawCrosses(context, colour, rejected);
      drawStarts(plane, context, colour, starts, labels);
    });
    drawAxes(plane, context, colour, "z₁", "z₂");
  }
  return {
    element: plane.element,
    draw,
    symbols: (colour, { trained }) => [
      ...classSymbols(colour, trained.dataset.classes),
      [(context, pixel) => drawDot(context, colour, pixel), "accepted step"],
      [(context, pixel) => drawCrosses(context, colour, [pixel]), "rejected step"],
    ],
  };
}

/** One trajectory with a dot where each of its steps ended. */
function drawSteps(plane, context, colour, { path, nPoints }, label) {
  drawTrajectories(plane, context, colour, { path, nPoints, labels: [label], time: 1 });
  context.fillStyle = classColour(colour, label);
  for (let k = 1; k < nPoints; k++) {
    drawMark(context, plane.toPixel(path[2 * k], path[2 * k + 1]), 0, 2);
    context.fill();
  }
}

function drawDot(context, colour, pixel) {
  context.fillStyle = colour("muted");
  drawMark(context, pixel, 0, 3);
  context.fill();
}
