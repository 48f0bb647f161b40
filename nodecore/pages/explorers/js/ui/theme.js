// Colours that follow the page, light or dark; those of the book's figures come from Python.

import { CLASS_COLOURS, CROSSING_COLOUR } from "../constants.js";

/** The book's colours as custom properties, for the head of an explorer's style. */
export function bookColours() {
  const classes = CLASS_COLOURS.map((colour, label) => `--class-${label}: ${colour};`);
  return `.explorer { ${classes.join(" ")} --crossing: ${CROSSING_COLOUR}; }\n`;
}

/** Keep the explorer light or dark as the page is; redraw() when that changes. Returns an end. */
export function followTheme(root, redraw) {
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
