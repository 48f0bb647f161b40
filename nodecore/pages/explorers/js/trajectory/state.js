// What the traits of the trajectory explorer ask for, and what another choice brings along.

import { readData } from "../compute/models.js";
import { demand, demandSeed, keepSeed } from "../compute/state.js";

/** {datasets, models, solvers, maxSteps} of the explorer's `data`. */
export function readTrajectoryData(data) {
  return { ...readData(data), maxSteps: data.max_steps };
}

/**
 * Names for what depends on the model, on model and solver (its curve), on a run, and on the part of
 * the plane that is shown.
 */
export function nameParts({ dataset, trained, seed, tableau, nSteps, near }) {
  const member = `${dataset.name} ${trained.nSteps} ${seed}`;
  const curve = `${member} ${tableau.name}`;
  return { member, curve, run: `${curve} ${nSteps}`, place: `${member} ${near}` };
}

/**
 * The traits, resolved; throws where one names what is not there. `keys` are those of nameParts.
 *
 * @param {TraitModel} model
 * @param {ReturnType<typeof readTrajectoryData>} data
 */
export function resolve(model, { datasets, models, solvers, maxSteps }) {
  const dataset = demand(datasets, "name", model.get("dataset"), "data set");
  const offered = models.filter((each) => each.dataset === dataset);
  const trained = demand(offered, "nSteps", model.get("train_n_steps"), "training n_steps");
  const seed = demandSeed(trained, model.get("seed"));
  const tableau = demand(solvers, "name", model.get("solver"), "solver");
  const nSteps = model.get("n_steps");
  if (!(Number.isInteger(nSteps) && nSteps >= 1 && nSteps <= maxSteps)) {
    throw new Error(`n_steps = ${nSteps} is no whole number from 1 to ${maxSteps}`);
  }
  const near = model.get("view") === "starts";
  const keys = nameParts({ dataset, trained, seed, tableau, nSteps, near });
  const [regions, launched] = [model.get("regions"), model.get("launched")];
  const showField = model.get("show_field");
  return {
    ...{ dataset, offered, trained, seed, tableau, nSteps },
    ...{ near, regions, launched, showField, keys },
  };
}

/** The traits with another data set: training and seed are kept where it has them too. */
export function withDataset(model, { models }, name) {
  const offered = models.filter((each) => each.dataset.name === name);
  const same = offered.find((each) => each.nSteps === model.get("train_n_steps"));
  const { nSteps, seeds } = same ?? offered[0];
  const seed = keepSeed(seeds, model.get("seed"));
  return { dataset: name, train_n_steps: nSteps, seed, launched: [] };
}

/** The traits with another training of the same data set. */
export function withTraining(model, data, nSteps) {
  const { offered } = resolve(model, data);
  const { seeds } = offered.find((each) => each.nSteps === nSteps);
  return { train_n_steps: nSteps, seed: keepSeed(seeds, model.get("seed")) };
}
