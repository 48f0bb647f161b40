// The pair explorer: two trainings of one network side by side, solved with the same number of steps.

import { makeSide } from "./pair/side.js";
import { stepScale } from "./trajectory/controls.js";
import { nameParts, readTrajectoryData, resolve } from "./trajectory/state.js";
import { slider, tickNumbers } from "./ui/controls.js";
import { counted, h, row } from "./ui/dom.js";
import { classSymbols, crossingSymbol, legend } from "./ui/figures.js";
import { explorer } from "./ui/shell.js";
import { readColours } from "./ui/theme.js";

export default explorer("Pair explorer", start);

/** @param {Shell} shell */
function start(shell) {
  const { model, put, root, body } = shell;
  const data = readTrajectoryData(model.get("data"));
  const label = "number of test steps K";
  const onInput = (n) => put({ n_steps: n });
  const scale = stepScale(data.maxSteps);
  const steps = slider(label, { ...scale, onInput });
  const now = h("span", { class: "now" });
  const sides = data.models.map((trained) => makeSide(shell, trained));
  const symbols = legend();

  body.append(
    row("twins", ...sides.map((side) => side.element)),
    row("row heading", h("span", { class: "grow" }, label), now),
    steps.element,
    tickNumbers(scale),
    symbols.element,
    shell.summary,
  );

  return function update() {
    const state = resolve(model, data);
    const { nSteps, dataset } = state;
    const colour = readColours(root);
    now.textContent = `K = ${nSteps}, h = 1/${nSteps}`;
    steps.show(nSteps, now.textContent);
    const told = sides.map((side) => side.show(withTrained(state, side.trained), colour));
    symbols.show(`${dataset.name} ${root.dataset.theme}`, [
      ...classSymbols(colour, dataset.classes),
      crossingSymbol(colour),
    ]);
    if (told.every(Boolean)) {
      shell.announce(`Solved in ${counted(nSteps, "step")}: ${told.join("; ")}.`);
    }
  };
}

/** The state with another training of the same data set, and the keys of that. */
function withTrained(state, trained) {
  const own = { ...state, trained, near: false, regions: "none" };
  return { ...own, keys: nameParts(own) };
}
