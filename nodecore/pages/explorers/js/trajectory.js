// The trajectory explorer: a trained model, its trajectories under a solver and step of one's own.

import { makeRunner } from "./compute/runner.js";
import { makeMemory } from "./compute/state.js";
import { makeChart } from "./draw/chart.js";
import { makeAnswers } from "./trajectory/answers.js";
import { makeControls, stepScale } from "./trajectory/controls.js";
import { makeLauncher } from "./trajectory/launcher.js";
import { makeNumbers } from "./trajectory/numbers.js";
import { makePicture } from "./trajectory/picture.js";
import { prepare } from "./trajectory/solve.js";
import { readTrajectoryData, resolve } from "./trajectory/state.js";
import { legend } from "./ui/figures.js";
import { row } from "./ui/dom.js";
import { explorer } from "./ui/shell.js";
import { readColours } from "./ui/theme.js";

export default explorer("Trajectory explorer", start);

/** @param {Shell} shell */
function start(shell) {
  const { model, root, body } = shell;
  const data = readTrajectoryData(model.get("data"));
  const memory = makeMemory(); // what the last update computed
  const scale = stepScale(data.maxSteps);
  const launcher = makeLauncher(shell);
  const controls = makeControls(shell, data, scale, launcher);
  const runner = makeRunner(shell);
  const answers = makeAnswers(shell, scale);
  const numbers = makeNumbers(shell);
  const picture = makePicture(shell, launcher);
  const symbols = legend();
  const chart = makeChart(shell, "Test accuracy against the number of test steps", scale);

  body.append(
    row("controls", ...controls.choices),
    row("stage", picture, row("side", numbers, symbols)),
    row("row heading", ...controls.heading),
    controls.steps.element,
    chart.element,
    controls.clock.element,
    row("row", ...controls.look),
    shell.summary,
    launcher.spoken,
  );

  return function update() {
    const state = resolve(model, data);
    const wanted = { ...state, ...prepare(memory, state) };
    const shown = runner.ask(wanted); // the newest run, perhaps of an earlier state
    const answer = answers.ask(wanted);
    controls.show(state);
    numbers.show(state, shown, answer);
    const colour = readColours(root);
    const { regions, showField, launched, trained, tableau } = state;
    const now = { regions, showField, launched, time: controls.clock.now() };
    picture.draw(colour, { ...shown, ...now }, memory, answer);
    symbols.show(`${state.dataset.name} ${root.dataset.theme}`, picture.symbols(colour, state));
    chart.draw(colour, {
      curve: answer.curve,
      value: state.nSteps,
      present: answer.accuracy,
      trained: tableau.name === trained.solver ? trained.nSteps : null,
      chance: state.dataset.chance,
    });
  };
}
