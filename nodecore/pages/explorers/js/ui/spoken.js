// What is told to those who listen.

import { h } from "./dom.js";

/** A text, {element, say(text)}: it is said once what it tells rests, not at every frame. */
export function makeSpoken(className) {
  const element = h("p", { class: className, "aria-live": "polite" });
  let timer = 0;
  return {
    element,
    say(text) {
      clearTimeout(timer);
      timer = setTimeout(() => {
        if (element.textContent !== text) element.textContent = text;
      }, 300);
    },
  };
}
