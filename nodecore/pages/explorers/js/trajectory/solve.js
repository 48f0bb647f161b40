// What the trajectory explorer computes before it draws: network, trajectories, view.

import { solveFixed } from "../compute/fixed.js";
import { classify } from "../compute/layers.js";
import { makeModel, selectMember } from "../compute/models.js";
import { countChords, pick, viewOfStates } from "../compute/runs.js";
import { viewOf } from "../compute/views.js";

/**
 * All that a state needs before its run; what the memory holds for it is not computed again. `key`
 * is the run's.
 */
export function prepare({ once }, { dataset, trained, seed, near, keys }) {
  const model = once("model", keys.member, () => selectMember(trained, seed));
  const net = once("net", keys.member, () => makeModel(model));
  const starts = once("starts", dataset.name, () => pick(dataset.x, dataset.starts));
  const labels = once("labels", dataset.name, () => dataset.starts.map((i) => dataset.y[i]));
  const view = once("view", keys.place, () =>
    near ? viewOf(starts, 1, 0.2) : viewOfStates(net.field, starts, trained.nSteps),
  );
  return { key: keys.run, member: { key: keys.member, model }, net, starts, labels, view };
}

/** The reader's trajectories beside a run, and the class that the model gives each at its end. */
export function solveOwn({ field, head }, tableau, nSteps, launched) {
  const substeps = countChords(tableau, nSteps);
  const starts = Float64Array.from(launched.flat());
  const path = solveFixed(field, tableau, starts, nSteps, { substeps });
  const nPoints = nSteps * substeps + 1;
  return { path, nPoints, labels: classify(head, ends(path, nPoints)) };
}

/** The last state of each trajectory. */
function ends(path, nPoints) {
  return path.filter((_, i) => i % (2 * nPoints) >= 2 * (nPoints - 1));
}
