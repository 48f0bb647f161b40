// What is told beside a picture: numbers under their names, and the symbols that the picture uses.

import { drawRings, drawStart } from "../draw/marks.js";
import { counted, h, thousands } from "./dom.js";

const PATIENCE = 300; // milliseconds for an answer: quicker ones make nothing flicker

/**
 * A number under its name: show(text, small) sets it and what stands small behind it. One that is
 * `late` comes with an answer.
 */
export function figure(name, label, late = false) {
  const value = h("span", { class: "value", "data-number": name, "data-late": late });
  const note = h("span", { class: "note" });
  const element = h("div", { class: "figure" }, h("dt", {}, label), h("dd", {}, value, note));
  return {
    element,
    show(text, small = "") {
      value.textContent = text;
      note.textContent = small;
    },
  };
}

/**
 * Figures side by side; busy(yes, shown) tells that an answer is still under way, and by a key what
 * is shown meanwhile. What stays the same too long is stale: the style makes it pale.
 */
export function figureList(figures) {
  const element = h("dl", { class: "figures" }, ...figures.map((each) => each.element));
  let present = null;
  let timer = 0;
  function busy(yes, shown) {
    element.setAttribute("aria-busy", String(yes));
    if (yes && timer && shown === present) return; // it waits already
    present = shown;
    clearTimeout(timer);
    element.removeAttribute("data-stale");
    timer = yes ? setTimeout(() => element.setAttribute("data-stale", ""), PATIENCE) : 0;
  }
  return { element, busy };
}

/**
 * A list of symbols with their names: show(key, [[draw(context, [x, y]), name], ...])
 * draws them anew where `key` changes.
 */
export function legend() {
  const element = h("ul", { class: "legend" });
  let shown = "";
  function show(key, entries) {
    if (key === shown) return;
    shown = key;
    const ratio = window.devicePixelRatio || 1;
    const items = entries.map(([draw, name]) => {
      const canvas = h("canvas", { width: 16 * ratio, height: 16 * ratio, "aria-hidden": "true" });
      const context = canvas.getContext("2d");
      context.scale(ratio, ratio);
      draw(context, [8, 8]);
      return h("li", {}, canvas, name);
    });
    element.replaceChildren(...items);
  }
  return { element, show };
}

/** Entries of a legend for the classes of a data set. */
export function classSymbols(colour, classes) {
  return classes.map((name, label) => [
    (context, pixel) => drawStart(context, colour, pixel, label, 4.5),
    name,
  ]);
}

/** The entry of a legend for the crossings. */
export function crossingSymbol(colour) {
  return [(context, pixel) => drawRings(context, colour, [pixel]), "crossing"];
}

/**
 * The crossings of a run in words: {between, pairs, nPairs, where}. Euler's steps are straight; the
 * curved steps of other methods are compared as they are drawn, in chords, as `where` then says.
 *
 * @param {{run: Run, tableau: Tableau, nSteps: number}} shown
 */
export function tellCrossings({ run, tableau, nSteps }) {
  const { crossings, nTrajectories, nPoints } = run;
  const chords = (nPoints - 1) / nSteps;
  return {
    where: tableau.order === 1 ? "" : `, each step drawn as ${counted(chords, "straight piece")}`,
    between: thousands(crossings.between),
    pairs: thousands(crossings.pairs),
    nPairs: thousands((nTrajectories * (nTrajectories - 1)) / 2),
  };
}
