// The numbers behind a cell, the record they come from, and the sentence that says them.

import { counted, fixed, h, percent } from "../ui/dom.js";
import { figure, figureList, tellCrossings } from "../ui/figures.js";
import { summarise } from "./cell.js";

/** @param {Shell} shell */
export function makeNumbers(shell) {
  const meanFigure = figure("mean", "mean accuracy");
  const seedFigure = figure("accuracy", "this seed");
  const crossingFigure = figure("crossings", "crossings", true);
  const path = h("code", { class: "record" });

  const { element, busy } = figureList([meanFigure, seedFigure, crossingFigure]);

  /** The numbers of a cell; its run may be that of an earlier one for a while. */
  function show({ trained, test, seed, key }, shown) {
    const fresh = shown.key === key;
    const { mean, deviation, n } = summarise(trained, test);
    const own = shareText(test.accuracies[trained.seeds.indexOf(seed)]);
    const { between, pairs, nPairs, where } = tellCrossings(shown);
    const spread = deviation === null ? "" : `± ${fixed(100 * deviation, 1)}, `;
    const seeds = `${counted(n, "seed")} that trained`;
    meanFigure.show(shareText(mean), spread + seeds);
    seedFigure.show(own, `seed ${seed}`);
    crossingFigure.show(between, `in ${pairs} of ${nPairs} pairs${where}`);
    path.textContent = trained.path;
    busy(!fresh, shown.key);
    if (!fresh) return;
    shell.announce(
      `Trained with K = ${trained.nSteps}, tested with K = ${test.nSteps}: mean accuracy ` +
        `${shareText(mean)} over ${seeds}; seed ${seed}: ${own}, ${between} ` +
        `crossings in ${pairs} of ${nPairs} pairs${where}.`,
    );
  }
  return {
    element,
    record: h("p", { class: "summary" }, "record: ", path),
    show,
  };
}

/** An accuracy, or that there is none. */
export function shareText(value) {
  return value === null ? "none" : percent(value);
}
