// Symbols at points: starts by class, crossings, steps.

import { CLASS_MARKERS } from "../constants.js";
import { classColour } from "../ui/theme.js";

const RING_GAP = 0.5; // pixels: rings closer than that look like one
const ROW = 2 ** 16; // places across, more than any screen has

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

/** A disc around a pixel, or with `open` its outline. */
export function drawDisc(context, colour, [x, y], size, open = false) {
  context.beginPath();
  context.arc(x, y, size, 0, 2 * Math.PI);
  context.lineWidth = 1.5;
  context[open ? "strokeStyle" : "fillStyle"] = colour;
  context[open ? "stroke" : "fill"]();
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

/**
 * A ring at each crossing that is complete at a time; one where many would lie on each other, for
 * trajectories may have a hundred thousand.
 *
 * @param {Plane} plane
 * @param {CanvasRenderingContext2D} context
 * @param {Colour} colour
 * @param {Run} run
 * @param {number} time
 */
export function drawCrossings(plane, context, colour, { crossings, nPoints }, time) {
  const { points, times } = crossings;
  const { width, height } = plane;
  const past = time * (nPoints - 1);
  const places = new Set();
  for (let i = 0; i < times.length; i++) {
    if (times[i] > past) continue;
    const [x, y] = plane.toPixel(points[2 * i], points[2 * i + 1]);
    if (!(x > 0 && x < width && y > 0 && y < height)) continue;
    places.add(Math.round(x / RING_GAP) + Math.round(y / RING_GAP) * ROW);
  }
  const pixels = [...places].map((place) => [place % ROW, Math.floor(place / ROW)]);
  drawRings(
    context,
    colour,
    pixels.map(([x, y]) => [x * RING_GAP, y * RING_GAP]),
  );
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
