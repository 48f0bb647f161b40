// Vector fields and classifiers as stacks of dense layers, for a tile of points at once.
//
// A tile holds TILE points, feature by feature: the value of feature i at point p lies at
// TILE * i + p. Weights come as float32, everything is computed in float64.

import { makeKernel } from "./kernel.js";

export const TILE = 4;
const QUAD = 4; // outputs that are summed side by side

/**
 * The layers of a stack, taken from `numbers` in turn: weight (inputs, outputs), then bias.
 *
 * spec: {positions, layers: [{inputs, outputs, window, activation}]}. A layer with a window is a
 * convolution along the positions, its rows ordered by tap, then channel; it becomes the dense
 * layer that does the same. Returns {inputs, outputs, evaluate(x, xAt, y, yAt)}, which maps the
 * tile that begins at x[xAt] to the one at y[yAt].
 */
export function makeStack(spec, numbers, offset = 0) {
  const layers = [];
  for (const layer of spec.layers) {
    const n = layer.inputs * layer.outputs;
    const weight = numbers.subarray(offset, offset + n);
    const bias = numbers.subarray(offset + n, offset + n + layer.outputs);
    layers.push({
      ...expandLayer(layer, weight, bias, spec.positions),
      activation: layer.activation,
    });
    offset += n + layer.outputs;
  }
  const inputs = layers[0].rows;
  const outputs = layers.at(-1).columns;
  const { apply, first, last } = placeLayers(layers, inputs);

  function evaluate(x, xAt, y, yAt) {
    for (let i = 0; i < TILE * inputs; i++) first[i] = x[xAt + i];
    apply();
    for (let i = 0; i < TILE * outputs; i++) y[yAt + i] = last[i];
  }
  return { inputs, outputs, evaluate };
}

/**
 * All layers in one memory, weights of a quad of outputs side by side. Returns {apply, first,
 * last}: apply() carries what lies in `first`, the input, to `last`, the output.
 */
function placeLayers(layers, inputs) {
  const quads = layers.map((layer) => Math.ceil(layer.columns / QUAD));
  const sizes = layers.map((layer, l) => quads[l] * QUAD * (layer.rows + 1 + TILE));
  const bytes = 8 * (TILE * inputs + sizes.reduce((sum, size) => sum + size, 0));
  const { buffer, kernel } = makeKernel(bytes) ?? { buffer: new ArrayBuffer(bytes) };
  const numbers = new Float64Array(buffer);
  let free = 0;
  const take = (size) => numbers.subarray(free, (free += size));
  const first = take(TILE * inputs);
  let x = first;
  const placed = layers.map((layer, l) => {
    const weight = take(quads[l] * QUAD * layer.rows);
    const bias = take(quads[l] * QUAD);
    const y = take(quads[l] * QUAD * TILE);
    for (let j = 0; j < layer.columns; j++) {
      const column = (j - (j % QUAD)) * layer.rows + (j % QUAD);
      for (let i = 0; i < layer.rows; i++) {
        weight[column + QUAD * i] = layer.weight[i * layer.columns + j];
      }
    }
    bias.set(layer.bias);
    const place = { x, weight, bias, y, rows: layer.rows, quads: quads[l] };
    x = y;
    return { ...place, activation: layer.activation };
  });
  const calls = placed.map((layer) => (kernel ? kernelCall(kernel, layer) : plainCall(layer)));
  return { apply: () => calls.forEach((call) => call()), first, last: x };
}

function kernelCall(kernel, { x, weight, bias, y, rows, quads, activation }) {
  const places = [x, weight, bias, y].map((part) => part.byteOffset);
  const floor = activation === "relu" ? 0 : -Infinity;
  if (activation !== "tanh") return () => kernel(...places, rows, quads, floor);
  return () => {
    kernel(...places, rows, quads, floor);
    for (let o = 0; o < y.length; o++) y[o] = Math.tanh(y[o]);
  };
}

/** How many numbers a stack takes. */
export function countNumbers(spec) {
  return spec.layers.reduce((n, layer) => n + (layer.inputs + 1) * layer.outputs, 0);
}

/** A layer with a window over `positions` as a dense one: {rows, columns, weight, bias}. */
function expandLayer({ inputs, outputs, window }, weight, bias, positions) {
  const width = inputs / window;
  const rows = positions * width;
  const columns = positions * outputs;
  const dense = new Float64Array(rows * columns);
  const wide = new Float64Array(columns);
  for (let p = 0; p < positions; p++) {
    wide.set(bias, p * outputs);
    for (let tap = 0; tap < window; tap++) {
      const q = p + tap - (window - 1) / 2; // padded with zeros beyond the ends
      if (q < 0 || q >= positions) continue;
      for (let i = 0; i < width; i++) {
        const row = weight.subarray((tap * width + i) * outputs, (tap * width + i + 1) * outputs);
        dense.set(row, (q * width + i) * columns + p * outputs);
      }
    }
  }
  return { rows, columns, weight: dense, bias: wide };
}

/** What the kernel does, in plain JavaScript, for a browser without it. */
function plainCall({ x, weight, bias, y, rows, activation }) {
  return () => {
    for (let j = 0; j < bias.length; j++) {
      let [a, b, c, d] = [bias[j], bias[j], bias[j], bias[j]];
      let w = (j - (j % QUAD)) * rows + (j % QUAD);
      for (let i = 0; i < TILE * rows; i += TILE, w += QUAD) {
        a += weight[w] * x[i];
        b += weight[w] * x[i + 1];
        c += weight[w] * x[i + 2];
        d += weight[w] * x[i + 3];
      }
      y.set([a, b, c, d], TILE * j);
    }
    if (activation === "relu") for (let o = 0; o < y.length; o++) y[o] = Math.max(y[o], 0);
    if (activation === "tanh") for (let o = 0; o < y.length; o++) y[o] = Math.tanh(y[o]);
  };
}

// --- points and tiles ---------------------------------------------------------------------------

/** Points (n * dim, one after the other) as tiles; the last tile repeats the last point. */
export function toTiles(points, dim) {
  const n = points.length / dim;
  const tiles = new Float64Array(Math.ceil(n / TILE) * TILE * dim);
  for (let p = 0; p < tiles.length / dim; p++) {
    const from = Math.min(p, n - 1) * dim;
    const to = tilePlace(p, dim);
    for (let d = 0; d < dim; d++) tiles[to + TILE * d] = points[from + d];
  }
  return tiles;
}

/** Where the first feature of point p lies in tiles of `dim` features. */
export function tilePlace(p, dim) {
  return (p - (p % TILE)) * dim + (p % TILE);
}

/** The first n points of tiles, one after the other. */
export function fromTiles(tiles, dim, n) {
  const points = new Float64Array(n * dim);
  for (let p = 0; p < n; p++) {
    const from = tilePlace(p, dim);
    for (let d = 0; d < dim; d++) points[p * dim + d] = tiles[from + TILE * d];
  }
  return points;
}

/** f at points (n * dim), one after the other. */
export function evaluateAt(stack, points) {
  const n = points.length / stack.inputs;
  const tiles = toTiles(points, stack.inputs);
  const values = new Float64Array((tiles.length / stack.inputs) * stack.outputs);
  const width = TILE * stack.inputs;
  for (let i = 0, o = 0; i < tiles.length; i += width, o += TILE * stack.outputs) {
    stack.evaluate(tiles, i, values, o);
  }
  return fromTiles(values, stack.outputs, n);
}

/** Class of each state (n * dim): the largest logit, the first of equals, a NaN above all. */
export function classify(head, states) {
  const logits = evaluateAt(head, states);
  const classes = new Uint8Array(states.length / head.inputs);
  for (let p = 0; p < classes.length; p++) {
    const row = logits.subarray(p * head.outputs, (p + 1) * head.outputs);
    let best = 0;
    for (let c = 1; c < row.length && !Number.isNaN(row[best]); c++) {
      if (row[c] > row[best] || Number.isNaN(row[c])) best = c;
    }
    classes[p] = best;
  }
  return classes;
}
