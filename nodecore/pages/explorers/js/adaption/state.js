// What the traits of the adaption explorer ask for: one seed of a recorded training, and constants.

import { readNumbers } from "../compute/models.js";
import { demand, keepSeed } from "../compute/state.js";

/**
 * @typedef {object} History
 * @property {number} seed
 * @property {number[]} iterations
 * @property {number[]} steps
 * @property {number[]} train
 * @property {number[]} test
 * @property {boolean[]} failed
 * @property {number[]} spent evaluations per iteration up to each check
 * @property {number[]} looks iterations of the looks at the test set, and
 * @property {number[]} accuracies what they saw
 * @property {number | null} exact accuracy of the exact flow in the end
 */

/** {runs, ranges} of the explorer's `data`. Throws an Error that names what is wrong. */
export function readAdaptionData(data) {
  if (!data?.runs?.length) throw new Error("it holds no run");
  const runs = data.runs.map((run) => ({
    ...run,
    histories: run.histories.map((history) => readHistory(history, run.name)),
  }));
  return { runs, ranges: data.ranges };
}

/** @returns {History} */
function readHistory(packed, name) {
  const { iterations, looks } = packed;
  const read = (text, what, { length }) => readExact(text, `the ${what} of ${name}`, length);
  return {
    ...packed,
    steps: read(packed.steps, "steps", iterations),
    train: read(packed.train, "training accuracies", iterations),
    test: read(packed.test, "test accuracies", iterations),
    spent: read(packed.spent, "evaluations", iterations),
    accuracies: read(packed.accuracies, "looks", looks),
  };
}

/** n numbers that lost nothing, in float32 or in float64: the length of the text tells. */
function readExact(text, what, n) {
  const Type = atob(text).length === 8 * n ? Float64Array : Float32Array;
  return [...readNumbers(text, Type, what, n)];
}

/**
 * The traits, resolved; throws where one names what is not there.
 *
 * @param {TraitModel} model
 */
export function resolve(model, { runs, ranges }) {
  const run = demand(runs, "name", model.get("run"), "run");
  /** @type {History} */
  const history = demand(run.histories, "seed", model.get("seed"), "seed");
  const names = Object.keys(ranges);
  /** @type {any} */
  const constants = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  for (const name of names) {
    const [low, high] = ranges[name];
    if (!(constants[name] >= low && constants[name] <= high)) {
      throw new Error(`${name} = ${constants[name]} is not between ${low} and ${high}`);
    }
  }
  return { run, history, constants };
}

/** The traits with another training: its own constants, and the seed where it has it too. */
export function withRun(model, { runs }, name) {
  const { histories, constants } = runs.find((each) => each.name === name);
  const seeds = histories.map(({ seed }) => seed);
  return { run: name, seed: keepSeed(seeds, model.get("seed")), ...constants };
}
