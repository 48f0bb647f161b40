// What lies behind a cell: its recorded accuracies, and its trajectories, computed here.

import { makeModel, selectMember } from "../compute/models.js";
import { pick, solveRun, viewOfStates } from "../compute/runs.js";
import { demand } from "../compute/state.js";

/** The trajectories of a cell with its points, their labels and the view. */
export function solveCell({ trained, test, seed }, solvers) {
  const tableau = demand(solvers, "name", trained.solver, "solver");
  const { field } = makeModel(selectMember(trained, seed));
  const { x, y, starts } = trained.dataset;
  const points = pick(x, starts);
  const run = solveRun(field, tableau, points, test.nSteps);
  const view = viewOfStates(field, points, trained.nSteps);
  return { ...run, points, view, labels: starts.map((i) => y[i]) };
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
