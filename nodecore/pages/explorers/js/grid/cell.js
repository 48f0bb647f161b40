// What lies behind a cell: its recorded accuracies, and the model whose trajectories are drawn.

import { makeModel, selectMember } from "../compute/models.js";
import { pick, viewOfStates } from "../compute/runs.js";
import { demand } from "../compute/state.js";

/** What a runner takes to compute the trajectories of a cell, and with it what draws them. */
export function prepareCell({ once }, { trained, test, seed, key, memberKey }, solvers) {
  const tableau = demand(solvers, "name", trained.solver, "solver");
  const { x, y, starts } = trained.dataset;
  const same = once("member", memberKey, () => {
    const model = selectMember(trained, seed);
    const net = makeModel(model);
    const points = pick(x, starts);
    const view = viewOfStates(net.field, points, trained.nSteps);
    const member = { key: memberKey, model };
    return { member, net, starts: points, view, labels: starts.map((i) => y[i]) };
  });
  return { ...same, key, tableau, nSteps: test.nSteps };
}

/** Mean and standard deviation (n - 1) over all the seeds that count; null without any. */
export function summarise({ counts }, { accuracies }) {
  const values = accuracies.filter((value, i) => counts[i] && value !== null);
  const n = values.length;
  if (!n) return { mean: null, deviation: null, n };
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, deviation: n > 1 ? Math.sqrt(squares / (n - 1)) : null, n };
}
