// What the traits of the tolerance explorer ask for, and what another training brings along.

import { readData } from "../compute/models.js";
import { demand, demandSeed, keepSeed } from "../compute/state.js";

/** {datasets, models, solvers, loosest, tightest} of the explorer's `data`. */
export function readToleranceData(data) {
  const { datasets, models, solvers } = readData(data);
  const [loosest, tightest] = data.tolerances;
  return { datasets, models, solvers, loosest, tightest };
}

/**
 * The traits, resolved; throws where one names what is not there. `keys` name what depends on the
 * model alone, and on the whole run.
 *
 * @param {TraitModel} model
 * @param {ReturnType<typeof readToleranceData>} data
 */
export function resolve(model, { models, solvers, loosest, tightest }) {
  const trained = demand(models, "name", model.get("training"), "training");
  const seed = demandSeed(trained, model.get("seed"));
  const tableau = demand(solvers, "name", model.get("solver"), "solver");
  const rtol = model.get("rtol");
  if (!(rtol >= tightest && rtol <= loosest)) {
    throw new Error(`rtol = ${rtol} is not between ${tightest} and ${loosest}`);
  }
  const member = `${trained.name} ${seed}`;
  const keys = { member, run: `${member} ${tableau.name} ${rtol}` };
  return { trained, seed, tableau, rtol, keys };
}

/** The traits with another training: the seed is kept where it has it too. */
export function withTraining(model, { models }, training) {
  const { seeds } = models.find((each) => each.name === training);
  return { training, seed: keepSeed(seeds, model.get("seed")) };
}

/** The recorded accuracies of the seed that is shown, [tolerance, accuracy], under a solver. */
export function recorded({ trained, seed, tableau }) {
  const index = trained.seeds.indexOf(seed);
  return trained.tests
    .filter((test) => test.solver === tableau.name && test.accuracies[index] !== null)
    .map((test) => [test.rtol, test.accuracies[index]]);
}
