// A run: the trajectories of some starts under a solver and its steps, with their crossings.

import { solveAdaptive } from "./adaptive.js";
import { findCrossings, finiteTrajectories } from "./crossings.js";
import { CHORDS, EULER, MOST_CHORDS } from "../constants.js";
import { solveFixed } from "./fixed.js";
import { viewOf } from "./views.js";

const USUAL_STEPS = 32; // that show what a model visits which was not trained with steps

/** Points by their index, one after the other. */
export function pick(points, indices) {
  return Float64Array.from(indices.flatMap((i) => [points[2 * i], points[2 * i + 1]]));
}

/** Into how many chords a step is cut: Euler's is straight, others are curves. */
export function countChords(tableau, nSteps) {
  if (tableau.order === 1) return 1;
  return Math.max(1, Math.min(MOST_CHORDS, Math.floor(CHORDS / nSteps)));
}

/**
 * Trajectories with their crossings; all that is many lies in arrays that a worker can hand over.
 *
 * @param {Stack} field
 * @param {Tableau} tableau
 * @param {Float64Array} starts
 * @param {number} nSteps
 * @returns {Run}
 */
export function solveRun(field, tableau, starts, nSteps) {
  const substeps = countChords(tableau, nSteps);
  const path = solveFixed(field, tableau, starts, nSteps, { substeps });
  const nPoints = nSteps * substeps + 1;
  const finite = finiteTrajectories(path, nPoints);
  const { points, times, between, pairs } = findCrossings(finite.path, nPoints);
  const packed = { points: Float64Array.from(points.flat()), times: Float64Array.from(times) };
  const crossings = { ...packed, between, pairs };
  const nTrajectories = starts.length / 2 - finite.leftOut;
  return { path, nPoints, crossings, leftOut: finite.leftOut, nTrajectories };
}

/**
 * Each start by itself, with steps that adapt. Returns {runs, failures}: a run is what solveAdaptive
 * gives, with nPoints and the index of its start; from `failures` starts no step led on.
 */
export function solveEach(field, tableau, starts, tolerance) {
  const runs = [];
  for (let start = 0; start < starts.length / 2; start++) {
    try {
      const point = starts.slice(2 * start, 2 * start + 2);
      const run = solveAdaptive(field, tableau, point, tolerance);
      runs.push({ ...run, start, nPoints: run.ts.length });
    } catch {
      // the step size underflows, or the state is not finite
    }
  }
  return { runs, failures: starts.length / 2 - runs.length };
}

/** What the training step of a model visits: a view that rests while K changes. */
export function viewOfStates(field, starts, nSteps) {
  const n = nSteps ?? USUAL_STEPS;
  const { path } = finiteTrajectories(solveFixed(field, EULER, starts, n), n + 1);
  return viewOf(path.length ? path : starts, path.length ? n + 1 : 1);
}
