// The frame of a plane, round numbers along it, the names of its axes.

/**
 * xText(value), yText(value): what stands at a tick of an axis, where that is not the number.
 *
 * @param {Plane} plane
 * @param {CanvasRenderingContext2D} context
 * @param {Colour} colour
 * @param {{xText?: (value: number) => string, yText?: (value: number) => string}} texts
 */
export function drawAxes(plane, context, colour, xName, yName, texts = {}) {
  const { xText = formatNumber, yText = formatTick } = texts;
  const { left, top, width, height } = plane.inner();
  const [x0, x1, y0, y1] = plane.view;
  context.strokeStyle = colour("line");
  context.lineWidth = 1;
  context.strokeRect(left + 0.5, top + 0.5, width - 1, height - 1);
  context.fillStyle = colour("muted");
  context.font = `11px ${colour("font")}`;
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const x of ticks(x0, x1)) {
    context.fillText(xText(x), plane.toPixel(x, y0)[0], top + height + 4);
  }
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const y of ticks(y0, y1)) {
    context.fillText(yText(y), left - 5, plane.toPixel(x0, y)[1]);
  }
  context.fillStyle = colour("ink");
  context.textBaseline = "bottom";
  writeOver(context, colour, xName, left + width - 5, top + height - 4);
  context.textAlign = "left";
  context.fillText(yName, left, top - 4); // above the frame, where nothing crosses it
}

/**
 * Text that stays readable on lines: with a rim of the page's colour.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {Colour} colour
 */
function writeOver(context, colour, text, x, y) {
  context.strokeStyle = colour("paper");
  context.lineWidth = 3;
  context.lineJoin = "round";
  context.strokeText(text, x, y);
  context.fillText(text, x, y);
}

/** About five round numbers from a to b. */
function ticks(a, b) {
  const raw = (b - a) / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
  const first = Math.ceil(a / step);
  return Array.from({ length: Math.floor(b / step) - first + 1 }, (_, i) => (first + i) * step);
}

/** A tick on a scale of powers of two. */
export function powerOfTwo(exponent) {
  return Number.isInteger(exponent) ? formatTick(2 ** exponent) : "";
}

const LONG = 10_000; // from which on a number does not fit beside the plane

/** A tick beside the plane. */
function formatTick(value) {
  if (Math.abs(value) < LONG) return formatNumber(value);
  return value.toExponential().replace("e+", "e").replace("-", "−");
}

function formatNumber(value) {
  return value.toLocaleString("en-GB", { maximumSignificantDigits: 6 }).replace("-", "−");
}
