// Trajectories off the page's thread, so that a slider follows the hand while they are computed.

import { makeAssistant } from "./assistant.js";
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
  let newest = null;
  const assistant = makeAssistant(shell, "explorer-run", (data, tag) => {
    newest = { ...tag.wanted, run: data.run };
    shell.ask();
  });
  return {
    /** @returns {any} */
    ask(wanted) {
      const { key, member, net, tableau, nSteps, starts } = wanted;
      newest ??= { ...wanted, run: solveRun(net.field, tableau, starts, nSteps) };
      if (newest.key === key) return { ...wanted, run: newest.run };
      assistant.want({ key, wanted }, member, { run: { tableau, nSteps, starts } });
      return newest;
    },
  };
}
