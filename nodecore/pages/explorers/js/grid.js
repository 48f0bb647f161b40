// The grid explorer: accuracy by training and test steps, and the trajectories behind each cell.

import { makeModel, readData, selectMember } from "./models.js";
import {
  clipped,
  drawAxes,
  drawRings,
  drawStart,
  drawStarts,
  drawTrajectories,
  makePlane,
} from "./plane.js";
import { countChords, demand, viewOfStates, pick, solveRun } from "./runs.js";
import {
  choice,
  figure,
  followState,
  h,
  legend,
  onceAFrame,
  readColours,
  renderInto,
  thousands,
  traitWriter,
} from "./ui.js";

const LABEL = "Grid explorer";
const TRAITS = ["study", "train_n_steps", "test_n_steps", "seed"];
// The colours of the book's map, from 30 % to 100 %: viridis.
const SHADES = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"];
const [LOWEST, DARK_BELOW] = [0.3, 0.75];

export default {
  render: ({ model, el }) => renderInto(el, model, LABEL, (shell) => start(model, shell)),
};

function start(model, shell) {
  const { models, solvers } = readData(model.get("data"));
  const { studies, chords } = model.get("data");
  const { root, body } = shell;
  const updateNow = () => shell.guard(update);
  const ask = onceAFrame(updateNow);
  let solved = { key: null };

  const put = traitWriter(model);

  /** The traits, resolved; throws where one names what is not there. */
  function present() {
    const study = demand(studies, "name", model.get("study"), "study");
    const rows = models.filter((each) => each.study === study.name);
    const trained = demand(rows, "nSteps", model.get("train_n_steps"), "training n_steps");
    const test = demand(trained.tests, "nSteps", model.get("test_n_steps"), "test n_steps");
    const seed = model.get("seed");
    if (!trained.seeds.includes(seed)) throw new Error(`seed = ${seed} is not here`);
    return { study, rows, trained, test, seed };
  }

  // --- the controls -----------------------------------------------------------------------------

  const studyChoice = choice("study", (name) => {
    const rows = models.filter((each) => each.study === name);
    const row = rows.find((each) => each.nSteps === model.get("train_n_steps")) ?? rows[0];
    const has = (nSteps) => row.tests.some((test) => test.nSteps === nSteps);
    const seed = row.seeds.includes(model.get("seed")) ? model.get("seed") : row.seeds[0];
    const test_n_steps = [model.get("test_n_steps"), row.nSteps, row.tests[0].nSteps].find(has);
    put({ study: name, train_n_steps: row.nSteps, test_n_steps, seed });
  });
  const seedChoice = choice("trajectories of seed", (seed) => put({ seed }));
  const meanFigure = figure("mean", "mean accuracy");
  const seedFigure = figure("accuracy", "this seed");
  const crossingFigure = figure("crossings", "crossings");
  const record = h("code", { class: "record" });
  const symbols = legend();
  const table = h("table", {
    class: "map",
    role: "grid",
    "aria-label": "Accuracy by training steps (rows) and test steps (columns)",
    onkeydown: steer,
  });
  let cells = new Map(); // "train test" -> td, of the study that the table shows
  let shownStudy = null;

  const plane = makePlane(0.9, updateNow, {
    role: "img",
    "aria-label": "Trajectories of the cell",
  });

  function buildTable({ study, rows }) {
    if (shownStudy === study.name) return;
    shownStudy = study.name;
    cells = new Map();
    const columns = columnsOf(rows);
    const head = columns.map((nSteps) => h("th", { scope: "col" }, String(nSteps)));
    const lines = rows.toReversed().map((row) => {
      const line = columns.map((nSteps) => makeCell(row, nSteps));
      return h("tr", {}, h("th", { scope: "row" }, String(row.nSteps)), ...line);
    });
    table.replaceChildren(
      h("tbody", {}, ...lines, h("tr", {}, h("th", { class: "corner" }, "K"), ...head)),
    );
  }

  function makeCell(row, nSteps) {
    const test = row.tests.find((each) => each.nSteps === nSteps);
    if (!test) return h("td", { role: "gridcell" });
    const { mean } = summary(row, test);
    const select = () => put({ train_n_steps: row.nSteps, test_n_steps: nSteps });
    const cell = h(
      "td",
      {
        role: "gridcell",
        tabindex: -1,
        style: mean === null ? null : `background: ${shade(mean)}; color: ${textOn(mean)}`,
        class: row.nSteps === nSteps ? "own" : null,
        "aria-label": `trained with ${row.nSteps}, tested with ${nSteps}: ${percent(mean)}`,
        onpointerenter: select,
        onclick: select,
      },
      mean === null ? "–" : (100 * mean).toFixed(0),
    );
    cells.set(`${row.nSteps} ${nSteps}`, cell);
    return cell;
  }

  function steer(event) {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const { rows, trained, test } = present();
    const columns = columnsOf(rows);
    const row = rows[rows.indexOf(trained) + move[0]];
    const column = columns[columns.indexOf(test.nSteps) + move[1]];
    const cell = row && cells.get(`${row.nSteps} ${column}`);
    if (!cell) return;
    put({ train_n_steps: row.nSteps, test_n_steps: column });
    updateNow();
    cell.focus();
  }

  // --- compute and draw -------------------------------------------------------------------------

  function update() {
    const state = present();
    buildTable(state);
    const { rows, study, trained, test, seed } = state;
    studyChoice.show(
      studies.map(({ name, title }) => [name, title]),
      study.name,
    );
    const seeds = trained.seeds.map((each, i) => [
      each,
      trained.trained[i] ? `${each}` : `${each} (did not train)`,
    ]);
    seedChoice.show(seeds, seed);
    for (const cell of cells.values()) {
      cell.removeAttribute("aria-selected");
      cell.tabIndex = -1;
    }
    const cell = cells.get(`${trained.nSteps} ${test.nSteps}`);
    cell.setAttribute("aria-selected", "true");
    cell.tabIndex = 0;
    const run = solveCell(state, `${study.name} ${trained.nSteps} ${test.nSteps} ${seed}`);
    showNumbers(state, run);
    draw(state, run);
  }

  function solveCell({ trained, test, seed }, key) {
    if (solved.key === key) return solved;
    const tableau = demand(solvers, "name", trained.solver, "solver");
    const { field } = makeModel(selectMember(trained, seed));
    const { x, y, starts } = trained.dataset;
    const points = pick(x, starts);
    const substeps = countChords(tableau, test.nSteps, chords);
    const run = solveRun(field, tableau, points, test.nSteps, substeps);
    const view = viewOfStates(field, points, trained.nSteps);
    solved = { key, ...run, points, view, labels: starts.map((i) => y[i]) };
    return solved;
  }

  function showNumbers({ trained, test, seed }, { crossings, nTrajectories }) {
    const { mean, deviation, n } = summary(trained, test);
    const own = test.accuracies[trained.seeds.indexOf(seed)];
    const nPairs = thousands((nTrajectories * (nTrajectories - 1)) / 2);
    const [between, pairs] = [thousands(crossings.between), thousands(crossings.pairs)];
    const spread = deviation === null ? "" : `± ${(100 * deviation).toFixed(1)}, `;
    meanFigure.show(percent(mean), `${spread}${n} ${n === 1 ? "seed" : "seeds"} that trained`);
    seedFigure.show(percent(own), `seed ${seed}`);
    crossingFigure.show(between, `in ${pairs} of ${nPairs} pairs`);
    record.textContent = trained.path;
    shell.announce(
      `Trained with K = ${trained.nSteps}, tested with K = ${test.nSteps}: mean accuracy ` +
        `${percent(mean)} over ${n} seeds that trained; seed ${seed}: ${percent(own)}, ${between} ` +
        `crossings in ${pairs} of ${nPairs} pairs.`,
    );
  }

  function draw({ trained }, run) {
    if (!plane.width) return;
    const colour = readColours(root);
    const context = plane.begin(run.view);
    clipped(plane, context, () => {
      drawTrajectories(plane, context, colour, { ...run, time: 1 });
      const pixels = run.crossings.points.map((point) => plane.toPixel(...point));
      drawRings(context, colour, pixels);
      drawStarts(plane, context, colour, run.points, run.labels);
    });
    drawAxes(plane, context, colour, "z₁", "z₂");
    symbols.show(`${trained.dataset.name} ${root.dataset.theme}`, [
      ...trained.dataset.classes.map((name, label) => [
        (small, pixel) => drawStart(small, colour, pixel, label, 4.5),
        name,
      ]),
      [(small, pixel) => drawRings(small, colour, [pixel]), "crossing"],
    ]);
  }

  // --- put together -----------------------------------------------------------------------------

  const numbers = [meanFigure, seedFigure, crossingFigure].map(({ element }) => element);
  body.append(
    h("div", { class: "controls" }, studyChoice.element, seedChoice.element),
    h(
      "div",
      { class: "halves" },
      h(
        "div",
        { class: "scroll" },
        h("p", { class: "axis" }, "rows: training steps K; columns: test steps K"),
        table,
      ),
      plane.element,
    ),
    h("dl", { class: "figures" }, ...numbers),
    symbols.element,
    shell.summary,
    h("p", { class: "summary" }, "record: ", record),
  );
  const unfollow = followState(model, TRAITS, root, ask);

  function end() {
    unfollow();
    plane.end();
  }
  return { update, end };
}

/** Every test n_steps of a study, ascending. */
function columnsOf(rows) {
  const all = rows.flatMap(({ tests }) => tests.map(({ nSteps }) => nSteps));
  return [...new Set(all)].sort((a, b) => a - b);
}

/** Mean and standard deviation (n - 1) over all the seeds that count; null without any. */
function summary({ counts }, { accuracies }) {
  const values = accuracies.filter((value, i) => counts[i] && value !== null);
  const n = values.length;
  if (!n) return { mean: null, deviation: null, n };
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, deviation: n > 1 ? Math.sqrt(squares / (n - 1)) : null, n };
}

function percent(value) {
  return value === null ? "none" : `${(100 * value).toFixed(1)} %`;
}

function shade(value) {
  const place = (Math.max(0, value - LOWEST) / (1 - LOWEST)) * (SHADES.length - 1);
  const at = Math.min(Math.floor(place), SHADES.length - 2);
  const part = Math.round(100 * (place - at));
  return `color-mix(in srgb, ${SHADES[at + 1]} ${part}%, ${SHADES[at]})`;
}

function textOn(value) {
  return value > DARK_BELOW ? "#000000" : "#ffffff";
}
