// Time that can be set, played and paused: a button and a slider bound to one trait.

import { button, slider } from "./controls.js";
import { h, row, wantsStillness } from "./dom.js";

const STILL_PICTURES = 10; // that replace the movement for a reader who asked for less of it

/**
 * `trait` goes from 0 to last() within `seconds`, as whole values where `round` is Math.round.
 * scale: {toPosition, toValue, nudge} of the slider. The moment that is shown, now(), may be ahead
 * of the trait, which is written when the movement rests.
 *
 * @param {Shell} shell
 */
export function makeClock(shell, { trait, label, scale, seconds, last, round = (t) => t }) {
  const { model, put, ask } = shell;
  let now = model.get(trait);
  let held = false; // by the hand, which a finger does not show as `:active`
  const rest = () => put({ [trait]: now });
  const letGo = () => {
    held = false;
    rest();
  };
  const replay = makeReplay({ update: shell.redraw, ask, rest });
  const track = slider(label, {
    ...scale,
    onInput(value) {
      replay.stop();
      now = value;
      if (held) ask();
      else rest(); // by keyboard, or where a browser takes a drag back
    },
    onChange: letGo,
  });
  track.element.addEventListener("pointerdown", ({ button }) => (held = button === 0));
  for (const end of ["pointerup", "pointercancel"]) track.element.addEventListener(end, letGo);
  const text = h("span", { class: "now", "aria-hidden": "true" }); // the slider says it aloud
  const play = button("play", () => (replay.isRunning() ? replay.stop() : begin()));
  shell.onEnd(replay.cancel);

  function begin() {
    if (now >= last()) now = 0;
    const from = now;
    const jump = wantsStillness() ? last() / STILL_PICTURES : 0;
    replay.start((gone) => {
      const exact = (gone / seconds) * last();
      now = Math.min(last(), round(from + (jump ? Math.floor(exact / jump) * jump : exact)));
      return now < last();
    });
  }
  return {
    element: row("row", play, track, text),
    now: () => now,
    stop: replay.stop,
    /** Take what the trait says, unless the reader or the replay moves the time just now. */
    follow() {
      if (!replay.isRunning() && !held) now = model.get(trait);
      now = Math.min(now, last());
    },
    show(what) {
      track.show(now, what);
      text.textContent = what;
      play.show(replay.isRunning() ? "pause" : "play");
    },
  };
}

/**
 * A movement: start(advance) calls advance(seconds since the first frame) in each frame, then
 * update(), until it returns false; rest() follows its end or a stop, which asks for a last picture.
 */
function makeReplay({ update, ask, rest }) {
  let frame = 0;
  const cancel = () => {
    cancelAnimationFrame(frame);
    frame = 0;
  };
  return {
    cancel,
    isRunning: () => frame !== 0,
    start(advance) {
      let origin = null; // a frame's clock may be behind performance.now()
      const tick = (clock) => {
        origin ??= clock;
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
