// What the tolerance explorer computes: before it draws, and in workers each start by itself, and all
// points alike.

import { EXACT_RTOL, EXACT_SOLVER } from "../constants.js";
import { solveAdaptive } from "../compute/adaptive.js";
import { makeModel, selectMember } from "../compute/models.js";
import { makeNewest } from "../compute/newest.js";
import { pick, solveEach } from "../compute/runs.js";
import { viewOf } from "../compute/views.js";

/** All that a state needs before it is solved, as `memory` has it while the tolerance changes. */
export function prepare({ once }, { trained, seed, keys }, solvers) {
  const { x, y, name, starts: indices } = trained.dataset;
  const model = once("model", keys.member, () => selectMember(trained, seed));
  const { field } = once("net", keys.member, () => makeModel(model));
  const starts = once("starts", name, () => pick(x, indices));
  const labels = once("labels", name, () => indices.map((i) => y[i]));
  const view = once("view", keys.member, () => stillView(field, starts, solvers));
  return { member: { key: keys.member, model }, field, starts, labels, view };
}

/**
 * Every start by itself: ask(wanted) gives the newest runs there are, `fresh` where they are those
 * that are wanted. Those of another seed or training are solved at once.
 *
 * @param {Shell} shell
 */
export function makeEach(shell) {
  const newest = makeNewest(shell);
  return {
    /** @returns {any} */
    ask({ field, starts, member, tableau, rtol, keys }) {
      const tag = { key: keys.run, group: member.key };
      const request = { each: { tableau, starts, tolerance: rtol } };
      const solve = () => ({ each: solveEach(field, tableau, starts, rtol) });
      const { each, fresh } = newest.ask(tag, member, request, solve);
      return { ...each, fresh };
    },
  };
}

/** What all trajectories visit, solved exactly: a view that rests while the tolerance changes. */
function stillView(field, starts, solvers) {
  const tableau = solvers.find(({ name }) => name === EXACT_SOLVER) ?? solvers[0];
  try {
    const { path, ts } = solveAdaptive(field, tableau, starts, EXACT_RTOL);
    return viewOf(path, ts.length);
  } catch {
    return viewOf(starts, 1, 1);
  }
}

/**
 * All points with one step size: ask(wanted) gives the newest answer, `fresh` where it is the one
 * that is wanted, {accuracy, accepted, rejected, nfe, error}.
 *
 * @param {Shell} shell
 */
export function makeBatch(shell) {
  const newest = makeNewest(shell);
  return {
    /** @returns {any} */
    ask({ trained, member, tableau, rtol, keys }) {
      const { x, y } = trained.dataset;
      const tag = { key: keys.run, group: "all" };
      const request = { setting: { tableau, tolerance: rtol }, view: null, curve: [] };
      const nothingYet = () => ({ key: null });
      return newest.ask(tag, { ...member, x, y }, request, nothingYet);
    },
  };
}
