// What the traits of the grid explorer ask for, and what another study brings along.

import { readData } from "../compute/models.js";
import { demand, demandSeed, keepSeed } from "../compute/state.js";

/** {datasets, models, solvers, studies} of the explorer's `data`. */
export function readGridData(data) {
  return { ...readData(data), studies: data.studies };
}

/**
 * The traits, resolved; throws where one names what is not there. `rows` are the trainings of the
 * study, `key` names the cell with its seed, `memberKey` its model.
 *
 * @param {TraitModel} model
 * @param {ReturnType<typeof readGridData>} data
 */
export function resolve(model, { studies, models }) {
  const study = demand(studies, "name", model.get("study"), "study");
  const rows = models.filter((each) => each.study === study.name);
  const trained = demand(rows, "nSteps", model.get("train_n_steps"), "training n_steps");
  const test = demand(trained.tests, "nSteps", model.get("test_n_steps"), "test n_steps");
  const seed = demandSeed(trained, model.get("seed"));
  const memberKey = `${study.name} ${trained.nSteps} ${seed}`;
  const key = `${memberKey} ${test.nSteps}`;
  return { study, rows, trained, test, seed, key, memberKey };
}

/** The traits with another study: training, test and seed are kept where it has them too. */
export function withStudy(model, { models }, name) {
  const rows = models.filter((each) => each.study === name);
  const row = rows.find((each) => each.nSteps === model.get("train_n_steps")) ?? rows[0];
  const has = (nSteps) => row.tests.some((test) => test.nSteps === nSteps);
  const tests = [model.get("test_n_steps"), row.nSteps, row.tests[0].nSteps];
  const seed = keepSeed(row.seeds, model.get("seed"));
  return { study: name, train_n_steps: row.nSteps, test_n_steps: tests.find(has), seed };
}
