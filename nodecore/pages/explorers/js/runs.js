// A run: the trajectories of some starts under a solver and its steps, with their crossings.

import { findCrossings, finiteTrajectories } from "./crossings.js";
import { viewOf } from "./plane.js";
import { solveFixed } from "./solver.js";

/** The entry of a list with that value; an error names what is not there. */
export function demand(list, key, value, what) {
  const found = list.find((each) => each[key] === value);
  if (!found) throw new Error(`${what} ${value} is not among those it holds`);
  return found;
}

/** Points by their index, one after the other. */
export function pick(points, indices) {
  return Float64Array.from(indices.flatMap((i) => [points[2 * i], points[2 * i + 1]]));
}

/** Into how many chords a step is cut: Euler's is straight, others are curves. */
export function countChords(tableau, nSteps, chords) {
  if (tableau.order === 1) return 1;
  return Math.max(1, Math.min(8, Math.floor(chords / nSteps)));
}

export function solveRun(field, tableau, starts, nSteps, substeps) {
  const path = solveFixed(field, tableau, starts, nSteps, { substeps });
  const nPoints = nSteps * substeps + 1;
  const finite = finiteTrajectories(path, nPoints);
  const crossings = findCrossings(finite.path, nPoints);
  const nTrajectories = starts.length / 2 - finite.leftOut;
  return { path, nPoints, crossings, leftOut: finite.leftOut, nTrajectories };
}

/** What the training step of a model visits: a view that rests while K changes. */
export function viewOfStates(field, starts, nSteps) {
  const n = nSteps ?? 32;
  const euler = { a: [[]], b: [1], c: [0] };
  const { path } = finiteTrajectories(solveFixed(field, euler, starts, n), n + 1);
  return viewOf(path.length ? path : starts, path.length ? n + 1 : 1);
}
