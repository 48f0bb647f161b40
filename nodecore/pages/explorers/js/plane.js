// A canvas with axes: a part of the plane, sharp on every screen, and what is drawn there.

import { classColour, h } from "./ui.js";

const MARGIN = { left: 36, right: 18, top: 8, bottom: 26 };

/**
 * A canvas that keeps its aspect (height / width) as the page changes; redraw() at once after a
 * change, since the canvas is empty then.
 *
 * begin(view) clears it and sets the part of the plane, [x0, x1, y0, y1]; it returns the context.
 */
export function makePlane(aspect, redraw, attributes, margin = MARGIN) {
  const canvas = h("canvas", attributes);
  const element = h("div", { class: "plane", style: `aspect-ratio: ${1 / aspect}` }, canvas);
  const plane = { element, canvas, view: [0, 1, 0, 1], width: 0, height: 0, margin };
  const observer = new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === plane.width && contentRect.height === plane.height) return;
    fit(contentRect.width, contentRect.height);
    redraw();
  });
  observer.observe(element);

  function fit(width, height) {
    const ratio = window.devicePixelRatio || 1;
    Object.assign(plane, { width, height });
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  plane.begin = (view) => {
    plane.view = view;
    const context = canvas.getContext("2d");
    const ratio = canvas.width / plane.width;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, plane.width, plane.height);
    return context;
  };
  plane.inner = () => ({
    left: margin.left,
    top: margin.top,
    width: plane.width - margin.left - margin.right,
    height: plane.height - margin.top - margin.bottom,
  });
  plane.toPixel = (x, y) => {
    const { left, top, width, height } = plane.inner();
    const [x0, x1, y0, y1] = plane.view;
    return [left + ((x - x0) / (x1 - x0)) * width, top + ((y1 - y) / (y1 - y0)) * height];
  };
  plane.toPoint = (px, py) => {
    const { left, top, width, height } = plane.inner();
    const [x0, x1, y0, y1] = plane.view;
    return [x0 + ((px - left) / width) * (x1 - x0), y1 - ((py - top) / height) * (y1 - y0)];
  };
  plane.end = () => observer.disconnect();
  return plane;
}

/** Draw only inside the axes. */
export function clipped(plane, context, draw) {
  const { left, top, width, height } = plane.inner();
  context.save();
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  draw();
  context.restore();
}

// --- axes ---------------------------------------------------------------------------------------

/** yText(value): what stands at a tick of the y axis, where that is not the number. */
export function drawAxes(plane, context, colour, xName, yName, yText = formatTick) {
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
    context.fillText(formatTick(x), plane.toPixel(x, y0)[0], top + height + 4);
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
  context.textBaseline = "top";
  writeOver(context, colour, yName, left + 6, top + 5);
}

/** Text that stays readable on lines: with a rim of the page's colour. */
export function writeOver(context, colour, text, x, y) {
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

function formatTick(value) {
  return value.toLocaleString("en-GB", { maximumSignificantDigits: 6 }).replace("-", "−");
}

// --- trajectories -------------------------------------------------------------------------------

/**
 * The lines of trajectories from t = 0 to `time`, coloured by class. path: (n, nPoints, 2), one
 * state after the other; label(i) the class of trajectory i.
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
      context.moveTo(shiftX + scaleX * path[at], shiftY + scaleY * path[at + 1]);
      for (let k = at + 2; k <= at + 2 * whole; k += 2) {
        context.lineTo(shiftX + scaleX * path[k], shiftY + scaleY * path[k + 1]);
      }
      if (end > whole) {
        const [x, y] = stateAt(path, nPoints, n, time);
        context.lineTo(shiftX + scaleX * x, shiftY + scaleY * y);
      }
    }
    context.stroke();
  }
}

/** The state of trajectory n at a time in 0 .. 1, on the line between two of its states. */
export function stateAt(path, nPoints, n, time) {
  const k = Math.min(Math.floor(time * (nPoints - 1)), nPoints - 2);
  const part = time * (nPoints - 1) - k;
  const at = 2 * (n * nPoints + k);
  return [0, 1].map((d) => path[at + d] + part * (path[at + 2 + d] - path[at + d]));
}

/** The symbol of a class around a point: a disc, a triangle, a square. */
export function drawMark(context, [x, y], label, size) {
  context.beginPath();
  if (label % 3 === 0) context.arc(x, y, size, 0, 2 * Math.PI);
  else if (label % 3 === 1) {
    context.moveTo(x, y - 1.25 * size);
    context.lineTo(x + 1.15 * size, y + 0.85 * size);
    context.lineTo(x - 1.15 * size, y + 0.85 * size);
    context.closePath();
  } else context.rect(x - 0.9 * size, y - 0.9 * size, 1.8 * size, 1.8 * size);
}

/** Starts with the symbol of their class. */
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

/** Classes (size, size), row by row from the top, as the pixels of a picture. */
export function paintRegions(colour, regions, size) {
  const tile = h("canvas", { width: size, height: size });
  const context = tile.getContext("2d");
  const tints = [0, 1, 2].map((label) => parseColour(context, classColour(colour, label)));
  const image = new ImageData(size, size);
  regions.forEach((label, i) => image.data.set(tints[label % 3], 4 * i));
  context.putImageData(image, 0, 0);
  return tile;
}

/** What paintRegions painted, over the whole view. */
export function drawRegions(plane, context, tile) {
  const { left, top, width, height } = plane.inner();
  context.imageSmoothingEnabled = false;
  context.drawImage(tile, left, top, width, height);
}

/** A colour as a tint: red, green, blue and how much it covers, to 255. */
function parseColour(context, text) {
  context.fillStyle = text; // the context turns any colour into #rrggbb
  const number = parseInt(context.fillStyle.slice(1), 16);
  return [number >> 16, (number >> 8) & 255, number & 255, 46];
}

/** Arrows of a field, value(points) on points (n, 2), on a grid over the view. */
export function drawField(plane, context, colour, value) {
  const { width, height } = plane.inner();
  const [x0, x1, y0, y1] = plane.view;
  const cell = Math.max(22, width / 24);
  const [columns, rows] = [Math.floor(width / cell), Math.floor(height / cell)];
  const points = new Float64Array(2 * columns * rows);
  for (let i = 0; i < columns * rows; i++) {
    points[2 * i] = x0 + (((i % columns) + 0.5) / columns) * (x1 - x0);
    points[2 * i + 1] = y0 + ((Math.floor(i / columns) + 0.5) / rows) * (y1 - y0);
  }
  const arrows = value(points);
  const [scaleX, scaleY] = [width / (x1 - x0), -height / (y1 - y0)];
  let fastest = 0;
  for (let i = 0; i < arrows.length; i += 2) {
    fastest = Math.max(fastest, Math.hypot(arrows[i] * scaleX, arrows[i + 1] * scaleY));
  }
  context.strokeStyle = colour("field");
  context.lineWidth = 1;
  context.beginPath();
  for (let i = 0; i < arrows.length; i += 2) {
    const [u, v] = [arrows[i] * scaleX, arrows[i + 1] * scaleY];
    const speed = Math.hypot(u, v);
    if (!(speed > 0)) continue;
    const length = 0.42 * cell * Math.sqrt(speed / fastest); // the slow ones stay visible
    drawArrow(context, plane.toPixel(points[i], points[i + 1]), [u / speed, v / speed], length);
  }
  context.stroke();
}

function drawArrow(context, [x, y], [u, v], length) {
  const [headX, headY] = [x + u * length, y + v * length];
  const barb = Math.min(3.5, length);
  context.moveTo(x - u * length, y - v * length);
  context.lineTo(headX, headY);
  context.moveTo(headX - barb * (u + 0.6 * v), headY - barb * (v - 0.6 * u));
  context.lineTo(headX, headY);
  context.lineTo(headX - barb * (u - 0.6 * v), headY - barb * (v + 0.6 * u));
}

/**
 * The part of the plane that holds all starts and the central 90 % of the states on each axis, and
 * around them a margin, as a share of its size.
 */
export function viewOf(path, nPoints, share = 0.05) {
  const view = [];
  for (let d = 0; d < 2; d++) {
    const values = path.filter((_, i) => i % 2 === d).sort();
    const starts = path.filter((_, i) => i % (2 * nPoints) === d);
    const low = Math.min(values[Math.floor(0.05 * (values.length - 1))], ...starts);
    const high = Math.max(values[Math.ceil(0.95 * (values.length - 1))], ...starts);
    const margin = share * (high - low) || 1;
    view.push(low - margin, high + margin);
  }
  return view;
}
