// What all explorers are made of: a shell that keeps its style to itself, controls with labels,
// colours that follow the page, a sentence that says what is to be seen.

import STYLE from "./style.css" with { type: "text" };

/** An element: attributes as given, functions as listeners ("onclick"), children in turn. */
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

// --- the shell ----------------------------------------------------------------------------------

/**
 * Render an explorer into `el`: start(shell) builds it and returns {update, end}. What is wrong with
 * its state is shown in its place; a change of the trait `data` starts anew.
 */
export function renderInto(el, model, label, start) {
  const shadow = el.attachShadow({ mode: "open" });
  const body = h("div");
  const failure = h("p", { class: "failure", role: "alert", hidden: true });
  const root = h("section", { class: "explorer", "aria-label": label }, failure, body);
  shadow.append(h("style", {}, STYLE), root);
  // JupyterLab would take arrow keys and letters for its own commands.
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  el.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
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
    running = null;
    body.replaceChildren();
    guard(() => {
      running = start(makeShell(root, body, guard));
      running.update();
    });
  };
  restart();
  model.on("change:data", restart);
  return () => {
    model.off("change:data", restart);
    running?.end();
  };
}

/** What a started explorer works with: `root` has the colours, `body` takes its elements. */
function makeShell(root, body, guard) {
  const summary = h("p", { class: "summary", "aria-live": "polite" });
  let timer = 0;
  return {
    root,
    body,
    guard,
    summary,
    /** Say the numbers once they rest, not at every frame of a drag. */
    announce(text) {
      clearTimeout(timer);
      timer = setTimeout(() => {
        if (summary.textContent !== text) summary.textContent = text;
      }, 300);
    },
  };
}

/** What sets traits: put({name: value, ...}). */
export function traitWriter(model) {
  return (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  };
}

/** Ask for a picture when one of the traits changes, or the page's theme. Returns an end. */
export function followState(model, traits, root, ask) {
  const unfollow = followTheme(root, ask);
  const events = traits.map((name) => `change:${name}`);
  for (const event of events) model.on(event, ask);
  return () => {
    for (const event of events) model.off(event, ask);
    ask.cancel();
    unfollow();
  };
}

// --- colours ------------------------------------------------------------------------------------

/** Keep the explorer light or dark as the page is; redraw() when that changes. Returns an end. */
function followTheme(root, redraw) {
  const media = matchMedia("(prefers-color-scheme: dark)");
  const update = () => {
    const theme = isDark(media) ? "dark" : "light";
    if (root.dataset.theme === theme) return;
    root.dataset.theme = theme;
    redraw();
  };
  root.dataset.theme = isDark(media) ? "dark" : "light";
  const observer = new MutationObserver(update);
  observer.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  observer.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  media.addEventListener("change", update);
  return () => {
    observer.disconnect();
    media.removeEventListener("change", update);
  };
}

/** What the book or JupyterLab says, else the reader's system. */
function isDark(media) {
  const { theme } = document.documentElement.dataset;
  if (theme === "dark" || theme === "light") return theme === "dark";
  const { jpThemeLight } = document.body.dataset;
  return jpThemeLight ? jpThemeLight === "false" : media.matches;
}

/** The colours that the style defines: colour("class-0"). */
export function readColours(root) {
  const style = getComputedStyle(root);
  const known = {};
  return (name) => (known[name] ??= style.getPropertyValue(`--${name}`).trim());
}

export function classColour(colour, label) {
  return colour(`class-${label % 3}`);
}

// --- controls -----------------------------------------------------------------------------------

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

/** A number under its name: show(text, small) sets it and what stands small behind it. */
export function figure(name, label) {
  const value = h("span", { class: "value", "data-number": name });
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

/** 1234 as 1,234. */
export function thousands(n) {
  return n.toLocaleString("en-GB");
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

/**
 * A movement: start(advance) calls advance(seconds since) in each frame, then update(), until it
 * returns false; rest() follows its end or a stop, which asks for a last picture.
 */
export function makeReplay({ update, ask, rest }) {
  let frame = 0;
  const cancel = () => {
    cancelAnimationFrame(frame);
    frame = 0;
  };
  return {
    cancel,
    isRunning: () => frame !== 0,
    start(advance) {
      const origin = performance.now();
      const tick = (clock) => {
        frame = advance((clock - origin) / 1000) ? requestAnimationFrame(tick) : 0;
        if (!frame) rest();
        update();
      };
      frame = requestAnimationFrame(tick);
    },
    stop() {
      if (!frame) return;
      cancel();
      rest();
      ask();
    },
  };
}

/** The reader asked for less movement. */
export function wantsStillness() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** Call run() once in the next frame, however often it is asked for. Returns ask(). */
export function onceAFrame(run) {
  let asked = 0;
  const ask = () => {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      run();
    });
  };
  ask.cancel = () => cancelAnimationFrame(asked);
  return ask;
}
