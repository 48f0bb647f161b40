// The numbers of the trajectory explorer, and the sentence that says them.

import { counted, percent, thousands } from "../ui/dom.js";
import { figure, figureList, tellCrossings } from "../ui/figures.js";

/** @param {Shell} shell */
export function makeNumbers(shell) {
  const accuracy = figure("accuracy", "test accuracy", true);
  const crossings = figure("crossings", "crossings", true);
  const steps = figure("n_steps", "test steps K");
  const { element, busy } = figureList([accuracy, crossings, steps]);

  /** The numbers of a state; its run and its accuracy may be those of an earlier one for a while. */
  function show({ dataset, trained, seed, tableau, nSteps, keys }, shown, answer) {
    const { key, run } = shown;
    const fresh = answer.fresh && key === keys.run;
    const { stale } = answer;
    const n = thousands(dataset.y.length);
    const { between, pairs, nPairs, where } = tellCrossings(shown);
    const share = stale === null ? "…" : percent(stale);
    busy(!fresh, key);
    accuracy.show(share, `of ${n} points`);
    const without = run.leftOut ? `; ${run.leftOut} overflow` : "";
    crossings.show(between, `in ${pairs} of ${nPairs} pairs${where}${without}`);
    steps.show(`${nSteps}`, `h = 1/${nSteps}`);
    if (!fresh) return;
    const training = trained.nSteps ? `, trained with h = 1/${trained.nSteps}, seed ${seed}` : "";
    shell.announce(
      `${dataset.title}${training}: solved by ${tableau.title} in ` +
        `${counted(nSteps, "step")}, ${share} of ${n} test points are right, and ` +
        `${run.nTrajectories} trajectories make ${between} crossings in ` +
        `${pairs} of ${nPairs} pairs${where}.`,
    );
  }
  return { element, show };
}
