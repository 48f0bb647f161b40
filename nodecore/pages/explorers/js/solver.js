// Explicit Runge-Kutta solvers from a Butcher tableau, for autonomous fields, from t = 0 to 1.
//
// A tableau is {a, b, c, bError, embeddedOrder, firstSameAsLast}: coefficients only, as they come
// from Python. A field is a stack of layers (layers.js). Points lie one after the other, n * dim.

import { TILE, fromTiles, tilePlace, toTiles } from "./layers.js";

const SAFETY = 0.9;
const MIN_FACTOR = 0.2;
const MAX_FACTOR = 10;
const MAX_STEPS = 10000;

// --- one step -----------------------------------------------------------------------------------

/**
 * The stages of a step for arrays of `size` numbers: compute(z, h, hasFirst) fills `stages`,
 * k_i = f(z + h sum_j a_ij k_j); add(z, h, weights, out) sets out = z + h sum_i w_i k_i.
 */
function makeStages(f, tableau, n, size) {
  const stages = Array.from({ length: n }, () => new Float64Array(size));
  const rows = tableau.a.slice(0, n).map(nonzero);
  const inner = new Float64Array(size);

  function compute(z, h, hasFirst = false) {
    if (!hasFirst) f(z, stages[0]);
    for (let i = 1; i < n; i++) {
      addStages(z, h, rows[i], inner);
      f(inner, stages[i]);
    }
  }
  function addStages(z, h, terms, out) {
    for (let e = 0; e < size; e++) {
      let sum = 0;
      for (let i = 0; i < terms.length; i++) sum += terms[i].weight * stages[terms[i].index][e];
      out[e] = z[e] + h * sum;
    }
  }
  return { stages, compute, add: addStages };
}

function nonzero(weights) {
  return weights.map((weight, index) => ({ weight, index })).filter((term) => term.weight !== 0);
}

// --- fixed steps --------------------------------------------------------------------------------

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

/**
 * The final states z of points under a setting: {tableau, nSteps}, or {tableau, tolerance}, which
 * adds how many steps were accepted and rejected, and nfe.
 */
export function solveSetting(field, { tableau, nSteps, tolerance }, points) {
  if (!tolerance) return { z: solveFixed(field, tableau, points, nSteps, { path: false }) };
  const { z, attempts, nfe } = solveAdaptive(field, tableau, points, tolerance);
  const accepted = attempts.filter((attempt) => attempt.accepted).length;
  return { z, accepted, rejected: attempts.length - accepted, nfe };
}

// --- adaptive steps -----------------------------------------------------------------------------

/**
 * Walk with steps that keep the embedded error within rtol = atol, one step size for all points.
 *
 * The same rule as nodecore.solve.solve_adaptive. Returns {z, path, ts, attempts, nfe}: the final
 * states, the states after each accepted step (n, steps + 1, dim) and their times, and every step
 * that was tried, {t, h, accepted, end}, `end` its states. Throws where no step leads on.
 */
export function solveAdaptive(field, tableau, starts, tolerance) {
  const dim = field.inputs;
  const n = starts.length / dim;
  const order = tableau.embeddedOrder;
  let z = toTiles(starts, dim);
  let next = new Float64Array(z.length);
  let nfe = 0;
  const f = (state, k) => {
    for (let at = 0; at < state.length; at += TILE * dim) field.evaluate(state, at, k, at);
    nfe += 1;
  };
  const { stages, compute, add } = makeStages(f, tableau, tableau.b.length, z.length);
  const weights = nonzero(tableau.b);
  const errorWeights = nonzero(tableau.bError);
  const zero = new Float64Array(z.length);
  const error = new Float64Array(z.length);
  const norm = makeNorm(n, dim, tolerance);

  f(z, stages[0]);
  let h = initialStep(f, z, stages[0], order, norm);
  let t = 0;
  const attempts = [];
  const ts = [0];
  const states = [fromTiles(z, dim, n)];
  while (t < 1) {
    h = Math.min(h, 1 - t);
    if (t + h <= t) throw new Error(`the step size underflowed at t = ${t}`);
    if (attempts.length >= MAX_STEPS) throw new Error(`${MAX_STEPS} steps reached only t = ${t}`);
    compute(z, h, true);
    add(z, h, weights, next);
    add(zero, h, errorWeights, error);
    const size = norm(error, z, next);
    if (!Number.isFinite(size)) throw new Error(`the state is not finite after t = ${t}`);
    const accepted = size <= 1;
    attempts.push({ t, h, accepted, end: fromTiles(next, dim, n) });
    if (accepted) {
      t = h >= 1 - t ? 1 : t + h;
      [z, next] = [next, z];
      ts.push(t);
      states.push(fromTiles(z, dim, n));
      if (tableau.firstSameAsLast) stages[0].set(stages.at(-1));
      else if (t < 1) f(z, stages[0]);
    }
    const factor = SAFETY * Math.max(size, 1e-10) ** (-1 / (order + 1));
    h *= Math.min(Math.max(factor, accepted ? 1 : MIN_FACTOR), MAX_FACTOR);
  }
  return { z: states.at(-1), path: interleave(states, n, dim), ts, attempts, nfe };
}

/** Root mean square of v / (tolerance + tolerance max(|z|, |other|)) over the n real points. */
function makeNorm(n, dim, tolerance) {
  return (v, z, other = z) => {
    let sum = 0;
    for (let p = 0; p < n; p++) {
      for (let d = 0, e = tilePlace(p, dim); d < dim; d++, e += TILE) {
        const scale = tolerance + tolerance * Math.max(Math.abs(z[e]), Math.abs(other[e]));
        sum += (v[e] / scale) ** 2;
      }
    }
    return Math.sqrt(sum / (n * dim));
  };
}

/** A first step by Hairer, Norsett, Wanner (1993), p. 169; f0 = f(z). */
function initialStep(f, z, f0, order, norm) {
  const d0 = norm(z, z);
  const d1 = norm(f0, z);
  const h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : (0.01 * d0) / d1;
  const f1 = new Float64Array(z.length);
  f(
    z.map((value, e) => value + h0 * f0[e]),
    f1,
  );
  const d2 =
    norm(
      f1.map((value, e) => value - f0[e]),
      z,
    ) / h0;
  const largest = Math.max(d1, d2);
  const h1 = largest <= 1e-15 ? Math.max(1e-6, h0 * 1e-3) : (0.01 / largest) ** (1 / (order + 1));
  return Math.min(100 * h0, h1);
}

/** States after each step, (n, dim) each, as (n, steps, dim). */
function interleave(states, n, dim) {
  const path = new Float64Array(states.length * n * dim);
  states.forEach((state, k) => {
    for (let p = 0; p < n; p++) {
      path.set(state.subarray(p * dim, (p + 1) * dim), (p * states.length + k) * dim);
    }
  });
  return path;
}
