// The trajectories of a run in a plane of their own.

import { drawAxes } from "./axes.js";
import { drawCrossings, drawStarts } from "./marks.js";
import { clipped } from "./plane.js";
import { drawTrajectories } from "./trajectories.js";

/** A run, whole, with its crossings and its starts. */
export function drawRun(plane, colour, { run, starts, labels, view }) {
  if (!plane.width) return;
  const context = plane.begin(view);
  clipped(plane, context, () => {
    drawTrajectories(plane, context, colour, { ...run, labels, time: 1 });
    drawCrossings(plane, context, colour, run, 1);
    drawStarts(plane, context, colour, starts, labels);
  });
  drawAxes(plane, context, colour, "z₁", "z₂");
}
