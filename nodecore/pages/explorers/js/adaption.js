// The adaption explorer: the recorded walk of a step size, and what other constants would have done.

import { readNumbers } from "./models.js";
import { clipped, drawAxes, makePlane } from "./plane.js";
import { demand } from "./runs.js";
import {
  button,
  choice,
  figure,
  followState,
  h,
  legend,
  makeReplay,
  onceAFrame,
  readColours,
  renderInto,
  slider,
  thousands,
  traitWriter,
  wantsStillness,
} from "./ui.js";

const LABEL = "Adaption explorer";
const CONSTANTS = ["threshold", "decrease", "increase"];
const TRAITS = ["run", "seed", "iteration", ...CONSTANTS];
const SECONDS = 12; // that replaying a whole training takes
const SAME = 1e-5; // relative difference of two steps that rounding explains

export default {
  render: ({ model, el }) => renderInto(el, model, LABEL, (shell) => start(model, shell)),
};

function start(model, shell) {
  const runs = readRuns(model.get("data"));
  const ranges = model.get("data").ranges;
  const { root, body } = shell;
  const updateNow = () => shell.guard(update);
  const ask = onceAFrame(updateNow);
  let iteration = model.get("iteration");

  const put = traitWriter(model);

  /** The traits, resolved; throws where one names what is not there. */
  function present() {
    const run = demand(runs, "name", model.get("run"), "run");
    const history = demand(run.histories, "seed", model.get("seed"), "seed");
    const constants = Object.fromEntries(CONSTANTS.map((name) => [name, model.get(name)]));
    for (const name of CONSTANTS) {
      const [low, high] = ranges[name];
      if (!(constants[name] >= low && constants[name] <= high)) {
        throw new Error(`${name} = ${constants[name]} is not between ${low} and ${high}`);
      }
    }
    return { run, history, constants };
  }

  // --- the controls -----------------------------------------------------------------------------

  const runChoice = choice("training", (name) => {
    const { histories, constants } = runs.find((each) => each.name === name);
    const kept = histories.some(({ seed }) => seed === model.get("seed"));
    replay.stop();
    put({ run: name, seed: kept ? model.get("seed") : histories[0].seed, ...constants });
  });
  const seedChoice = choice("seed", (seed) => put({ seed }));
  const lastIteration = () => present().history.iterations.at(-1);
  const time = slider("iteration", {
    toPosition: (at) => at / lastIteration(),
    toValue: (position) => Math.round(position * lastIteration()),
    nudge: (at, direction, far) => {
      const { every } = present().run;
      const next = Math.round(at / every) * every + direction * every * (far ? 10 : 1);
      return Math.min(lastIteration(), Math.max(0, next));
    },
    onInput: (at) => {
      replay.stop();
      iteration = at;
      ask();
    },
    onChange: () => put({ iteration }),
  });
  const replay = makeReplay({ update: updateNow, ask, rest: () => put({ iteration }) });
  const play = button("play", () => (replay.isRunning() ? replay.stop() : begin()));
  const texts = {
    threshold: "threshold: largest difference that counts as agreement",
    decrease: "factor after a failed check",
    increase: "factor after any other check",
  };
  const sliders = CONSTANTS.map((name) => {
    const [low, high] = ranges[name];
    const clip = (value) => Math.min(high, Math.max(low, Math.round(value * 100) / 100));
    const value = h("output", {});
    const control = slider(texts[name], {
      toPosition: (v) => (v - low) / (high - low),
      toValue: (position) => clip(low + position * (high - low)),
      nudge: (v, direction, far) => clip(v + direction * (far ? 0.1 : 0.01)),
      onInput: (v) => put({ [name]: v }),
    });
    const element = h(
      "div",
      { class: "constant" },
      h("span", { class: "name" }, texts[name]),
      control.element,
      value,
    );
    return {
      name,
      element,
      show(v) {
        control.show(v, v.toFixed(2));
        value.textContent = v.toFixed(2);
      },
    };
  });
  const recordedConstants = button("as recorded", () => put(present().run.constants));

  function begin() {
    if (iteration >= lastIteration()) iteration = 0;
    const from = iteration;
    const jump = wantsStillness() ? lastIteration() / 12 : 1; // pictures instead of a movement
    replay.start((seconds) => {
      const gone = (seconds / SECONDS) * lastIteration();
      const exact = from + Math.floor(gone / jump) * jump;
      iteration = Math.min(lastIteration(), Math.round(exact));
      return iteration < lastIteration();
    });
  }

  // --- the pictures -----------------------------------------------------------------------------

  const steps = makePlane(0.32, updateNow, {
    role: "img",
    "aria-label": "Number of steps over the iterations: recorded, and with other constants",
  });
  const accuracies = makePlane(0.26, updateNow, {
    role: "img",
    "aria-label": "Accuracy of a batch over the iterations under the training and the test solver",
  });
  const iterationFigure = figure("iteration", "iteration");
  const stepFigure = figure("n_steps", "steps K");
  const trainFigure = figure("train", "training solver");
  const testFigure = figure("test", "test solver");
  const failedFigure = figure("failed", "failed checks");
  const symbols = legend();
  const honest = h("p", { class: "summary honest" });

  // --- compute and draw -------------------------------------------------------------------------

  function update() {
    const { run, history, constants } = present();
    if (!replay.isRunning() && !time.element.matches(":active")) iteration = model.get("iteration");
    iteration = Math.min(iteration, lastIteration());
    const other = run.constants && rerun(history, constants, run.bounds);
    const at = lastCheck(history, iteration);
    runChoice.show(
      runs.map(({ name, title }) => [name, title]),
      run.name,
    );
    seedChoice.show(
      run.histories.map(({ seed }) => [seed, `${seed}`]),
      history.seed,
    );
    time.show(iteration, `iteration ${thousands(iteration)}`);
    play.show(replay.isRunning() ? "pause" : "play");
    for (const each of sliders) {
      each.element.hidden = !run.constants;
      each.show(constants[each.name]);
    }
    recordedConstants.element.hidden = !run.constants;
    showNumbers(run, history, at, constants);
    showHonesty(run, history, other);
    draw(run, history, other);
    shell.announce(
      `${run.title}, seed ${history.seed}, iteration ${thousands(iteration)}: ${stepsOf(history.steps[at])} ` +
        `steps; accuracy of the batch ${percent(history.train[at])} under the training solver, ` +
        `${percent(history.test[at])} under the test solver. ${honest.textContent}`,
    );
  }

  function showNumbers({ solver, testSolver }, history, at, { threshold }) {
    const seen = history.failed.slice(0, at + 1);
    const count = seen.reduce((n, failed) => n + failed, 0);
    iterationFigure.show(thousands(iteration), `of ${thousands(history.iterations.at(-1))}`);
    stepFigure.show(stepsOf(history.steps[at]), `h = ${history.steps[at].toFixed(4)}`);
    trainFigure.show(percent(history.train[at]), solver);
    testFigure.show(percent(history.test[at]), testSolver);
    const would = gaps(history).filter((gap, i) => i <= at && gap > threshold).length;
    failedFigure.show(`${count}`, `threshold ${threshold.toFixed(2)}: ${would}`);
  }

  /** What a re-run on recorded accuracies can say, and what not. */
  function showHonesty({ constants }, history, other) {
    if (!constants) {
      honest.textContent =
        "Replay only: this rule reads more than the two accuracies, so that no other constants can " +
        "be tried on the record.";
    } else if (other.departs === null) {
      honest.textContent = "With these constants the training would have gone as recorded.";
    } else {
      const ends = stepsOf(other.steps.at(-1));
      honest.textContent =
        `With these constants the step would have left the recorded one at iteration ` +
        `${thousands(history.iterations[other.departs])}. Up to there this is exact. Beyond, the weights ` +
        `would have been trained with other steps and given other accuracies: the dashed line ` +
        `(${other.failed} failed checks, ${ends} steps at the end) only shows the rule on the ` +
        `recorded ones.`;
    }
  }

  function draw(run, history, other) {
    if (!steps.width || !accuracies.width) return;
    const colour = readColours(root);
    const last = lastIteration();
    const all = [...history.steps, ...(other?.steps ?? [])].map((size) => -Math.log2(size));
    const low = Math.floor(Math.min(...all));
    const high = Math.max(low + 1, Math.ceil(Math.max(...all)));
    const context = steps.begin([0, last, low - 0.1, high + 0.1]);
    clipped(steps, context, () => {
      const recorded = history.steps.map((size) => -Math.log2(size));
      drawLine(steps, context, history.iterations, recorded, colour("ink"), iteration);
      if (other?.departs != null) {
        const what = other.steps.map((size) => -Math.log2(size));
        context.setLineDash([4, 3]);
        drawLine(steps, context, history.iterations, what, colour("crossing"), last, other.departs);
        context.setLineDash([]);
      }
      markFailed(context, colour, history, recorded);
      drawCursor(steps, context, colour);
    });
    drawAxes(steps, context, colour, "iteration", "steps K", (value) =>
      Number.isInteger(value) ? `${2 ** value}` : "",
    );
    const lower = accuracies.begin([0, last, 0, 1]);
    clipped(accuracies, lower, () => {
      const { iterations, train, test } = history;
      drawLine(accuracies, lower, iterations, train, colour("class-0"), iteration);
      drawLine(accuracies, lower, iterations, test, colour("class-1"), iteration);
      drawCursor(accuracies, lower, colour);
    });
    drawAxes(accuracies, lower, colour, "iteration", "accuracy of the batch");
    symbols.show(`${root.dataset.theme} ${run.name}`, [
      [(small, pixel) => drawSample(small, colour("ink"), pixel), "recorded steps"],
      [(small, pixel) => drawSample(small, colour("crossing"), pixel, [4, 3]), "other constants"],
      [(small, pixel) => drawDisc(small, colour("crossing"), pixel), "failed check"],
      [(small, pixel) => drawSample(small, colour("class-0"), pixel), run.solver],
      [(small, pixel) => drawSample(small, colour("class-1"), pixel), run.testSolver],
    ]);
  }

  function markFailed(context, colour, history, recorded) {
    context.fillStyle = colour("crossing");
    history.failed.forEach((failed, i) => {
      if (!failed || history.iterations[i] > iteration) return;
      const [x, y] = steps.toPixel(history.iterations[i], recorded[i]);
      context.fillRect(x - 1.5, y - 1.5, 3, 3);
    });
  }

  function drawCursor(plane, context, colour) {
    context.strokeStyle = colour("accent");
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(...plane.toPixel(iteration, plane.view[2]));
    context.lineTo(...plane.toPixel(iteration, plane.view[3]));
    context.stroke();
  }

  // --- put together -----------------------------------------------------------------------------

  const numbers = h(
    "dl",
    { class: "figures" },
    ...[iterationFigure, stepFigure, trainFigure, testFigure, failedFigure].map((f) => f.element),
  );
  body.append(
    h("div", { class: "controls" }, runChoice.element, seedChoice.element),
    numbers,
    steps.element,
    accuracies.element,
    symbols.element,
    h("div", { class: "row" }, play.element, time.element, h("span", {}, "iteration")),
    ...sliders.map(({ element }) => element),
    h("div", { class: "row" }, recordedConstants.element),
    honest,
    shell.summary,
  );
  shell.summary.classList.add("unseen"); // the same in words, for those who listen
  const unfollow = followState(model, TRAITS, root, ask);

  function end() {
    replay.cancel();
    unfollow();
    steps.end();
    accuracies.end();
  }
  return { update, end };
}

// --- the record and the rule --------------------------------------------------------------------

function readRuns(data) {
  if (!data?.runs?.length) throw new Error("it holds no run");
  return data.runs.map((run) => ({
    ...run,
    histories: run.histories.map((history) => readHistory(history, run.name)),
  }));
}

function readHistory({ seed, iterations, steps, train, test, failed }, name) {
  const n = iterations.length;
  const read = (text, what) => [...readNumbers(text, Float32Array, `the ${what} of ${name}`, n)];
  return {
    seed,
    iterations,
    steps: read(steps, "steps"),
    train: read(train, "training accuracies"),
    test: read(test, "test accuracies"),
    failed,
  };
}

function gaps({ train, test }) {
  return train.map((accuracy, i) => Math.abs(accuracy - test[i]));
}

/**
 * Algorithm 1 with other constants on recorded accuracies. Returns the steps in use at each check,
 * how many checks fail, and the first check at which the step is another one; null for none.
 */
function rerun(history, { threshold, decrease, increase }, [shortest, longest]) {
  const steps = [];
  let step = history.steps[0];
  let failed = 0;
  for (const gap of gaps(history)) {
    steps.push(step);
    failed += gap > threshold;
    step = Math.min(longest, Math.max(shortest, step * (gap > threshold ? decrease : increase)));
  }
  const departs = steps.findIndex((size, i) => Math.abs(size / history.steps[i] - 1) > SAME);
  return { steps, failed, departs: departs < 0 ? null : departs };
}

/** Index of the last check at or before an iteration; the first one before all. */
function lastCheck({ iterations }, iteration) {
  const next = iterations.findIndex((each) => each > iteration);
  return next < 0 ? iterations.length - 1 : Math.max(0, next - 1);
}

/** Whole steps that fill the time, the last one perhaps shorter. */
function stepsOf(size) {
  return String(Math.max(1, Math.ceil((1 / size) * (1 - 1e-6))));
}

function percent(value) {
  return `${(100 * value).toFixed(1)} %`;
}

// --- lines --------------------------------------------------------------------------------------

/** Values over the iterations as steps, from index `first` to the last one at or before `until`. */
function drawLine(plane, context, iterations, values, colour, until, first = 0) {
  context.strokeStyle = colour;
  context.lineWidth = 1.2;
  context.beginPath();
  for (let i = first; i < values.length && iterations[i] <= until; i++) {
    const [x, y] = plane.toPixel(iterations[i], values[i]);
    if (i > first) context.lineTo(x, plane.toPixel(0, values[i - 1])[1]);
    context.lineTo(x, y);
  }
  context.stroke();
}

function drawSample(context, colour, [x, y], dash = []) {
  context.setLineDash(dash);
  context.strokeStyle = colour;
  context.lineWidth = 2;
  context.beginPath();
  context.moveTo(x - 7, y);
  context.lineTo(x + 7, y);
  context.stroke();
}

function drawDisc(context, colour, [x, y]) {
  context.fillStyle = colour;
  context.fillRect(x - 3, y - 3, 6, 6);
}
