// Fixed steps from t = 0 to 1. Points lie one after the other, n * dim.

import { TILE, toTiles } from "./layers.js";
import { makeStages, nonzero } from "./stages.js";

/**
 * Walk in nSteps equal steps. `substeps` tells into how many chords each step is cut: between the
 * states z_k and z_{k+1} lie the partial steps from z_k. Returns the states of each point in turn,
 * (n, nSteps * substeps + 1, dim), or the final states (n, dim) where `path` is false.
 */
export function solveFixed(field, tableau, starts, nSteps, { substeps = 1, path = true } = {}) {
  const dim = field.inputs;
  const n = starts.length / dim;
  const size = TILE * dim;
  const nStages = Math.max(...nonzero(tableau.b).map((term) => term.index)) + 1;
  const weights = nonzero(tableau.b);
  const { compute, add } = makeStages((z, k) => field.evaluate(z, 0, k, 0), tableau, nStages, size);
  const nPoints = path ? nSteps * substeps + 1 : 1;
  const states = new Float64Array(n * nPoints * dim);
  const tiles = toTiles(starts, dim);
  const partial = new Float64Array(size);
  const h = 1 / nSteps;

  for (let first = 0; first < n; first += TILE) {
    const z = tiles.subarray(first * dim, first * dim + size);
    const keep = (tile, k) => {
      for (let p = first; p < Math.min(first + TILE, n); p++) {
        for (let d = 0; d < dim; d++) {
          states[(p * nPoints + k) * dim + d] = tile[TILE * d + p - first];
        }
      }
    };
    if (path) keep(z, 0);
    for (let k = 0; k < nSteps; k++) {
      for (let i = 1; path && i < substeps; i++) {
        const part = i / substeps / nSteps;
        compute(z, part);
        add(z, part, weights, partial);
        keep(partial, k * substeps + i);
      }
      const step = k === nSteps - 1 ? 1 - k * h : h;
      compute(z, step);
      add(z, step, weights, z);
      if (path) keep(z, (k + 1) * substeps);
    }
    if (!path) keep(z, 0);
  }
  return states;
}
