// One of the two trainings: its trajectories under the steps asked for, and how many points are right.

import { makeRunner } from "../compute/runner.js";
import { makeMemory } from "../compute/state.js";
import { makePlane } from "../draw/plane.js";
import { drawRun } from "../draw/run.js";
import { makeAnswers } from "../trajectory/answers.js";
import { prepare } from "../trajectory/solve.js";
import { h, percent, row, thousands } from "../ui/dom.js";
import { figure, figureList, tellCrossings } from "../ui/figures.js";

/** {element, trained, show}; show(state, colour) gives what it shows in words once it is computed. */
export function makeSide(shell, trained) {
  const { title } = trained;
  const memory = makeMemory();
  const runner = makeRunner(shell);
  const answers = makeAnswers(shell, { ticks: [] }); // no curve is asked for
  const plane = makePlane(shell, 0.9, { role: "img", "aria-label": `Trajectories, ${title}` });
  const accuracy = figure("accuracy", "test accuracy", true);
  const crossings = figure("crossings", "crossings", true);
  const numbers = figureList([accuracy, crossings]);

  function show(state, colour) {
    const wanted = { ...state, ...prepare(memory, state) };
    const shown = runner.ask(wanted);
    const { stale, ...answer } = answers.ask(wanted);
    drawRun(plane, colour, shown);
    const { between, pairs, nPairs, where } = tellCrossings(shown);
    const n = thousands(state.dataset.y.length);
    const share = stale === null ? "…" : percent(stale);
    accuracy.show(share, `of ${n} points`);
    crossings.show(between, `in ${pairs} of ${nPairs} pairs${where}`);
    const fresh = answer.fresh && shown.key === state.keys.run;
    numbers.busy(!fresh, shown.key);
    return fresh ? `${title}, ${share} are right and ${pairs} of ${nPairs} pairs cross` : null;
  }
  const heading = h("p", { class: "heading" }, title);
  const element = row("twin", heading, plane, numbers);
  return { element, trained, show };
}
