// What takes longer than a frame and comes from the worker: the accuracy over all points, the class
// of every start in the view, the accuracy against the number of steps.

import { makeAssistant } from "../compute/assistant.js";

/**
 * ask(wanted) tells what is known for a state, {accuracy, fresh, stale, curve, regions}, and has the
 * worker compute what is not; a picture is asked for when it answers. accuracy is null until it is
 * there; `stale` is then the one that came last, and so may `regions` be of another state, which
 * have the place that they belong to.
 *
 * @param {Shell} shell
 * @param {Pick<Scale, "ticks">} scale
 */
export function makeAnswers(shell, scale) {
  const known = { accuracy: null, regions: null, curves: new Map() };
  let wantedKey = null;
  const assistant = makeAssistant(shell, (data, tag) => {
    if (data.accuracy !== undefined) {
      known.accuracy = data.accuracy;
      curveOf(tag.curve).set(tag.nSteps, data.accuracy);
    }
    if (data.regions && improves(data, tag)) {
      known.regions = { ...data, key: tag.key, place: tag.place };
    }
    if (data.nSteps) curveOf(tag.curve).set(data.nSteps, data.value);
    shell.ask();
    return true;
  });

  /** Not where those that are wanted are there: then neither others do, nor coarser ones. */
  function improves({ size }, { key }) {
    if (known.regions?.key !== wantedKey) return true;
    return key === wantedKey && size > known.regions.size;
  }

  function curveOf(key) {
    if (!known.curves.has(key)) known.curves.set(key, new Map());
    return known.curves.get(key);
  }

  return {
    ask({ dataset, tableau, nSteps, keys, regions, member, view }) {
      const wanted = regions === "starts";
      const curve = curveOf(keys.curve);
      wantedKey = `${keys.run} ${keys.place} ${wanted}`;
      assistant.want(
        { ...keys, nSteps, key: wantedKey },
        { ...member, x: dataset.x, y: dataset.y },
        {
          setting: { tableau, nSteps },
          view: wanted ? view : null,
          curve: scale.ticks.map(([n]) => n).filter((n) => !curve.has(n)),
        },
      );
      const fresh = curve.has(nSteps);
      if (fresh) known.accuracy = curve.get(nSteps);
      return {
        fresh,
        accuracy: fresh ? known.accuracy : null,
        stale: known.accuracy,
        curve,
        regions: known.regions,
      };
    },
  };
}
