// The grid explorer: accuracy by training and test steps, and the trajectories behind each cell.

import { makeRunner } from "./compute/runner.js";
import { makeMemory } from "./compute/state.js";
import { prepareCell } from "./grid/cell.js";
import STYLE from "./grid/map.css" with { type: "text" };
import { makeMap } from "./grid/map.js";
import { makeNumbers } from "./grid/numbers.js";
import { readGridData, resolve, withStudy } from "./grid/state.js";
import { makePlane } from "./draw/plane.js";
import { drawRun } from "./draw/run.js";
import { choice, seedChoice, titled } from "./ui/controls.js";
import { row } from "./ui/dom.js";
import { classSymbols, crossingSymbol, legend } from "./ui/figures.js";
import { explorer } from "./ui/shell.js";
import { readColours } from "./ui/theme.js";

export default explorer("Grid explorer", start, STYLE);

/** @param {Shell} shell */
function start(shell) {
  const { model, put, root, body } = shell;
  const data = readGridData(model.get("data"));
  const memory = makeMemory();
  const runner = makeRunner(shell);
  const study = choice("study", (name) => put(withStudy(model, data, name)));
  const seeds = seedChoice("trajectories of seed", (seed) => put({ seed }));
  const map = makeMap(shell, () => resolve(model, data));
  const numbers = makeNumbers(shell);
  const symbols = legend();
  const plane = makePlane(shell, 0.9, { role: "img", "aria-label": "Trajectories of the cell" });

  body.append(
    row("controls", study, seeds),
    row("halves", map, plane),
    numbers.element,
    symbols.element,
    shell.summary,
    numbers.record,
  );

  return function update() {
    const state = resolve(model, data);
    study.show(titled(data.studies), state.study.name);
    seeds.show(state.trained, state.seed);
    map.show(state);
    const shown = runner.ask(prepareCell(memory, state, data.solvers));
    numbers.show(state, shown);
    const colour = readColours(root);
    drawRun(plane, colour, shown);
    const { name, classes } = state.trained.dataset;
    symbols.show(`${name} ${root.dataset.theme}`, [
      ...classSymbols(colour, classes),
      crossingSymbol(colour),
    ]);
  };
}
