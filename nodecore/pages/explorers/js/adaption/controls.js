// What the reader takes hold of in the adaption explorer.

import { makeClock } from "../ui/clock.js";
import { button, choice, slider, titled } from "../ui/controls.js";
import { clip, fixed, h, thousands } from "../ui/dom.js";
import { resolve, withRun } from "./state.js";

const SECONDS = 12; // that replaying a whole training takes
const TEXTS = {
  threshold: "threshold: largest difference that counts as agreement",
  decrease: "factor after a failed check",
  increase: "factor after any other check",
};

/** @param {Shell} shell */
export function makeControls(shell, data) {
  const { model, put } = shell;
  const present = () => resolve(model, data);
  const clock = makeIterations(shell, present);
  const training = choice("training", (name) => {
    clock.stop();
    put(withRun(model, data, name));
  });
  const seeds = choice("seed", (seed) => put({ seed }));
  const rule = Object.keys(data.ranges).map((name) => constantSlider(shell, data, name));
  const asRecorded = button("as recorded", () => put(present().run.constants));

  function show({ run, history, constants }) {
    const offered = run.histories.map(({ seed }) => [seed, `${seed}`]);
    training.show(titled(data.runs), run.name);
    seeds.show(offered, history.seed);
    clock.follow();
    clock.show(`iteration ${thousands(clock.now())}`);
    for (const each of rule) {
      each.element.hidden = !run.constants;
      each.show(constants[each.name]);
    }
    asRecorded.element.hidden = !run.constants;
  }
  return { choices: [training, seeds], clock, rule, asRecorded, show };
}

function makeIterations(shell, present) {
  const last = () => present().history.iterations.at(-1);
  const scale = {
    toPosition: (at) => at / last(),
    toValue: (position) => Math.round(position * last()),
    nudge: (at, direction, far) => {
      const { every } = present().run;
      const next = Math.round(at / every) * every + direction * every * (far ? 10 : 1);
      return clip(next, 0, last());
    },
  };
  const names = { trait: "iteration", label: "iteration" };
  return makeClock(shell, { ...names, scale, seconds: SECONDS, last, round: Math.round });
}

/** A slider for a constant of the rule, with its value in figures. */
function constantSlider({ put }, { ranges }, name) {
  const [low, high] = ranges[name];
  const hundredths = (value) => clip(Math.round(value * 100) / 100, low, high);
  const value = h("span", { class: "now", "aria-hidden": "true" }); // the slider says it aloud
  const control = slider(TEXTS[name], {
    toPosition: (v) => (v - low) / (high - low),
    toValue: (position) => hundredths(low + position * (high - low)),
    nudge: (v, direction, far) => hundredths(v + direction * (far ? 0.1 : 0.01)),
    onInput: (v) => put({ [name]: v }),
  });
  const text = h("span", { class: "name" }, TEXTS[name]);
  return {
    name,
    element: h("div", { class: "constant" }, text, control.element, value),
    show(v) {
      value.textContent = fixed(v, 2);
      control.show(v, value.textContent);
    },
  };
}
