// The tolerance explorer: the steps that an adaptive solver takes along trajectories, and rejects.

import { makeMemory } from "./compute/state.js";
import { makeChart } from "./draw/chart.js";
import { makeControls, toleranceScale } from "./tolerance/controls.js";
import { makeNumbers } from "./tolerance/numbers.js";
import { makePicture } from "./tolerance/picture.js";
import { makeBatch, makeEach, prepare } from "./tolerance/solve.js";
import { readToleranceData, recorded, resolve } from "./tolerance/state.js";
import { h, row } from "./ui/dom.js";
import { legend } from "./ui/figures.js";
import { explorer } from "./ui/shell.js";
import { readColours } from "./ui/theme.js";

export default explorer("Tolerance explorer", start);

/** @param {Shell} shell */
function start(shell) {
  const { model, root, body } = shell;
  const data = readToleranceData(model.get("data"));
  const memory = makeMemory();
  const scale = toleranceScale(data);
  const controls = makeControls(shell, data, scale);
  const own = makeEach(shell);
  const batch = makeBatch(shell);
  const numbers = makeNumbers(shell);
  const picture = makePicture(shell);
  const symbols = legend();
  const chart = makeChart(shell, "Test accuracy against the tolerance of the test", scale);

  const line = h("p", { class: "summary" }, "The line: recorded accuracies of this seed.");

  body.append(
    row("controls", ...controls.choices),
    row("stage", picture, row("side", numbers, symbols)),
    row("row heading", ...controls.heading),
    controls.tolerance.element,
    chart.element,
    shell.summary,
    line,
  );

  return function update() {
    const state = resolve(model, data);
    const { trained } = state;
    const wanted = { ...state, ...prepare(memory, state, data.solvers) };
    const each = own.ask(wanted);
    const answer = batch.ask(wanted);
    controls.show(state);
    numbers.show(state, each, answer);
    const colour = readColours(root);
    picture.draw(colour, wanted, each);
    const curve = new Map(recorded(state));
    line.hidden = !curve.size;
    chart.draw(colour, {
      curve,
      value: state.rtol,
      present: answer.fresh ? answer.accuracy : null,
      trained: state.tableau.name === trained.solver ? trained.rtol : null,
      chance: trained.dataset.chance,
    });
    symbols.show(`${trained.dataset.name} ${root.dataset.theme}`, picture.symbols(colour, state));
  };
}
