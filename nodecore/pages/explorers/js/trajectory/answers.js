// What takes longer than a frame and comes from the worker: the accuracy over all points, the class
// of every start in the view, the accuracy against the number of steps.

import { makeAssistant } from "../compute/assistant.js";

/**
 * ask(wanted) tells what is known for a state, {accuracy, fresh, stale, curve, regions}, and has the
 * worker compute what is not; a picture is asked for when it answers. accuracy is null until it is
 * there; `stale` is the one that was there before, and so may `regions` be, which have a key.
 *
 * @param {Shell} shell
 * @param {Pick<Scale, "ticks">} scale
 */
export function makeAnswers(shell, scale) {
  const known = { accuracy: null, regions: null, curves: new Map() };
  const assistant = makeAssistant(shell, "explorer-accuracy", (data, tag) => {
    if (data.accuracy !== undefined) {
      known.accuracy = { key: tag.run, value: data.accuracy };
      curveOf(tag.curve).set(tag.nSteps, data.accuracy);
    }
    if (data.regions) known.regions = { ...data, key: tag.place };
    if (data.nSteps) curveOf(tag.curve).set(data.nSteps, data.value);
    shell.ask();
  });

  function curveOf(key) {
    if (!known.curves.has(key)) known.curves.set(key, new Map());
    return known.curves.get(key);
  }

  return {
    ask({ dataset, tableau, nSteps, keys, regions, member, view }) {
      const wanted = regions === "starts";
      const curve = curveOf(keys.curve);
      assistant.want(
        { ...keys, nSteps, key: `${keys.run} ${keys.place} ${wanted}` },
        { ...member, x: dataset.x, y: dataset.y },
        {
          setting: { tableau, nSteps },
          view: wanted ? view : null,
          curve: scale.ticks.map(([n]) => n).filter((n) => !curve.has(n)),
        },
      );
      const fresh = known.accuracy?.key === keys.run;
      return {
        fresh,
        accuracy: fresh ? known.accuracy.value : null,
        stale: known.accuracy?.value ?? null,
        curve,
        regions: known.regions,
      };
    },
  };
}
