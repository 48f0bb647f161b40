// Steps that adapt to an embedded error, from t = 0 to 1. Points lie one after the other, n * dim.

import { MAX_FACTOR, MAX_TRIED, MIN_FACTOR, SAFETY } from "../constants.js";
import { TILE, fromTiles, tilePlace, toTiles } from "./layers.js";
import { makeStages, nonzero } from "./stages.js";

/**
 * Walk with steps that keep the embedded error within rtol = atol, one step size for all points.
 *
 * The same rule as nodecore.ode.adaptive.solve_adaptive. Returns {z, path, ts, attempts, nfe}: the final
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
    if (t + h <= t) throw new Error(`the step size underflowed at ${tell(t)}`);
    if (attempts.length >= MAX_TRIED) throw new Error(`${MAX_TRIED} steps reached only ${tell(t)}`);
    compute(z, h, true);
    add(z, h, weights, next);
    add(zero, h, errorWeights, error);
    const size = norm(error, z, next);
    if (!Number.isFinite(size)) throw new Error(`the state is not finite after ${tell(t)}`);
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

/** A time in words, to six digits. */
function tell(t) {
  return `t = ${Number(t.toPrecision(6))}`;
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
