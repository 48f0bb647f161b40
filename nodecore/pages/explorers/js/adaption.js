// The adaption explorer: the recorded walk of a step size, and what other constants would have done.

import { makeBalance } from "./adaption/balance.js";
import { makeControls } from "./adaption/controls.js";
import { makeNumbers } from "./adaption/numbers.js";
import { makePicture } from "./adaption/picture.js";
import { rerun } from "./adaption/rule.js";
import STYLE from "./adaption/rule.css" with { type: "text" };
import { readAdaptionData, resolve } from "./adaption/state.js";
import { row } from "./ui/dom.js";
import { legend } from "./ui/figures.js";
import { explorer } from "./ui/shell.js";
import { readColours } from "./ui/theme.js";

export default explorer("Adaption explorer", start, STYLE);

/** @param {Shell} shell */
function start(shell) {
  const { model, root, body } = shell;
  const data = readAdaptionData(model.get("data"));
  const controls = makeControls(shell, data);
  const numbers = makeNumbers(shell);
  const picture = makePicture(shell);
  const balance = makeBalance(shell);
  const symbols = legend();
  const balanceSymbols = legend();

  body.append(
    row("controls", ...controls.choices),
    numbers.element,
    row(
      "beside",
      row("stacked", ...picture.elements, symbols),
      row("stacked", balance, balanceSymbols),
    ),
    controls.clock.element,
    ...controls.rule.map(({ element }) => element),
    row("row", controls.asRecorded),
    numbers.honest,
    shell.summary,
  );
  shell.summary.classList.add("unseen"); // the same in words, for those who listen

  return function update() {
    const state = resolve(model, data);
    const other = state.run.constants && rerun(state.history, state.constants, state.run.bounds);
    controls.show(state);
    const iteration = controls.clock.now();
    numbers.show(state, other, iteration);
    const colour = readColours(root);
    picture.draw(colour, state, other, iteration);
    balance.draw(colour, state, iteration);
    const key = `${root.dataset.theme} ${state.run.name}`;
    symbols.show(key, picture.symbols(colour, state));
    balanceSymbols.show(key, balance.symbols(colour, state));
  };
}
