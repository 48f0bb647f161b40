// The numbers of the adaption explorer, and in words what a re-run of the rule can say.

import { counted, fixed, h, percent, thousands } from "../ui/dom.js";
import { figure, figureList } from "../ui/figures.js";
import { gaps, lastCheck, lastLook, stepsOf } from "./rule.js";

/** @param {Shell} shell */
export function makeNumbers(shell) {
  const iterations = figure("iteration", "iteration");
  const steps = figure("n_steps", "steps K");
  const train = figure("train", "training solver");
  const test = figure("test", "test solver");
  const failed = figure("failed", "failed checks");
  const spent = figure("nfe", "evaluations");
  const accuracy = figure("accuracy", "test accuracy");
  const honest = h("p", { class: "summary honest" });

  function show({ run, history, constants }, other, iteration) {
    const at = lastCheck(history, iteration);
    const count = history.failed.slice(0, at + 1).filter(Boolean).length;
    const look = lastLook(history, iteration);
    const { threshold } = constants;
    const would = gaps(history).filter((gap, i) => i <= at && gap > threshold).length;
    iterations.show(thousands(iteration), `of ${thousands(history.iterations.at(-1))}`);
    steps.show(thousands(stepsOf(history.steps[at])), `h = ${fixed(history.steps[at], 4)}`);
    train.show(percent(history.train[at]), run.solver);
    test.show(percent(history.test[at]), run.testSolver);
    failed.show(`${count}`, `at ${fixed(threshold, 2)}: ${would}`);
    spent.show(fixed(history.spent[at], 1), "per iteration");
    accuracy.show(
      look < 0 ? "–" : percent(history.accuracies[look]),
      look < 0 ? "not yet seen" : `at ${thousands(history.looks[look])}`,
    );
    honest.textContent = tellHonestly(run, history, other);
    shell.announce(
      `${run.title}, seed ${history.seed}, iteration ${thousands(iteration)}: ` +
        `${counted(stepsOf(history.steps[at]), "step")}; accuracy of the batch ` +
        `${percent(history.train[at])} under the training solver, ` +
        `${percent(history.test[at])} under the test solver; ` +
        `${fixed(history.spent[at], 1)} evaluations per iteration so far. ${honest.textContent}`,
    );
  }
  const figures = [iterations, steps, train, test, failed, spent, accuracy];
  return { element: figureList(figures).element, honest, show };
}

/** What a re-run on recorded accuracies can say, and what not. */
function tellHonestly({ constants }, history, other) {
  if (!constants) {
    return (
      "Replay only: this rule reads more than the two accuracies, so that no other constants can " +
      "be tried on the record."
    );
  }
  if (other.departs === null) {
    return "With these constants the training would have gone as recorded.";
  }
  return (
    `With these constants the step would have left the recorded one at iteration ` +
    `${thousands(history.iterations[other.departs])}. Up to there this is exact. Beyond, the ` +
    `weights would have been trained with other steps and given other accuracies: the dashed line ` +
    `(${counted(other.failed, "failed check")}, ${counted(stepsOf(other.steps.at(-1)), "step")} at ` +
    `the end) only shows the rule on the recorded ones.`
  );
}
