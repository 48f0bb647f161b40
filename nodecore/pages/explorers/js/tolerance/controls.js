// What the reader takes hold of in the tolerance explorer.

import { choice, seedChoice, slider, titled } from "../ui/controls.js";
import { clip } from "../ui/dom.js";
import { withTraining } from "./state.js";

const FINENESS = 10; // places of the slider to a power of ten

/**
 * @param {Shell} shell
 * @param {Scale} scale
 */
export function makeControls({ model, put }, data, scale) {
  const training = choice("trained with", (name) => put(withTraining(model, data, name)));
  const seeds = seedChoice("seed", (seed) => put({ seed }));
  const solver = choice("test solver", (name) => put({ solver: name }));
  const onInput = (rtol) => put({ rtol });
  const tolerance = slider("tolerance, rtol = atol", { ...scale, onInput });
  return {
    choices: [training, seeds, solver],
    tolerance,
    show({ trained, seed, tableau, rtol }) {
      training.show(titled(data.models), trained.name);
      seeds.show(trained, seed);
      solver.show(titled(data.solvers), tableau.name);
      tolerance.show(rtol, `tolerance ${toleranceText(rtol)}`);
    },
  };
}

/**
 * From loose on the left to tight on the right; for a slider and its chart.
 *
 * @returns {Scale}
 */
export function toleranceScale({ loosest, tightest }) {
  const decades = Math.log10(loosest / tightest);
  const toPosition = (rtol) => Math.log10(loosest / rtol) / decades;
  const toValue = (position) => {
    const place = Math.round(clip(position, 0, 1) * decades * FINENESS);
    return loosest * 10 ** (-place / FINENESS);
  };
  const nudge = (rtol, direction, far) => {
    const places = direction * (far ? FINENESS : 1);
    return toValue(toPosition(rtol) + places / (FINENESS * decades));
  };
  const ticks = Array.from({ length: Math.round(decades) + 1 }, (_, i) => tick(loosest, i));
  return { toPosition, toValue, nudge, ticks };
}

/** @returns {[number, string]} */
function tick(loosest, i) {
  const exponent = Math.round(Math.log10(loosest)) - i;
  return [loosest * 10 ** -i, exponent < -2 ? `1e${exponent}` : `${10 ** exponent}`];
}

export function toleranceText(rtol) {
  return rtol < 1e-3 ? rtol.toExponential(1) : String(Number(rtol.toPrecision(2)));
}
