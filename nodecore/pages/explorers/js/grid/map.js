// The map of the grid explorer: a table whose cells are chosen with the mouse, a finger or by arrow
// keys. The mouse shows a cell as it passes; one that was clicked stays, so that the mouse can go on
// to its trajectories.

import { MAP_DARK, MAP_LOWEST, MAP_SHADES } from "../constants.js";
import { fixed, h } from "../ui/dom.js";
import { summarise } from "./cell.js";
import { shareText } from "./numbers.js";

const CAPTION = "rows: training steps K; columns: test steps K; click a cell to keep it";
const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] };

/**
 * present() gives the traits, resolved; show(state) builds the table of another study and marks the
 * chosen cell.
 *
 * @param {Shell} shell
 */
export function makeMap({ put, redraw }, present) {
  const table = h("table", {
    class: "map",
    role: "grid",
    "aria-label": "Accuracy by training steps (rows) and test steps (columns)",
    onkeydown: steer,
  });
  const caption = h("p", { class: "axis" }, CAPTION);
  let cells = new Map(); // "train test" -> td, of the study that the table shows
  let shown = null;
  let kept = false; // the chosen cell stays until the next click
  const choose = (train, test) => put({ train_n_steps: train, test_n_steps: test });

  function pass({ pointerType }, train, test) {
    if (pointerType === "mouse" && !kept) choose(train, test);
  }

  /** Keep a cell; a click on one that is kept lets the mouse choose again. */
  function click(train, test) {
    const { trained, test: shownTest } = present();
    kept = !(kept && trained.nSteps === train && shownTest.nSteps === test);
    choose(train, test);
  }

  function steer(event) {
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    const { rows, trained, test } = present();
    const columns = columnsOf(rows);
    const nSteps = rows[rows.indexOf(trained) + move[0]]?.nSteps;
    const column = columns[columns.indexOf(test.nSteps) + move[1]];
    const cell = cells.get(`${nSteps} ${column}`);
    if (!cell) return;
    kept = true;
    choose(nSteps, column);
    redraw();
    cell.focus();
  }

  function show({ study, rows, trained, test }) {
    if (shown !== study.name) {
      cells = buildTable(table, rows, { pass, click });
      shown = study.name;
    }
    for (const cell of cells.values()) {
      cell.removeAttribute("aria-selected");
      cell.tabIndex = -1;
    }
    const cell = cells.get(`${trained.nSteps} ${test.nSteps}`);
    cell.setAttribute("aria-selected", "true");
    cell.tabIndex = 0;
  }
  return { element: h("div", {}, caption, table), show };
}

/** Fill the table with the rows of a study, the finest training above; returns its cells. */
function buildTable(table, rows, listeners) {
  const cells = new Map();
  const columns = columnsOf(rows);
  const lines = rows.toReversed().map((row) => {
    const line = columns.map((nSteps) => {
      const test = row.tests.find((each) => each.nSteps === nSteps);
      if (!test) return h("td", { role: "gridcell" });
      const cell = makeCell(row, test, listeners);
      cells.set(`${row.nSteps} ${nSteps}`, cell);
      return cell;
    });
    return h("tr", {}, h("th", { scope: "row" }, String(row.nSteps)), ...line);
  });
  const head = columns.map((nSteps) => h("th", { scope: "col" }, String(nSteps)));
  const foot = h("tr", {}, h("th", {}, "K"), ...head);
  table.replaceChildren(h("tbody", {}, ...lines, foot));
  return cells;
}

function makeCell(row, test, { pass, click }) {
  const { mean } = summarise(row, test);
  const attributes = {
    role: "gridcell",
    tabindex: -1,
    style: mean === null ? null : `background: ${shade(mean)}; color: ${textOn(mean)}`,
    class: row.nSteps === test.nSteps ? "own" : null,
    "aria-label": `trained with ${row.nSteps}, tested with ${test.nSteps}: ${shareText(mean)}`,
    onpointerenter: (event) => pass(event, row.nSteps, test.nSteps),
    onclick: () => click(row.nSteps, test.nSteps),
  };
  return h("td", attributes, mean === null ? "–" : fixed(100 * mean, 0));
}

/** Every test n_steps of a study, ascending. */
function columnsOf(rows) {
  const all = rows.flatMap(({ tests }) => tests.map(({ nSteps }) => nSteps));
  return [...new Set(all)].sort((a, b) => a - b);
}

function shade(value) {
  const share = Math.max(0, value - MAP_LOWEST) / (1 - MAP_LOWEST);
  const place = share * (MAP_SHADES.length - 1);
  const at = Math.min(Math.floor(place), MAP_SHADES.length - 2);
  const part = Math.round(100 * (place - at));
  return `color-mix(in srgb, ${MAP_SHADES[at + 1]} ${part}%, ${MAP_SHADES[at]})`;
}

function textOn(value) {
  return value > MAP_DARK ? "#000000" : "#ffffff";
}
