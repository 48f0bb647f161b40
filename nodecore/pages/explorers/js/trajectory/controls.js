// What the reader takes hold of in the trajectory explorer.

import { makeClock } from "../ui/clock.js";
import { button, checkbox, choice, seedChoice, slider, titled } from "../ui/controls.js";
import { clip, fixed, h } from "../ui/dom.js";
import { resolve, withDataset, withTraining } from "./state.js";

const SECONDS = 4; // that playing from t = 0 to 1 takes
const VIEWS = [
  ["states", "90 % of the states"],
  ["starts", "around the starts"],
];
const REGIONS = [
  ["starts", "class of a start"],
  ["ends", "class at t = 1"],
  ["none", "nothing"],
];

/**
 * The controls in groups as they stand on the page; show(state) sets them all.
 *
 * @param {Shell} shell
 * @param {Scale} scale
 */
export function makeControls(shell, data, scale, launcher) {
  const { model, put } = shell;
  const dataset = choice("data set", (name) => put(withDataset(model, data, name)));
  const training = choice("trained with", (n) => put(withTraining(model, data, n)));
  const seed = seedChoice("seed", (value) => put({ seed: value }));
  const solver = choice("test solver", (value) => put({ solver: value }));
  const onInput = (n) => put({ n_steps: n });
  const steps = slider("number of test steps K", { ...scale, onInput });
  const ownStep = button("training step", () => onInput(resolve(model, data).trained.nSteps));
  const look = makeLook(shell, launcher);
  const clock = makeTimeClock(shell);

  function show(state) {
    const { trained, nSteps } = state;
    const sizes = state.offered.map((each) => [
      each.nSteps,
      each.nSteps ? `h = 1/${each.nSteps}` : "–",
    ]);
    dataset.show(titled(data.datasets), state.dataset.name);
    training.show(sizes, trained.nSteps);
    seed.show(trained, state.seed);
    solver.show(titled(data.solvers), state.tableau.name);
    steps.show(nSteps, `K = ${nSteps}, h = 1/${nSteps}`);
    ownStep.element.hidden = !trained.nSteps;
    look.show(state);
    clock.follow();
    clock.show(`t = ${fixed(clock.now(), 2)}`);
  }
  return {
    ...{ show, clock, steps },
    choices: [dataset, training, seed, solver],
    heading: [h("span", { class: "grow" }, "number of test steps K"), ownStep],
    look: look.parts,
  };
}

/** What is shown beside the trajectories, and which part of the plane. */
function makeLook({ model, put }, launcher) {
  const background = choice("background", (regions) => put({ regions }));
  const part = choice("view", (view) => put({ view }));
  const field = checkbox("vector field", (value) => put({ show_field: value }));
  const clear = button("remove own", () => {
    put({ launched: [] });
    launcher.focus(); // the button hides, and would leave it to the page
  });
  return {
    parts: [background, part, field, clear],
    show({ regions, showField, launched }) {
      background.show(REGIONS, regions);
      part.show(VIEWS, model.get("view"));
      field.show(showField);
      clear.element.hidden = !launched.length;
    },
  };
}

function makeTimeClock(shell) {
  const scale = {
    toPosition: (t) => t,
    toValue: (position) => Math.round(position * 1000) / 1000,
    nudge: (t, direction, far) => clip(t + direction * (far ? 0.25 : 0.05), 0, 1),
  };
  const names = { trait: "time", label: "time t" };
  return makeClock(shell, { ...names, scale, seconds: SECONDS, last: () => 1 });
}

/**
 * The whole numbers from 1 to `largest`, evenly by their logarithm; for a slider and its chart.
 *
 * @returns {Scale}
 */
export function stepScale(largest) {
  const whole = (n) => clip(Math.round(n), 1, largest);
  const powers = Array.from({ length: Math.floor(Math.log2(largest)) + 1 }, (_, i) => 2 ** i);
  return {
    toPosition: (n) => Math.log(n) / Math.log(largest),
    toValue: (position) => whole(largest ** position),
    nudge: (n, direction, far) => whole(far ? n * 2 ** direction : n + direction),
    ticks: powers.map((n) => [n, String(n)]),
  };
}
