// Colours that follow the page, light or dark; those of the book's figures come from Python.

import { CLASS_COLOURS, CROSSING_COLOUR } from "../constants.js";

/** The book's colours as custom properties, for the head of an explorer's style. */
export function bookColours() {
  const classes = CLASS_COLOURS.map((colour, label) => `--class-${label}: ${colour};`);
  return `.explorer { ${classes.join(" ")} --crossing: ${CROSSING_COLOUR}; }\n`;
}

/**
 * Keep the explorer light or dark as the page is, and light on paper; redraw() at once when that
 * changes, for what is printed has no next frame. Returns an end.
 */
export function followTheme(root, redraw) {
  const media = matchMedia("(prefers-color-scheme: dark)");
  const paper = matchMedia("print");
  const theme = () => (isDark(media) && !paper.matches ? "dark" : "light");
  const update = () => {
    if (root.dataset.theme === theme()) return;
    root.dataset.theme = theme();
    redraw();
  };
  root.dataset.theme = theme();
  const observer = new MutationObserver(update);
  observer.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  observer.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  for (const query of [media, paper]) query.addEventListener("change", update);
  return () => {
    observer.disconnect();
    for (const query of [media, paper]) query.removeEventListener("change", update);
  };
}

/** What the book or JupyterLab says, else the reader's system. */
function isDark(media) {
  const { theme } = document.documentElement.dataset;
  if (theme === "dark" || theme === "light") return theme === "dark";
  const { jpThemeLight } = document.body.dataset;
  return jpThemeLight ? jpThemeLight === "false" : media.matches;
}

/**
 * The colours that the style defines: colour("class-0").
 *
 * @returns {Colour}
 */
export function readColours(root) {
  const style = getComputedStyle(root);
  const known = {};
  return (name) => (known[name] ??= style.getPropertyValue(`--${name}`).trim());
}

export function classColour(colour, label) {
  return colour(`class-${label % CLASS_COLOURS.length}`);
}
