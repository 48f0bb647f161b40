// The trajectory explorer: a trained model, its trajectories under a solver and step of one's own.

import { makeAssistant } from "./assistant.js";
import { makeChart } from "./chart.js";
import { classify, evaluateAt } from "./layers.js";
import { makeModel, readData, selectMember } from "./models.js";
import {
  clipped,
  drawAxes,
  drawField,
  drawMark,
  drawRegions,
  drawRings,
  drawStart,
  drawStarts,
  drawTrajectories,
  makePlane,
  paintRegions,
  stateAt,
  viewOf,
} from "./plane.js";
import { countChords, demand, viewOfStates, pick, solveRun } from "./runs.js";
import { solveFixed } from "./solver.js";
import {
  button,
  checkbox,
  choice,
  classColour,
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

const LABEL = "Trajectory explorer";
const TRAITS = [
  ...["dataset", "train_n_steps", "seed", "solver", "n_steps", "time", "regions", "view"],
  ...["show_field", "launched"],
];
const SECONDS = 4; // that playing from t = 0 to 1 takes
const MARKED_STEPS = 16; // up to so many steps, each state gets a dot
const VIEWS = [
  ["states", "90 % of the states"],
  ["starts", "around the starts"],
];
const REGIONS = [
  ["starts", "class of a start"],
  ["ends", "class at t = 1"],
  ["none", "nothing"],
];

export default {
  render: ({ model, el }) => renderInto(el, model, LABEL, (shell) => start(model, shell)),
};

function start(model, shell) {
  const { datasets, models, solvers } = readData(model.get("data"));
  const { max_steps: maxSteps, chords } = model.get("data");
  const { root, body } = shell;
  const updateNow = () => shell.guard(update);
  const ask = onceAFrame(updateNow);
  const cache = {}; // what the last update computed, by what it depends on

  // --- the state: what was asked for, and what that means ---------------------------------------

  const put = traitWriter(model);

  /** The traits, resolved; throws where one names what is not there. */
  function present() {
    const dataset = demand(datasets, "name", model.get("dataset"), "data set");
    const offered = models.filter((each) => each.dataset === dataset);
    const trained = demand(offered, "nSteps", model.get("train_n_steps"), "training n_steps");
    const seed = model.get("seed");
    if (!trained.seeds.includes(seed)) throw new Error(`seed = ${seed} is not here`);
    const tableau = demand(solvers, "name", model.get("solver"), "solver");
    const nSteps = model.get("n_steps");
    if (!(Number.isInteger(nSteps) && nSteps >= 1 && nSteps <= maxSteps)) {
      throw new Error(`n_steps = ${nSteps} is no whole number from 1 to ${maxSteps}`);
    }
    return { dataset, offered, trained, seed, tableau, nSteps };
  }

  /** compute() unless `name` was computed for the same key before. */
  function once(name, key, compute) {
    if (cache[name]?.key !== key) cache[name] = { key, value: compute() };
    return cache[name].value;
  }

  // --- the controls -----------------------------------------------------------------------------

  const datasetChoice = choice("data set", (name) => {
    const { nSteps, seeds } = models.find((each) => each.dataset.name === name);
    const old = models.filter((each) => each.dataset.name === name);
    const same = old.find((each) => each.nSteps === model.get("train_n_steps"));
    const seed = (same?.seeds ?? seeds).includes(model.get("seed")) ? model.get("seed") : seeds[0];
    put({ dataset: name, train_n_steps: same ? same.nSteps : nSteps, seed, launched: [] });
  });
  const trainChoice = choice("trained with", (nSteps) => {
    const { seeds } = present().offered.find((each) => each.nSteps === nSteps);
    const seed = seeds.includes(model.get("seed")) ? model.get("seed") : seeds[0];
    put({ train_n_steps: nSteps, seed });
  });
  const seedChoice = choice("seed", (seed) => put({ seed }));
  const solverChoice = choice("test solver", (solver) => put({ solver }));
  const regionChoice = choice("background", (regions) => put({ regions }));
  const viewChoice = choice("view", (view) => put({ view }));
  const fieldBox = checkbox("vector field", (value) => put({ show_field: value }));
  const scale = stepScale(maxSteps);
  const steps = slider("number of test steps K", {
    ...scale,
    onInput: (n) => put({ n_steps: n }),
  });
  const ownStep = button("training step", () => put({ n_steps: present().trained.nSteps }));
  const clear = button("remove own", () => put({ launched: [] }));

  const accuracyFigure = figure("accuracy", "test accuracy");
  const crossingFigure = figure("crossings", "crossings");
  const stepFigure = figure("n_steps", "test steps K");

  // --- time -------------------------------------------------------------------------------------

  let time = model.get("time");
  const timeSlider = slider("time t", {
    toPosition: (t) => t,
    toValue: (position) => Math.round(position * 1000) / 1000,
    nudge: (t, direction, far) => Math.min(1, Math.max(0, t + direction * (far ? 0.25 : 0.05))),
    onInput: (t) => {
      replay.stop();
      time = t;
      ask();
    },
    onChange: () => put({ time }),
  });
  const replay = makeReplay({ update: updateNow, ask, rest: () => put({ time }) });
  const play = button("play", () => (replay.isRunning() ? replay.stop() : begin()));

  function begin() {
    if (time >= 1) time = 0;
    const from = time;
    const jump = wantsStillness() ? 0.1 : 0; // a picture now and then instead of a movement
    replay.start((seconds) => {
      const exact = from + seconds / SECONDS;
      time = Math.min(1, jump ? Math.floor(exact / jump) * jump : exact);
      return time < 1;
    });
  }

  // --- the plane --------------------------------------------------------------------------------

  const plane = makePlane(0.72, updateNow, {
    tabindex: 0,
    role: "application",
    "aria-label":
      "Phase plane with the trajectories. Click to start one of your own; by keyboard, move the " +
      "cross with the arrow keys and press Enter.",
    onclick: (event) => launch(plane.toPoint(event.offsetX, event.offsetY)),
    onkeydown: steer,
    onblur: () => {
      cross = null;
      ask();
    },
  });
  let cross = null; // where the keyboard would start a trajectory

  function launch(point) {
    put({ launched: [...model.get("launched"), point] });
  }

  function steer(event) {
    const [x0, x1, y0, y1] = plane.view;
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const [u, v] = move[event.key] ?? [0, 0];
    if (event.key === "Enter" && cross) launch(cross);
    else if (!u && !v) return;
    event.preventDefault();
    const [x, y] = cross ?? [(x0 + x1) / 2, (y0 + y1) / 2];
    const clip = (value, low, high) => Math.min(high, Math.max(low, value));
    cross = [clip(x + (u * (x1 - x0)) / 40, x0, x1), clip(y + (v * (y1 - y0)) / 40, y0, y1)];
    ask();
  }

  const symbols = legend();
  const chart = makeChart("Test accuracy against the number of test steps", scale, updateNow);

  // --- what takes longer: the worker ------------------------------------------------------------

  const answers = { accuracy: null, regions: null, curves: new Map() };
  const assistant = makeAssistant(
    (data, tag) => {
      if (data.accuracy !== undefined) {
        answers.accuracy = { key: tag.run, value: data.accuracy };
        curveOf(tag.curve).set(tag.nSteps, data.accuracy);
      }
      if (data.regions) answers.regions = { ...data, key: tag.place };
      if (data.nSteps) curveOf(tag.curve).set(data.nSteps, data.value);
      ask();
    },
    (message) =>
      shell.guard(() => {
        throw new Error(message);
      }),
  );

  function curveOf(key) {
    if (!answers.curves.has(key)) answers.curves.set(key, new Map());
    return answers.curves.get(key);
  }

  /** Have the worker compute what the present state needs and does not have. */
  function consult({ dataset, tableau, nSteps }, keys, member, view) {
    const regions = model.get("regions") === "starts";
    const known = curveOf(keys.curve);
    assistant.want(
      { ...keys, nSteps, key: `${keys.run} ${keys.place} ${regions}` },
      { key: keys.model, model: member, x: dataset.x, y: dataset.y },
      {
        setting: { tableau, nSteps },
        view: regions ? view : null,
        curve: scale.ticks.map(([n]) => n).filter((n) => !known.has(n)),
      },
    );
  }

  // --- compute and draw -------------------------------------------------------------------------

  function update() {
    const begun = performance.now();
    const state = present();
    const { dataset, trained, seed, tableau, nSteps } = state;
    const modelKey = `${dataset.name} ${trained.nSteps} ${seed}`;
    const runKey = `${modelKey} ${tableau.name} ${nSteps}`;
    const near = model.get("view") === "starts";
    const keys = {
      model: modelKey,
      run: runKey,
      curve: `${modelKey} ${tableau.name}`,
      place: `${modelKey} ${near}`,
    };
    const member = once("member", modelKey, () => selectMember(trained, seed));
    const net = once("net", modelKey, () => makeModel(member));
    const starts = once("starts", dataset.name, () => pick(dataset.x, dataset.starts));
    const labels = once("labels", dataset.name, () => dataset.starts.map((i) => dataset.y[i]));
    const view = once("view", keys.place, () =>
      near ? viewOf(starts, 1, 0.2) : viewOfStates(net.field, starts, trained.nSteps),
    );
    const substeps = countChords(tableau, nSteps, chords);
    const solved = cache.run?.key !== runKey;
    const run = once("run", runKey, () => solveRun(net.field, tableau, starts, nSteps, substeps));
    const launched = model.get("launched");
    const own = once("own", `${runKey} ${launched}`, () => {
      const path = solveFixed(net.field, tableau, Float64Array.from(launched.flat()), nSteps, {
        substeps,
      });
      return { path, nPoints: run.nPoints, labels: classify(net.head, ends(path, run.nPoints)) };
    });
    consult(state, keys, member, view);
    showControls(state, launched);
    showNumbers(state, keys, run);
    draw({ ...state, net, starts, labels, view, run, own, keys });
    performance.measure("explorer-redraw", { start: begun, detail: { solved } });
  }

  function showControls({ dataset, offered, trained, seed, tableau, nSteps }, launched) {
    datasetChoice.show(
      datasets.map(({ name, title }) => [name, title]),
      dataset.name,
    );
    const sizes = offered.map((each) => [each.nSteps, each.nSteps ? `h = 1/${each.nSteps}` : "–"]);
    trainChoice.show(sizes, trained.nSteps);
    const seeds = trained.seeds.map((each, i) => [
      each,
      trained.trained[i] ? `${each}` : `${each} (did not train)`,
    ]);
    seedChoice.show(seeds, seed);
    solverChoice.show(
      solvers.map(({ name, title }) => [name, title]),
      tableau.name,
    );
    regionChoice.show(REGIONS, model.get("regions"));
    viewChoice.show(VIEWS, model.get("view"));
    fieldBox.show(model.get("show_field"));
    steps.show(nSteps, `K = ${nSteps}, h = 1/${nSteps}`);
    ownStep.element.hidden = !trained.nSteps;
    clear.element.hidden = !launched.length;
    if (!replay.isRunning() && !isHeld(timeSlider.element)) time = model.get("time");
    timeSlider.show(time, `t = ${time.toFixed(2)}`);
    play.show(replay.isRunning() ? "pause" : "play");
  }

  function showNumbers({ dataset, trained, seed, tableau, nSteps }, keys, run) {
    const { crossings, leftOut, nTrajectories } = run;
    const fresh = answers.accuracy?.key === keys.run;
    const n = thousands(dataset.y.length);
    const nPairs = thousands((nTrajectories * (nTrajectories - 1)) / 2);
    const [between, pairs] = [thousands(crossings.between), thousands(crossings.pairs)];
    const percent = answers.accuracy ? `${(100 * answers.accuracy.value).toFixed(1)} %` : "…";
    numbers.setAttribute("aria-busy", String(!fresh));
    accuracyFigure.show(percent, `of ${n} points`);
    const without = leftOut ? `; ${leftOut} overflow` : "";
    crossingFigure.show(between, `in ${pairs} of ${nPairs} pairs${without}`);
    stepFigure.show(`${nSteps}`, `h = 1/${nSteps}`);
    if (!fresh) return;
    const training = trained.nSteps ? `, trained with h = 1/${trained.nSteps}, seed ${seed}` : "";
    shell.announce(
      `${dataset.title}${training}: solved by ${tableau.title} in ${nSteps} ` +
        `${nSteps === 1 ? "step" : "steps"}, ${percent} of ${n} test points are right, and ` +
        `${nTrajectories} trajectories make ${between} crossings in ` +
        `${pairs} of ${nPairs} pairs.`,
    );
  }

  function draw({ dataset, trained, net, tableau, nSteps, starts, labels, view, run, own, keys }) {
    if (!plane.width) return;
    const colour = readColours(root);
    const context = plane.begin(view);
    clipped(plane, context, () => {
      drawBackground(context, colour, net.head, keys.place);
      if (model.get("show_field")) {
        drawField(plane, context, colour, (points) => evaluateAt(net.field, points));
      }
      drawTrajectories(plane, context, colour, { ...run, labels, time });
      const past = time * (run.nPoints - 1);
      const visible = run.crossings.points.filter((_, i) => run.crossings.times[i] <= past);
      drawRings(
        context,
        colour,
        visible.map((point) => plane.toPixel(...point)),
      );
      if (nSteps <= MARKED_STEPS) drawStates(context, colour, run, labels, nSteps);
      drawStarts(plane, context, colour, starts, labels);
      drawHeads(context, colour, run, labels);
      drawOwn(context, colour, own);
      if (cross) drawCross(context, colour);
    });
    drawAxes(plane, context, colour, "z₁", "z₂");
    symbols.show(`${dataset.name} ${root.dataset.theme}`, [
      ...dataset.classes.map((name, label) => [
        (small, pixel) => drawStart(small, colour, pixel, label, 4.5),
        name,
      ]),
      [(small, pixel) => drawRings(small, colour, [pixel]), "crossing"],
    ]);
    chart.draw(colour, {
      curve: curveOf(keys.curve),
      value: nSteps,
      present: answers.accuracy?.key === keys.run ? answers.accuracy.value : null,
      trained: trained.nSteps,
      chance: 1 / dataset.classes.length,
    });
  }

  function drawBackground(context, colour, head, placeKey) {
    const kind = model.get("regions");
    const { theme } = root.dataset;
    if (kind === "ends") {
      const size = 96;
      const tile = once("ends", `${placeKey} ${theme}`, () =>
        paintRegions(colour, classify(head, viewGrid(plane.view, size)), size),
      );
      drawRegions(plane, context, tile);
    } else if (kind === "starts" && answers.regions?.key === placeKey) {
      const { id, regions, size } = answers.regions;
      const tile = once("tile", `${id} ${size} ${theme}`, () =>
        paintRegions(colour, regions, size),
      );
      drawRegions(plane, context, tile);
    }
  }

  /** A dot at each state of the solver that t has passed. */
  function drawStates(context, colour, { path, nPoints }, labels, nSteps) {
    for (let n = 0; n < labels.length; n++) {
      context.fillStyle = classColour(colour, labels[n]);
      for (let k = 1; k <= Math.floor(time * nSteps + 1e-9); k++) {
        const [x, y] = plane.toPixel(...stateAt(path, nPoints, n, k / nSteps));
        context.fillRect(x - 1.2, y - 1.2, 2.4, 2.4);
      }
    }
  }

  /** Where each trajectory is now. */
  function drawHeads(context, colour, { path, nPoints }, labels) {
    if (time >= 1 || time <= 0) return;
    for (let n = 0; n < labels.length; n++) {
      context.fillStyle = classColour(colour, labels[n]);
      context.beginPath();
      context.arc(...plane.toPixel(...stateAt(path, nPoints, n, time)), 2.6, 0, 2 * Math.PI);
      context.fill();
    }
  }

  /** The reader's trajectories in ink; the class that the model gives them at the end. */
  function drawOwn(context, colour, { path, nPoints, labels }) {
    const ink = colour("ink");
    context.strokeStyle = ink;
    context.lineWidth = 2;
    for (let n = 0; n < labels.length; n++) {
      context.beginPath();
      const steps = Math.floor(time * (nPoints - 1));
      for (let k = 0; k <= steps; k++) {
        const at = 2 * (n * nPoints + k);
        context.lineTo(...plane.toPixel(path[at], path[at + 1]));
      }
      context.lineTo(...plane.toPixel(...stateAt(path, nPoints, n, time)));
      context.stroke();
      const [x, y] = plane.toPixel(path[2 * n * nPoints], path[2 * n * nPoints + 1]);
      context.fillStyle = colour("paper");
      context.beginPath();
      context.arc(x, y, 3.5, 0, 2 * Math.PI);
      context.fill();
      context.stroke();
      context.fillStyle = classColour(colour, labels[n]);
      drawMark(context, plane.toPixel(...stateAt(path, nPoints, n, time)), labels[n], 5);
      context.fill();
      context.stroke();
    }
  }

  function drawCross(context, colour) {
    const [x, y] = plane.toPixel(...cross);
    context.strokeStyle = colour("ink");
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(x - 8, y);
    context.lineTo(x + 8, y);
    context.moveTo(x, y - 8);
    context.lineTo(x, y + 8);
    context.stroke();
  }

  // --- put together -----------------------------------------------------------------------------

  const numbers = h(
    "dl",
    { class: "figures" },
    accuracyFigure.element,
    crossingFigure.element,
    stepFigure.element,
  );
  const controls = [datasetChoice, trainChoice, seedChoice, solverChoice];
  body.append(
    h("div", { class: "controls" }, ...controls.map(({ element }) => element)),
    h(
      "div",
      { class: "stage" },
      plane.element,
      h("div", { class: "side" }, numbers, symbols.element),
    ),
    h(
      "div",
      { class: "row heading" },
      h("span", { class: "grow" }, "number of test steps K"),
      ownStep.element,
    ),
    steps.element,
    chart.element,
    h("div", { class: "row" }, play.element, timeSlider.element, h("span", {}, "time t")),
    h(
      "div",
      { class: "row" },
      regionChoice.element,
      viewChoice.element,
      fieldBox.element,
      clear.element,
    ),
    shell.summary,
  );
  const unfollow = followState(model, TRAITS, root, ask);

  function end() {
    replay.cancel();
    unfollow();
    plane.end();
    chart.end();
    assistant.end();
  }
  return { update, end };
}

// --- helpers ------------------------------------------------------------------------------------

function isHeld(element) {
  return element.matches(":active");
}

/** The last state of each trajectory. */
function ends(path, nPoints) {
  return path.filter((_, i) => i % (2 * nPoints) >= 2 * (nPoints - 1));
}

function viewGrid([x0, x1, y0, y1], size) {
  const points = new Float64Array(2 * size * size);
  for (let i = 0; i < size * size; i++) {
    points[2 * i] = x0 + (((i % size) + 0.5) / size) * (x1 - x0);
    points[2 * i + 1] = y1 - ((Math.floor(i / size) + 0.5) / size) * (y1 - y0);
  }
  return points;
}

/** The whole numbers from 1 to `largest`, evenly by their logarithm; for a slider and its chart. */
function stepScale(largest) {
  const clip = (n) => Math.min(largest, Math.max(1, Math.round(n)));
  const powers = Array.from({ length: Math.floor(Math.log2(largest)) + 1 }, (_, i) => 2 ** i);
  return {
    toPosition: (n) => Math.log(n) / Math.log(largest),
    toValue: (position) => clip(largest ** position),
    nudge: (n, direction, far) => clip(far ? n * 2 ** direction : n + direction),
    ticks: powers.map((n) => [n, String(n)]),
  };
}
