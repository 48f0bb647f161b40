// Trajectories off the page's thread, so that a slider follows the hand while they are computed.

import { makeNewest } from "./newest.js";
import { solveRun } from "./runs.js";

/**
 * ask(wanted) gives the newest run there is, with what was wanted of it, and has the one that is
 * wanted now computed; a picture is asked for when it is there. The very first is computed at once.
 *
 * wanted: {key, member, net, tableau, nSteps, starts} and what else belongs to the run; `member` is
 * {key, model}.
 *
 * @param {Shell} shell
 */
export function makeRunner(shell) {
  const newest = makeNewest(shell);
  return {
    /** @returns {any} */
    ask(wanted) {
      const { key, member, net, tableau, nSteps, starts } = wanted;
      const tag = { key, group: "all", wanted };
      const request = { run: { tableau, nSteps, starts } };
      const solve = () => ({ run: solveRun(net.field, tableau, starts, nSteps) });
      const { fresh, run, wanted: earlier } = newest.ask(tag, member, request, solve);
      return { ...(fresh ? wanted : earlier), run };
    },
  };
}
