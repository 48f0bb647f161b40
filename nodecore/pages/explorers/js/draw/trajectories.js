// Trajectories as lines, up to a moment.

import { classColour } from "../ui/theme.js";

const UNSEEN = 0.4; // pixels: states that lie closer are passed over

/**
 * The lines of trajectories from t = 0 to `time`, coloured by class. path: (n, nPoints, 2), one
 * state after the other; labels[n] the class of trajectory n.
 *
 * @param {Plane} plane
 * @param {CanvasRenderingContext2D} context
 * @param {Colour} colour
 */
export function drawTrajectories(plane, context, colour, { path, nPoints, labels, time }) {
  const { left, top, width, height } = plane.inner();
  const [x0, x1, y0, y1] = plane.view;
  const [scaleX, scaleY] = [width / (x1 - x0), -height / (y1 - y0)];
  const [shiftX, shiftY] = [left - x0 * scaleX, top - y1 * scaleY];
  const end = time * (nPoints - 1);
  const whole = Math.floor(end);
  context.lineWidth = 1;
  context.lineJoin = "round";
  for (const label of new Set(labels)) {
    context.strokeStyle = classColour(colour, label);
    context.beginPath();
    for (let n = 0, at = 0; n < labels.length; n++, at += 2 * nPoints) {
      if (labels[n] !== label) continue;
      let x = shiftX + scaleX * path[at];
      let y = shiftY + scaleY * path[at + 1];
      context.moveTo(x, y);
      for (let k = at + 2; k <= at + 2 * whole; k += 2) {
        const nextX = shiftX + scaleX * path[k];
        const nextY = shiftY + scaleY * path[k + 1];
        const near = Math.abs(nextX - x) + Math.abs(nextY - y) < UNSEEN;
        if (near && k < at + 2 * whole) continue;
        [x, y] = [nextX, nextY];
        context.lineTo(x, y);
      }
      if (end > whole) {
        const [endX, endY] = stateAt(path, nPoints, n, time);
        context.lineTo(shiftX + scaleX * endX, shiftY + scaleY * endY);
      }
    }
    context.stroke();
  }
}

/**
 * The state of trajectory n at a time in 0 .. 1, on the line between two of its states.
 *
 * @returns {Pixel}
 */
export function stateAt(path, nPoints, n, time) {
  const k = Math.min(Math.floor(time * (nPoints - 1)), nPoints - 2);
  const part = time * (nPoints - 1) - k;
  const at = 2 * (n * nPoints + k);
  const between = (i) => path[i] + part * (path[i + 2] - path[i]);
  return [between(at), between(at + 1)];
}
