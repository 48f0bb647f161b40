// What the reader takes hold of in the tolerance explorer.

import { choice, seedChoice, slider, titled } from "../ui/controls.js";
import { clip, h } from "../ui/dom.js";
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
  const now = h("span", { class: "now", "aria-hidden": "true" }); // the slider says it aloud
  return {
    choices: [training, seeds, solver],
    heading: [h("span", { class: "grow" }, "tolerance of the test, rtol = atol"), now],
    tolerance,
    show({ trained, seed, tableau, rtol }) {
      training.show(titled(data.models), trained.name);
      seeds.show(trained, seed);
      solver.show(titled(data.solvers), tableau.name);
      now.textContent = toleranceText(rtol);
      tolerance.show(rtol, `tolerance ${now.textContent}`);
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
  const powers = Array.from({ length: Math.round(decades) + 1 }, (_, i) => loosest * 10 ** -i);
  return { toPosition, toValue, nudge, ticks: powers.map((rtol) => [rtol, toleranceText(rtol)]) };
}

/** A tolerance in two digits: 0.01, 1e-5, 3.2e-6. */
export function toleranceText(rtol) {
  const digits = Number(rtol.toPrecision(2));
  return digits >= 0.01 ? String(digits) : digits.toExponential();
}
