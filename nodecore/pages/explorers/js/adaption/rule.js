// Algorithm 1 on recorded accuracies.

import { SAME_STEP } from "../constants.js";
import { clip } from "../ui/dom.js";

/** Differences of the two accuracies at each check. */
export function gaps({ train, test }) {
  return train.map((accuracy, i) => Math.abs(accuracy - test[i]));
}

/**
 * The rule with other constants. Returns the steps in use at each check, how many checks fail, and
 * the first check at which the step is another one; null for none.
 */
export function rerun(history, { threshold, decrease, increase }, [shortest, longest]) {
  const steps = [];
  let step = history.steps[0];
  let failed = 0;
  for (const gap of gaps(history)) {
    steps.push(step);
    const fails = gap > threshold;
    failed += Number(fails);
    step = clip(step * (fails ? decrease : increase), shortest, longest);
  }
  const departs = steps.findIndex((size, i) => Math.abs(size / history.steps[i] - 1) > SAME_STEP);
  return { steps, failed, departs: departs < 0 ? null : departs };
}

/** Index of the last check at or before an iteration; the first one before all. */
export function lastCheck({ iterations }, iteration) {
  const next = iterations.findIndex((each) => each > iteration);
  return next < 0 ? iterations.length - 1 : Math.max(0, next - 1);
}

/** Index of the last look at or before an iteration; -1 before all. */
export function lastLook({ looks }, iteration) {
  return looks.findLastIndex((each) => each <= iteration);
}

/** Whole steps that fill the time, the last one perhaps shorter: nodecore.ode.steps.count_steps. */
export function stepsOf(size) {
  return Math.max(1, Math.ceil((1 / size) * (1 - 1e-12)));
}
