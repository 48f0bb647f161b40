// What the tolerance explorer computes in workers: each start by itself, and all points alike.

import { EXACT_RTOL, EXACT_SOLVER } from "../constants.js";
import { solveAdaptive } from "../compute/adaptive.js";
import { makeAssistant } from "../compute/assistant.js";
import { makeModel, selectMember } from "../compute/models.js";
import { pick, solveEach } from "../compute/runs.js";
import { viewOf } from "../compute/views.js";

/** The vector field of the seed, as `memory` has it while the tolerance changes. */
export function fieldOf(memory, { trained, seed, keys }) {
  return memory.once("net", keys.member, () => makeModel(selectMember(trained, seed))).field;
}

/**
 * Every start by itself: ask(field, state) gives the newest runs there are, `fresh` where they are
 * those to the state, and has the worker solve for another tolerance. Those of another seed or
 * training are solved at once.
 *
 * @param {Shell} shell
 */
export function makeEach(shell) {
  let newest = { key: null, member: null };
  const assistant = makeAssistant(shell, "explorer-each", (data, tag) => {
    newest = { ...tag, ...data.each };
    shell.ask();
  });
  return {
    /** @returns {any} */
    ask(field, { trained, seed, tableau, rtol, keys }) {
      const starts = pick(trained.dataset.x, trained.dataset.starts);
      const tag = { key: keys.run, member: keys.member };
      if (newest.member !== tag.member) {
        newest = { ...tag, ...solveEach(field, tableau, starts, rtol) };
      }
      const fresh = newest.key === tag.key;
      const model = selectMember(trained, seed);
      const request = { each: { tableau, starts, tolerance: rtol } };
      if (!fresh) assistant.want(tag, { key: keys.member, model }, request);
      return { ...newest, fresh };
    },
  };
}

/** What all trajectories visit, solved exactly: a view that rests while the tolerance changes. */
export function stillView(field, { trained }, solvers) {
  const tableau = solvers.find(({ name }) => name === EXACT_SOLVER) ?? solvers[0];
  const starts = pick(trained.dataset.x, trained.dataset.starts);
  try {
    const { path, ts } = solveAdaptive(field, tableau, starts, EXACT_RTOL);
    return viewOf(path, ts.length);
  } catch {
    return viewOf(starts, 1, 1);
  }
}

/**
 * All points with one step size: ask(state) gives the newest answer, `fresh` where it is the one to
 * the state, {accuracy, accepted, rejected, nfe, error}, and has the worker compute what is not.
 *
 * @param {Shell} shell
 */
export function makeBatch(shell) {
  let answer = { key: null };
  const assistant = makeAssistant(shell, "explorer-accuracy", (data, tag) => {
    if (data.accuracy !== undefined) answer = { key: tag.key, ...data };
    shell.ask();
  });
  return {
    /** @returns {any} */
    ask({ trained, seed, tableau, rtol, keys }) {
      const { x, y } = trained.dataset;
      assistant.want(
        { key: keys.run },
        { key: keys.member, model: selectMember(trained, seed), x, y },
        { setting: { tableau, tolerance: rtol }, view: null, curve: [] },
      );
      return { ...answer, fresh: answer.key === keys.run };
    },
  };
}
