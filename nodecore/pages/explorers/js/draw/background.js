// What lies under the trajectories: regions of classes, arrows of the vector field.

import { CLASS_COLOURS } from "../constants.js";
import { h } from "../ui/dom.js";
import { classColour } from "../ui/theme.js";

/** Classes (size, size), row by row from the top, as the pixels of a picture. */
export function paintRegions(colour, regions, size) {
  const tile = h("canvas", { width: size, height: size });
  const context = tile.getContext("2d");
  const tints = CLASS_COLOURS.map((_, label) => parseColour(context, classColour(colour, label)));
  const image = new ImageData(size, size);
  regions.forEach((label, i) => image.data.set(tints[label % tints.length], 4 * i));
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

/**
 * Arrows of a field, value(points) on points (n, 2), on a grid over the view.
 *
 * @param {Plane} plane
 * @param {CanvasRenderingContext2D} context
 * @param {Colour} colour
 * @param {(points: Float64Array) => Float64Array} value
 */
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
