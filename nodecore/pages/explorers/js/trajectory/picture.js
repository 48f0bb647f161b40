// The plane of the trajectory explorer: regions and field, trajectories up to a moment, marks.

import { MARKED_STEPS } from "../constants.js";
import { classify, evaluateAt } from "../compute/layers.js";
import { gridOver } from "../compute/views.js";
import { drawAxes } from "../draw/axes.js";
import { drawField, drawRegions, paintRegions } from "../draw/background.js";
import { drawCrossings, drawCursor, drawMark, drawStarts } from "../draw/marks.js";
import { clipped, makePlane } from "../draw/plane.js";
import { drawTrajectories, stateAt } from "../draw/trajectories.js";
import { classSymbols, crossingSymbol } from "../ui/figures.js";
import { classColour } from "../ui/theme.js";
import { solveOwn } from "./solve.js";

const LABEL =
  "Phase plane with the trajectories. Click to start one of your own; by keyboard, move the cross " +
  "with the arrow keys and press Enter.";
const TILE_SIZE = 96; // pixels of the regions of end states, along each axis

/** @param {Shell} shell */
export function makePicture(shell, launcher) {
  const attributes = { tabindex: 0, role: "application", "aria-label": LABEL };
  const listeners = launcher.listeners(() => plane);
  const plane = makePlane(shell, 0.72, { ...attributes, ...listeners });

  function draw(colour, shown, memory, answer) {
    const { theme } = shell.root.dataset;
    const key = pictureKey(plane, shown, answer, theme, launcher.cross());
    if (!plane.width || memory.holds("picture", key)) return; // it is there already
    memory.once("picture", key, () => true);
    const { starts, labels, run, nSteps, time, net, launched, tableau } = shown;
    const own = memory.once("own", `${shown.key} ${launched}`, () =>
      solveOwn(net, tableau, nSteps, launched),
    );
    launcher.tell(shown, own.labels);
    const context = plane.begin(shown.view);
    clipped(plane, context, () => {
      const tile = paintBackground(colour, shown, plane.view, memory, answer, theme);
      if (tile) drawRegions(plane, context, tile);
      if (shown.showField) {
        drawField(plane, context, colour, (points) => evaluateAt(net.field, points));
      }
      drawTrajectories(plane, context, colour, { ...run, labels, time });
      drawCrossings(plane, context, colour, run, time);
      if (nSteps <= MARKED_STEPS) drawStates(plane, context, colour, shown);
      drawStarts(plane, context, colour, starts, labels);
      drawHeads(plane, context, colour, shown);
      drawOwn(plane, context, colour, own, time);
      const cross = launcher.cross();
      if (cross) drawCursor(context, colour, plane.toPixel(cross[0], cross[1]));
    });
    drawAxes(plane, context, colour, "z₁", "z₂");
  }
  return {
    element: plane.element,
    draw,
    symbols: (colour, { dataset }) => [
      ...classSymbols(colour, dataset.classes),
      crossingSymbol(colour),
    ],
  };
}

/** All that a picture depends on; a canvas of another size is empty. */
function pictureKey({ width, height }, shown, answer, theme, cross) {
  const { key, keys, regions, showField, launched, time } = shown;
  const { id, size } = answer.regions ?? {};
  return JSON.stringify([
    ...[key, keys.place, width, height, theme, cross, time],
    ...[regions, id, size, showField, launched],
  ]);
}

/** The regions that were asked for as a picture; null for none, or where they are not there yet. */
function paintBackground(colour, { regions, net, keys }, view, { once }, answer, theme) {
  if (regions === "ends") {
    return once("ends", `${keys.place} ${theme}`, () =>
      paintRegions(colour, classify(net.head, gridOver(view, TILE_SIZE)), TILE_SIZE),
    );
  }
  if (regions !== "starts" || answer.regions?.place !== keys.place) return null;
  const { id, regions: classes, size } = answer.regions;
  return once("tile", `${id} ${size} ${theme}`, () => paintRegions(colour, classes, size));
}

/** A dot at each state of the solver that t has passed. */
function drawStates(plane, context, colour, { run, labels, nSteps, time }) {
  for (let n = 0; n < labels.length; n++) {
    context.fillStyle = classColour(colour, labels[n]);
    for (let k = 1; k <= Math.floor(time * nSteps + 1e-9); k++) {
      const [x, y] = plane.toPixel(...stateAt(run.path, run.nPoints, n, k / nSteps));
      context.fillRect(x - 1.2, y - 1.2, 2.4, 2.4);
    }
  }
}

/** Where each trajectory is now. */
function drawHeads(plane, context, colour, { run, labels, time }) {
  if (time >= 1 || time <= 0) return;
  for (let n = 0; n < labels.length; n++) {
    const [x, y] = plane.toPixel(...stateAt(run.path, run.nPoints, n, time));
    context.fillStyle = classColour(colour, labels[n]);
    context.beginPath();
    context.arc(x, y, 2.6, 0, 2 * Math.PI);
    context.fill();
  }
}

/** The reader's trajectories in ink; the class that the model gives them at the end. */
function drawOwn(plane, context, colour, { path, nPoints, labels }, time) {
  const steps = Math.floor(time * (nPoints - 1));
  context.strokeStyle = colour("ink");
  context.lineWidth = 2;
  for (let n = 0; n < labels.length; n++) {
    const first = 2 * n * nPoints;
    const head = plane.toPixel(...stateAt(path, nPoints, n, time));
    context.beginPath();
    for (let at = first; at <= first + 2 * steps; at += 2) {
      context.lineTo(...plane.toPixel(path[at], path[at + 1]));
    }
    context.lineTo(...head);
    context.stroke();
    const [x, y] = plane.toPixel(path[first], path[first + 1]);
    context.fillStyle = colour("paper");
    context.beginPath();
    context.arc(x, y, 3.5, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
    context.fillStyle = classColour(colour, labels[n]);
    drawMark(context, head, labels[n], 5);
    context.fill();
    context.stroke();
  }
}
