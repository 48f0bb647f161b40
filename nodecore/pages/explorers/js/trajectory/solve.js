// What the trajectory explorer computes before it draws: network, trajectories, view.

import { solveFixed } from "../compute/fixed.js";
import { classify } from "../compute/layers.js";
import { makeModel, selectMember } from "../compute/models.js";
import { countChords, pick, solveRun, viewOfStates } from "../compute/runs.js";
import { viewOf } from "../compute/views.js";

/** All that a state needs; what the memory holds for it is not computed again. */
export function solve({ once }, { dataset, trained, seed, tableau, nSteps, near, launched, keys }) {
  const member = once("member", keys.member, () => selectMember(trained, seed));
  const net = once("net", keys.member, () => makeModel(member));
  const starts = once("starts", dataset.name, () => pick(dataset.x, dataset.starts));
  const labels = once("labels", dataset.name, () => dataset.starts.map((i) => dataset.y[i]));
  const view = once("view", keys.place, () =>
    near ? viewOf(starts, 1, 0.2) : viewOfStates(net.field, starts, trained.nSteps),
  );
  const run = once("run", keys.run, () => solveRun(net.field, tableau, starts, nSteps));
  const own = once("own", `${keys.run} ${launched}`, () =>
    solveOwn(net, tableau, nSteps, launched),
  );
  return { member, net, starts, labels, view, run, own };
}

/** The reader's trajectories and the class that the model gives each at its end. */
function solveOwn({ field, head }, tableau, nSteps, launched) {
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
