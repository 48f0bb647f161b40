// The numbers of the tolerance explorer, and the sentence that says them.

import { counted, fixed, percent, thousands } from "../ui/dom.js";
import { figure, figureList } from "../ui/figures.js";
import { toleranceText } from "./controls.js";

/** @param {Shell} shell */
export function makeNumbers(shell) {
  const accuracyFigure = figure("accuracy", "test accuracy", true);
  const batchFigure = figure("batch_accepted", "steps, all points alike", true);
  const ownFigure = figure("accepted", "steps, each its own", true);
  const { element, busy } = figureList([accuracyFigure, batchFigure, ownFigure]);

  function show({ trained, seed, tableau, rtol }, each, answer) {
    const n = thousands(trained.dataset.y.length);
    const share = accuracyText(answer);
    const { accepted, rejected, nfe, error } = answer;
    const fresh = answer.fresh && each.fresh;
    busy(!fresh, `${each.key} ${answer.key}`);
    accuracyFigure.show(share, `of ${n} points`);
    if (accepted !== undefined) {
      batchFigure.show(`${accepted}`, `accepted, ${rejected} rejected, ${nfe} evaluations`);
    } else batchFigure.show("–", error ?? "");
    const own = countSteps(each.runs);
    const lost = each.failures ? `; ${each.failures} cannot be solved` : "";
    const note = `accepted, ${own.rejected} rejected, mean of ${each.runs.length}${lost}`;
    ownFigure.show(own.accepted, note);
    if (!fresh) return;
    shell.announce(
      `Trained with ${trained.title}, seed ${seed}; tested with ${tableau.title} at tolerance ` +
        `${toleranceText(rtol)}: ${share} of ${n} test points are right. ` +
        (error
          ? `All points alike: ${error}. `
          : `All points alike: ${counted(accepted, "step")} accepted, ${rejected} rejected. `) +
        `Each its own: ${own.accepted} accepted, ${own.rejected} rejected on average.`,
    );
  }
  return { element, show };
}

/** Steps that a start takes and rejects, on average. */
function countSteps(runs) {
  if (!runs.length) return { accepted: "–", rejected: "–" };
  const mean = (count) => fixed(runs.reduce((sum, run) => sum + count(run), 0) / runs.length, 1);
  return {
    accepted: mean((run) => run.ts.length - 1),
    rejected: mean((run) => run.attempts.length - run.ts.length + 1),
  };
}

function accuracyText({ accuracy, error }) {
  if (error) return "none";
  return accuracy === undefined ? "…" : percent(accuracy);
}
