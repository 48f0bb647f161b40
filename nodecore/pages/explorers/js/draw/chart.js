// Accuracy against what a slider sets, on the axis of the slider above it.

import { clipped, makePlane } from "./plane.js";

// The thumb of a slider is 16 pixels wide, and its middle stays inside the track. The names of the
// levels stand on the left, and the slider begins after them (style/controls.css).
const NAMES = 42;
const CHART_MARGIN = { left: NAMES + 8, right: 8, top: 8, bottom: 18 };
const RING = 6.5; // its radius: with its line it fits into the margins at the ends of the axis

/**
 * toPosition(value) in 0 .. 1 as for the slider; ticks: [[value, text], ...], ascending on the axis.
 * draw(colour, {curve, value, present, trained, chance}): curve maps values to accuracies, `present`
 * is the accuracy at `value` or null, and a ring marks the value of the training.
 *
 * @param {Shell} shell
 * @param {string} label
 * @param {Scale} scale
 */
export function makeChart(shell, label, { toPosition, ticks }) {
  const attributes = { role: "img", "aria-label": label };
  const plane = makePlane(shell, 0.14, attributes, CHART_MARGIN);
  plane.element.classList.add("chart");
  const place = (value, accuracy) => plane.toPixel(toPosition(value), accuracy);

  function draw(colour, { curve, value, present, trained, chance }) {
    if (!plane.width) return;
    const context = plane.begin([0, 1, 0, 1]);
    drawLevels(plane, context, colour, chance);
    drawTicks(context, colour, ticks, place);
    clipped(plane, context, () => drawCurve(context, colour, curve, place));
    nameLevels(plane, context, colour, chance);
    drawPresent(context, colour, place(value, 0), place(value, 1));
    if (curve.has(trained)) drawRing(context, colour, place(trained, curve.get(trained)));
    if (present === null) return;
    context.fillStyle = colour("accent");
    context.beginPath();
    context.arc(...place(value, present), 4.5, 0, 2 * Math.PI);
    context.fill();
  }
  return { element: plane.element, draw };
}

function drawLevels(plane, context, colour, chance) {
  context.strokeStyle = colour("line");
  context.lineWidth = 1;
  for (const level of [0, chance, 1]) {
    context.setLineDash(level === chance ? [2, 3] : []);
    context.beginPath();
    context.moveTo(...plane.toPixel(0, level));
    context.lineTo(...plane.toPixel(1, level));
    context.stroke();
  }
  context.setLineDash([]);
}

function drawTicks(context, colour, ticks, place) {
  const [first, last] = [ticks[0][0], ticks.at(-1)[0]];
  context.font = `10.5px ${colour("font")}`;
  context.fillStyle = colour("muted");
  context.textBaseline = "top";
  for (const [value, text] of ticks) {
    const shift = { [first]: ["left", -4], [last]: ["right", 6] }[value] ?? ["center", 0];
    const [x, y] = place(value, 0);
    context.textAlign = shift[0];
    context.fillText(text, x + shift[1], y + 5);
  }
}

function drawCurve(context, colour, curve, place) {
  context.strokeStyle = colour("muted");
  context.lineWidth = 1.5;
  context.beginPath();
  for (const [at, accuracy] of [...curve].sort(([a], [b]) => a - b)) {
    context.lineTo(...place(at, accuracy));
  }
  context.stroke();
}

function nameLevels(plane, context, colour, chance) {
  context.fillStyle = colour("muted");
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillText("100 %", NAMES - 3, plane.toPixel(0, 1)[1]);
  context.fillText("chance", NAMES - 3, plane.toPixel(0, chance)[1]);
}

/** A line through the chart where the slider stands. */
function drawPresent(context, colour, foot, top) {
  context.strokeStyle = colour("accent");
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(...foot);
  context.lineTo(...top);
  context.stroke();
}

/** Where the model was trained, ringed as in the book's figures. */
function drawRing(context, colour, [x, y]) {
  context.strokeStyle = colour("ink");
  context.lineWidth = 1.5;
  context.beginPath();
  context.arc(x, y, RING, 0, 2 * Math.PI);
  context.stroke();
}
