// Controls with labels. Each has an `element`, and show(...) sets it without asking for a change.

import { h } from "./dom.js";

/** A labelled choice: show(options, value) with options [[value, text], ...]; hidden if just one. */
export function choice(label, onChange) {
  const onchange = () => onChange(values[select.selectedIndex]);
  const select = h("select", { "aria-label": label, onchange });
  const element = h("label", { class: "control" }, h("span", {}, label), select);
  let values = [];
  let shown = "";
  function show(options, value) {
    values = options.map(([each]) => each);
    const key = JSON.stringify(options);
    if (key !== shown) {
      select.replaceChildren(...options.map(([, text]) => h("option", {}, text)));
      shown = key;
    }
    select.selectedIndex = values.indexOf(value);
    element.hidden = options.length < 2;
  }
  return { element, show };
}

/** Options for what has a name and a title. */
export function titled(list) {
  return list.map(({ name, title }) => [name, title]);
}

/** A choice among the seeds of a training: show(trained, seed). */
export function seedChoice(label, onChange) {
  const { element, show } = choice(label, onChange);
  return {
    element,
    /** @param {Trained} trained */
    show({ seeds, trained }, seed) {
      const text = (each, i) => (trained[i] ? `${each}` : `${each} (did not train)`);
      show(
        seeds.map((each, i) => [each, text(each, i)]),
        seed,
      );
    },
  };
}

export function checkbox(label, onChange) {
  const input = h("input", { type: "checkbox", onchange: () => onChange(input.checked) });
  const element = h("label", { class: "tick" }, input, label);
  return { element, show: (value) => (input.checked = value) };
}

export function button(label, onClick) {
  const element = h("button", { type: "button", onclick: onClick }, label);
  return { element, show: (text) => (element.textContent = text) };
}

/**
 * A slider whose marks may lie unevenly: toPosition(value) in 0 .. 1, toValue its inverse, and
 * nudge(value, direction, far) the next value by keyboard. show(value, text) moves it and says
 * `text` for it.
 */
export function slider(label, { toPosition, toValue, nudge, onInput, onChange = () => {} }) {
  let present = null;
  const input = h("input", {
    type: "range",
    min: 0,
    max: 1,
    step: "any",
    "aria-label": label,
    oninput: () => onInput(toValue(Number(input.value))),
    onchange: () => onChange(),
    onkeydown: (event) => {
      const value = keyTarget(event.key);
      if (value === null) return;
      event.preventDefault();
      present = value; // the next key may come before the next frame
      onInput(value);
      onChange();
    },
  });
  function keyTarget(key) {
    if (key === "Home") return toValue(0);
    if (key === "End") return toValue(1);
    const far = key.startsWith("Page");
    if (["ArrowRight", "ArrowUp", "PageUp"].includes(key)) return nudge(present, 1, far);
    if (["ArrowLeft", "ArrowDown", "PageDown"].includes(key)) return nudge(present, -1, far);
    return null;
  }
  function show(value, text) {
    // A drag under way keeps its own place between two whole numbers.
    if (toValue(Number(input.value)) !== value) input.value = toPosition(value);
    present = value;
    input.setAttribute("aria-valuetext", text);
  }
  return { element: input, show };
}

/**
 * The numbers below a slider, each under the place of the thumb that stands for it.
 *
 * @param {Scale} scale
 */
export function tickNumbers({ toPosition, ticks = [] }) {
  const numbers = ticks.map(([value, text]) =>
    h("span", { style: `left: ${100 * toPosition(value)}%` }, text),
  );
  return h("div", { class: "ticks", "aria-hidden": "true" }, ...numbers); // the slider tells its own
}
