// Elements, and frames to redraw them in.

/**
 * An element: attributes as given, functions as listeners ("onclick"), children in turn.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} attributes
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Things that have an element, side by side. */
export function row(className, ...parts) {
  return h("div", { class: className }, ...parts.map((part) => part.element ?? part));
}

/**
 * Call run() once in the next frame, however often it is asked for.
 *
 * @returns {Ask}
 */
export function onceAFrame(run) {
  let asked = 0;
  const ask = () => {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      run();
    });
  };
  return Object.assign(ask, { cancel: () => cancelAnimationFrame(asked) });
}

/** The reader asked for less movement. */
export function wantsStillness() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** 1234 as 1,234. */
export function thousands(n) {
  return n.toLocaleString("en-GB");
}

/** A number of things: "1 step", "1,000 steps". */
export function counted(n, unit) {
  return `${thousands(n)} ${unit}${n === 1 ? "" : "s"}`;
}

/**
 * A number with so many decimals, as Python's format has it: halfway between two, the last digit is
 * even. toFixed would take the larger one.
 */
export function fixed(value, decimals) {
  const text = value.toFixed(decimals);
  const longer = value.toFixed(decimals + 1);
  // Only a multiple of this power of two can lie halfway, and `longer` has all of its digits.
  const isHalfway = Number.isInteger(value * 2 ** (decimals + 1)) && longer.endsWith("5");
  const isOdd = Number(text.at(-1)) % 2 === 1;
  return isHalfway && isOdd ? longer.slice(0, decimals ? -1 : -2) : text;
}

/** 0.987 as 98.7 %, which does not break. */
export function percent(value) {
  return `${fixed(100 * value, 1)}\u00a0%`;
}

/** The nearest number from low to high. */
export function clip(value, low, high) {
  return Math.min(high, Math.max(low, value));
}
