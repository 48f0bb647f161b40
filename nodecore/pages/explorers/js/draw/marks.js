// Symbols at points: starts by class, crossings, steps.

import { CLASS_MARKERS } from "../constants.js";
import { classColour } from "../ui/theme.js";

/** The outline of a class's symbol around a point: a disc, a triangle, a square, as in the book. */
export function drawMark(context, [x, y], label, size) {
  const marker = CLASS_MARKERS[label % CLASS_MARKERS.length];
  context.beginPath();
  if (marker === "o") context.arc(x, y, size, 0, 2 * Math.PI);
  else if (marker === "^") {
    context.moveTo(x, y - 1.25 * size);
    context.lineTo(x + 1.15 * size, y + 0.85 * size);
    context.lineTo(x - 1.15 * size, y + 0.85 * size);
    context.closePath();
  } else context.rect(x - 0.9 * size, y - 0.9 * size, 1.8 * size, 1.8 * size);
}

/**
 * Starts with the symbol of their class.
 *
 * @param {Plane} plane
 * @param {CanvasRenderingContext2D} context
 * @param {Colour} colour
 */
export function drawStarts(plane, context, colour, points, labels, size = 3.2) {
  for (let n = 0; n < labels.length; n++) {
    drawStart(context, colour, plane.toPixel(points[2 * n], points[2 * n + 1]), labels[n], size);
  }
}

export function drawStart(context, colour, pixel, label, size = 3.2) {
  context.lineWidth = 0.8;
  context.strokeStyle = colour("paper");
  context.fillStyle = classColour(colour, label);
  drawMark(context, pixel, label, size);
  context.fill();
  context.stroke();
}

/** A ring at each pixel, the mark of a crossing. */
export function drawRings(context, colour, pixels) {
  context.strokeStyle = colour("crossing");
  context.lineWidth = 1;
  context.beginPath();
  for (const [x, y] of pixels) {
    context.moveTo(x + 3.5, y);
    context.arc(x, y, 3.5, 0, 2 * Math.PI);
  }
  context.stroke();
}

/** An x at each pixel, the end of a step that was rejected. */
export function drawCrosses(context, colour, pixels) {
  context.strokeStyle = colour("crossing");
  context.lineWidth = 1.2;
  context.beginPath();
  for (const [x, y] of pixels) {
    context.moveTo(x - 3, y - 3);
    context.lineTo(x + 3, y + 3);
    context.moveTo(x - 3, y + 3);
    context.lineTo(x + 3, y - 3);
  }
  context.stroke();
}

/** The sign of what the keyboard moves over the plane. */
export function drawCursor(context, colour, [x, y]) {
  context.strokeStyle = colour("ink");
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(x - 8, y);
  context.lineTo(x + 8, y);
  context.moveTo(x, y - 8);
  context.lineTo(x, y + 8);
  context.stroke();
}
