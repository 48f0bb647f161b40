// What every explorer lives in: a shell that keeps its style to itself, tells what is wrong, follows
// the traits and the page's theme, and says in a sentence what is to be seen.

import BASE from "../style/base.css" with { type: "text" };
import CONTROLS from "../style/controls.css" with { type: "text" };
import FIGURES from "../style/figures.css" with { type: "text" };
import { h, onceAFrame } from "./dom.js";
import { makeSpoken } from "./spoken.js";
import { bookColours, followTheme } from "./theme.js";

/**
 * An explorer as anywidget takes it. start(shell) builds it and returns update(), which shows the
 * present traits; `style` is added to what all explorers share.
 *
 * @param {string} label
 * @param {(shell: Shell) => () => void} start
 */
export function explorer(label, start, style = "") {
  return {
    /** @param {{ model: TraitModel, el: HTMLElement }} place */
    render: ({ model, el }) => renderInto(el, model, label, start, style),
  };
}

/**
 * Render an explorer into `el`. What is wrong with its state is shown in its place; a change of the
 * trait `data` starts anew.
 */
function renderInto(el, model, label, start, style) {
  const body = h("div");
  const failure = h("p", { class: "failure", role: "alert", hidden: true });
  const root = h("section", { class: "explorer", "aria-label": label }, failure, body);
  const sheet = bookColours() + BASE + CONTROLS + FIGURES + style;
  el.attachShadow({ mode: "open" }).append(h("style", {}, sheet), root);
  keepKeys(el);
  /** Run what may find the state damaged; if it does, say so in the explorer's place. */
  const guard = (run) => {
    try {
      run();
      failure.hidden = true;
    } catch (error) {
      failure.textContent = `${label} cannot be shown: ${error.message}.`;
      failure.hidden = false;
    }
    body.hidden = !failure.hidden;
  };
  let running = null;
  const restart = () => {
    running?.end();
    body.replaceChildren();
    running = begin({ root, body, model, guard, start });
  };
  restart();
  model.on("change:data", restart);
  return () => {
    model.off("change:data", restart);
    running.end();
  };
}

/** JupyterLab would take arrow keys and letters for its own commands. */
function keepKeys(el) {
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  el.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
}

/** Start an explorer in its shell and show it; returns {end}. */
function begin({ root, body, model, guard, start }) {
  const endings = [];
  let update = () => {};
  let broken = null; // why it cannot go on, whatever the traits are
  const redraw = () =>
    guard(() => {
      if (broken) throw broken;
      update();
    });
  const ask = onceAFrame(redraw);
  const { element: summary, say: announce } = makeSpoken("summary");
  /** @type {Shell} */
  const shell = {
    ...{ root, body, summary, model, ask, redraw, announce },
    put(changes) {
      for (const [name, value] of Object.entries(changes)) model.set(name, value);
      model.save_changes();
    },
    fail(message) {
      broken = new Error(message);
      redraw();
    },
    onEnd: (end) => endings.push(end),
  };
  guard(() => {
    update = start(shell);
    endings.push(followTheme(root, redraw));
    model.on("change", ask);
    update();
  });
  return {
    end() {
      model.off("change", ask);
      ask.cancel();
      for (const end of endings) end();
    },
  };
}
