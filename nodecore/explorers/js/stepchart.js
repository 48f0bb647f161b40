// Accuracy against the number of test steps, on the axis of the slider above it.

import { clipped, makePlane } from "./plane.js";

// The thumb of a slider is 16 pixels wide, and its middle stays inside the track.
const CHART_MARGIN = { left: 8, right: 8, top: 6, bottom: 18 };

/** draw(colour, {curve, present, nSteps, trained, chance}): curve maps n_steps to an accuracy. */
export function makeStepChart(largest, redraw) {
  const attributes = {
    role: "img",
    "aria-label": "Test accuracy against the number of test steps",
  };
  const plane = makePlane(0.14, redraw, attributes, CHART_MARGIN);
  plane.element.classList.add("chart");

  function draw(colour, { curve, present, nSteps, trained, chance }) {
    if (!plane.width) return;
    const context = plane.begin([0, Math.log2(largest), 0, 1]);
    const place = (n, value) => plane.toPixel(Math.log2(n), value);
    drawFrame(context, colour, place, chance);
    clipped(plane, context, () => {
      context.strokeStyle = colour("muted");
      context.lineWidth = 1.5;
      context.beginPath();
      for (const [n, value] of [...curve].sort(([a], [b]) => a - b)) {
        context.lineTo(...place(n, value));
      }
      context.stroke();
    });
    context.strokeStyle = colour("accent");
    context.beginPath();
    context.moveTo(...place(nSteps, 0));
    context.lineTo(...place(nSteps, 1));
    context.stroke();
    if (curve.has(trained)) drawRing(context, colour, place(trained, curve.get(trained)));
    if (!present) return;
    context.fillStyle = colour("accent");
    context.beginPath();
    context.arc(...place(...present), 4.5, 0, 2 * Math.PI);
    context.fill();
  }

  function drawFrame(context, colour, place, chance) {
    context.font = `10.5px ${colour("font")}`;
    context.strokeStyle = colour("line");
    context.lineWidth = 1;
    for (const level of [0, chance, 1]) {
      context.setLineDash(level === chance ? [2, 3] : []);
      context.beginPath();
      context.moveTo(...place(1, level));
      context.lineTo(...place(largest, level));
      context.stroke();
    }
    context.setLineDash([]);
    context.fillStyle = colour("muted");
    context.textBaseline = "top";
    for (let n = 1; n <= largest; n *= 2) {
      context.textAlign = n === 1 ? "left" : n === largest ? "right" : "center";
      const [x, y] = place(n, 0);
      context.fillText(String(n), n === 1 ? x - 4 : n === largest ? x + 6 : x, y + 5);
    }
    context.textAlign = "left";
    context.fillText("100 %", place(1, 1)[0], place(1, 1)[1] + 3);
    context.textBaseline = "bottom";
    context.fillText("chance", place(1, chance)[0], place(1, chance)[1] - 1);
  }

  /** Where the model was trained, ringed as in the book's figures. */
  function drawRing(context, colour, [x, y]) {
    context.strokeStyle = colour("ink");
    context.lineWidth = 1.5;
    context.beginPath();
    context.arc(x, y, 7.5, 0, 2 * Math.PI);
    context.stroke();
  }

  return { element: plane.element, draw, end: plane.end };
}
