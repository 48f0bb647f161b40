// The tolerance explorer: the steps that an adaptive solver takes along trajectories, and rejects.

import { makeAssistant } from "./assistant.js";
import { makeChart } from "./chart.js";
import { makeModel, readData, selectMember } from "./models.js";
import {
  clipped,
  drawAxes,
  drawMark,
  drawStart,
  drawStarts,
  drawTrajectories,
  makePlane,
  viewOf,
} from "./plane.js";
import { demand, pick } from "./runs.js";
import { solveAdaptive } from "./solver.js";
import {
  choice,
  classColour,
  figure,
  followState,
  h,
  legend,
  onceAFrame,
  readColours,
  renderInto,
  slider,
  thousands,
  traitWriter,
} from "./ui.js";

const LABEL = "Tolerance explorer";
const TRAITS = ["training", "seed", "solver", "rtol"];
const FINE = 1e-6; // the tolerance whose states set the view

export default {
  render: ({ model, el }) => renderInto(el, model, LABEL, (shell) => start(model, shell)),
};

function start(model, shell) {
  const { models, solvers } = readData(model.get("data"));
  const [loosest, tightest] = model.get("data").tolerances;
  const { root, body } = shell;
  const updateNow = () => shell.guard(update);
  const ask = onceAFrame(updateNow);
  let solved = { key: null };
  let viewed = { key: null };
  let answer = { key: null };

  const put = traitWriter(model);

  /** The traits, resolved; throws where one names what is not there. */
  function present() {
    const trained = demand(models, "name", model.get("training"), "training");
    const seed = model.get("seed");
    if (!trained.seeds.includes(seed)) throw new Error(`seed = ${seed} is not here`);
    const tableau = demand(solvers, "name", model.get("solver"), "solver");
    const rtol = model.get("rtol");
    if (!(rtol >= tightest && rtol <= loosest)) {
      throw new Error(`rtol = ${rtol} is not between ${tightest} and ${loosest}`);
    }
    return { trained, seed, tableau, rtol };
  }

  // --- the controls -----------------------------------------------------------------------------

  const trainChoice = choice("trained with", (training) => {
    const { seeds } = models.find((each) => each.name === training);
    const seed = seeds.includes(model.get("seed")) ? model.get("seed") : seeds[0];
    put({ training, seed });
  });
  const seedChoice = choice("seed", (seed) => put({ seed }));
  const solverChoice = choice("test solver", (solver) => put({ solver }));
  // From loose on the left to tight on the right, in steps of a tenth of a power of ten.
  const decades = Math.log10(loosest / tightest);
  const round = (position) => Math.round(Math.min(1, Math.max(0, position)) * decades * 10);
  const scale = {
    toPosition: (rtol) => Math.log10(loosest / rtol) / decades,
    toValue: (position) => loosest * 10 ** (-round(position) / 10),
    ticks: Array.from({ length: Math.round(decades) + 1 }, (_, i) => {
      const exponent = Math.round(Math.log10(loosest)) - i;
      return [loosest * 10 ** -i, exponent < -2 ? `1e${exponent}` : `${10 ** exponent}`];
    }),
  };
  const tolerance = slider("tolerance, rtol = atol", {
    ...scale,
    nudge: (rtol, direction, far) =>
      scale.toValue(scale.toPosition(rtol) + (direction * (far ? 10 : 1)) / (10 * decades)),
    onInput: (rtol) => put({ rtol }),
  });
  const chart = makeChart("Test accuracy against the tolerance of the test", scale, updateNow);

  const accuracyFigure = figure("accuracy", "test accuracy");
  const batchFigure = figure("batch_accepted", "steps, all points alike");
  const ownFigure = figure("accepted", "steps, each its own");
  const symbols = legend();
  const plane = makePlane(0.72, updateNow, {
    role: "img",
    "aria-label": "Trajectories with the accepted and the rejected steps",
  });

  const assistant = makeAssistant(
    (data, tag) => {
      if (data.accuracy !== undefined) answer = { key: tag.key, ...data };
      ask();
    },
    (message) =>
      shell.guard(() => {
        throw new Error(message);
      }),
  );

  // --- compute and draw -------------------------------------------------------------------------

  function update() {
    const begun = performance.now();
    const state = present();
    const { trained, seed, tableau, rtol } = state;
    const member = `${trained.name} ${seed}`;
    const key = `${member} ${tableau.name} ${rtol}`;
    const fresh = solved.key !== key;
    if (fresh) solved = { key, ...solveEach(state) };
    if (viewed.key !== member) viewed = { key: member, view: stillView(state) };
    const { x, y } = trained.dataset;
    assistant.want(
      { key },
      { key: member, model: selectMember(trained, seed), x, y },
      { setting: { tableau, tolerance: rtol }, view: null, curve: [] },
    );
    showControls(state);
    showNumbers(state, key);
    draw(state);
    performance.measure("explorer-redraw", { start: begun, detail: { solved: fresh } });
  }

  /** Every start by itself: its states, the ends of the steps that were rejected, the counts. */
  function solveEach({ trained, seed, tableau, rtol }) {
    const { field } = makeModel(selectMember(trained, seed));
    const { x, y, starts } = trained.dataset;
    const runs = [];
    let failures = 0;
    for (const i of starts) {
      try {
        const run = solveAdaptive(field, tableau, pick(x, [i]), rtol);
        runs.push({ ...run, label: y[i], nPoints: run.ts.length });
      } catch {
        failures += 1; // no step leads on
      }
    }
    return { runs, failures };
  }

  /** What all trajectories visit, solved exactly: a view that rests while the tolerance changes. */
  function stillView({ trained, seed }) {
    const tableau = solvers.find(({ name }) => name === "dopri5") ?? solvers[0];
    const { field } = makeModel(selectMember(trained, seed));
    const starts = pick(trained.dataset.x, trained.dataset.starts);
    try {
      const { path, ts } = solveAdaptive(field, tableau, starts, FINE);
      return viewOf(path, ts.length);
    } catch {
      return viewOf(starts, 1, 1);
    }
  }

  function showControls({ trained, seed, tableau, rtol }) {
    trainChoice.show(
      models.map(({ name, title }) => [name, title]),
      trained.name,
    );
    const seeds = trained.seeds.map((each, i) => [
      each,
      trained.trained[i] ? `${each}` : `${each} (did not train)`,
    ]);
    seedChoice.show(seeds, seed);
    solverChoice.show(
      solvers.map(({ name, title }) => [name, title]),
      tableau.name,
    );
    tolerance.show(rtol, `tolerance ${format(rtol)}`);
  }

  function showNumbers({ trained, seed, tableau, rtol }, key) {
    const { runs, failures } = solved;
    const known = answer.key === key;
    numbers.setAttribute("aria-busy", String(!known));
    const n = thousands(trained.dataset.y.length);
    const accuracy = accuracyText(answer);
    accuracyFigure.show(accuracy, `of ${n} points`);
    if (answer.accepted !== undefined) {
      batchFigure.show(
        `${answer.accepted}`,
        `accepted, ${answer.rejected} rejected, ${answer.nfe} evaluations`,
      );
    } else batchFigure.show("–", answer.error ?? "");
    const mean = (count) =>
      (runs.reduce((sum, run) => sum + count(run), 0) / runs.length).toFixed(1);
    const accepted = runs.length ? mean((run) => run.ts.length - 1) : "–";
    const rejected = runs.length ? mean((run) => run.attempts.length - run.ts.length + 1) : "–";
    const lost = failures ? `; ${failures} cannot be solved` : "";
    ownFigure.show(accepted, `accepted, ${rejected} rejected, mean of ${runs.length}${lost}`);
    if (!known) return;
    shell.announce(
      `Trained with ${trained.title}, seed ${seed}; tested with ${tableau.title} at tolerance ` +
        `${format(rtol)}: ${accuracy} of ${n} test points are right. ` +
        (answer.error
          ? `All points alike: ${answer.error}. `
          : `All points alike: ${answer.accepted} steps accepted, ${answer.rejected} rejected. `) +
        `Each its own: ${accepted} accepted, ${rejected} rejected on average.`,
    );
  }

  function draw({ trained, tableau, rtol }) {
    if (!plane.width) return;
    const colour = readColours(root);
    const context = plane.begin(viewed.view);
    const { x, y, starts } = trained.dataset;
    clipped(plane, context, () => {
      for (const { path, nPoints, label } of solved.runs) {
        drawTrajectories(plane, context, colour, { path, nPoints, labels: [label], time: 1 });
        context.fillStyle = classColour(colour, label);
        for (let k = 1; k < nPoints; k++) {
          drawMark(context, plane.toPixel(path[2 * k], path[2 * k + 1]), 0, 2);
          context.fill();
        }
      }
      const rejected = solved.runs.flatMap(({ attempts }) =>
        attempts.filter(({ accepted }) => !accepted).map(({ end }) => plane.toPixel(...end)),
      );
      drawCrosses(context, colour, rejected);
      drawStarts(
        plane,
        context,
        colour,
        pick(x, starts),
        starts.map((i) => y[i]),
      );
    });
    drawAxes(plane, context, colour, "z₁", "z₂");
    chart.draw(colour, {
      curve: new Map(recorded(trained, tableau)),
      value: rtol,
      present: answer.key === solved.key ? answer.accuracy : null,
      trained: tableau.name === trained.solver ? trained.rtol : null,
      chance: 1 / trained.dataset.classes.length,
    });
    symbols.show(`${trained.dataset.name} ${root.dataset.theme}`, [
      ...trained.dataset.classes.map((name, label) => [
        (small, pixel) => drawStart(small, colour, pixel, label, 4.5),
        name,
      ]),
      [(small, pixel) => drawDot(small, colour, pixel), "accepted step"],
      [(small, pixel) => drawCrosses(small, colour, [pixel]), "rejected step"],
    ]);
  }

  /** The recorded accuracies of the seed that is shown, [tolerance, accuracy], under a solver. */
  function recorded(trained, tableau) {
    const index = trained.seeds.indexOf(model.get("seed"));
    return trained.tests
      .filter((test) => test.solver === tableau.name && test.accuracies[index] !== null)
      .map((test) => [test.rtol, test.accuracies[index]]);
  }

  // --- put together -----------------------------------------------------------------------------

  const numbers = h(
    "dl",
    { class: "figures" },
    ...[accuracyFigure, batchFigure, ownFigure].map(({ element }) => element),
  );
  const controls = [trainChoice, seedChoice, solverChoice].map(({ element }) => element);
  body.append(
    h("div", { class: "controls" }, ...controls),
    h(
      "div",
      { class: "stage" },
      plane.element,
      h("div", { class: "side" }, numbers, symbols.element),
    ),
    h("div", { class: "row heading" }, "tolerance of the test, rtol = atol"),
    tolerance.element,
    chart.element,
    shell.summary,
    h("p", { class: "summary" }, "The line: recorded accuracies of this seed."),
  );
  const unfollow = followState(model, TRAITS, root, ask);

  function end() {
    unfollow();
    plane.end();
    chart.end();
    assistant.end();
  }
  return { update, end };
}

function accuracyText({ accuracy, error }) {
  if (error) return "none";
  return accuracy === undefined ? "…" : `${(100 * accuracy).toFixed(1)} %`;
}

function format(rtol) {
  return rtol < 1e-3 ? rtol.toExponential(1) : String(Number(rtol.toPrecision(2)));
}

function drawDot(context, colour, pixel) {
  context.fillStyle = colour("muted");
  drawMark(context, pixel, 0, 3);
  context.fill();
}

function drawCrosses(context, colour, pixels) {
  context.strokeStyle = colour("crossing");
  context.lineWidth = 1.2;
  context.beginPath();
  for (const [x, y] of pixels) {
    context.moveTo(x - 3, y - 3);
    context.lineTo(x + 3, y + 3);
    context.moveTo(x - 3, y + 3);
    context.lineTo(x + 3, y - 3);
  }
  context.stroke();
}
