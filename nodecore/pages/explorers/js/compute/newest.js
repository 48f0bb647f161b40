// The newest answer of a worker, which is shown until the one that is wanted now is there.

import { makeAssistant } from "./assistant.js";

/**
 * ask(tag, member, request, solve) gives the newest answer there is, with the tag that it belongs
 * to, `fresh` where that is this one, and has the worker compute what is not; a picture is asked for
 * when it is there. tag.key names what is wanted. Of another tag.group than the newest answer it is
 * computed at once, by solve(), for nothing of an earlier group may be shown.
 *
 * @param {Shell} shell
 */
export function makeNewest(shell) {
  let newest = { key: null, group: null };
  let wanted = null;
  const assistant = makeAssistant(shell, (data, tag) => {
    // The reader may have gone on to another group meanwhile, or back to what is shown.
    const isWanted = tag.group === newest.group && newest.key !== wanted;
    if (isWanted) newest = { ...tag, ...data };
    shell.ask();
    return isWanted;
  });
  return {
    /** @returns {any} */
    ask(tag, member, request, solve) {
      wanted = tag.key;
      if (newest.group !== tag.group) newest = { ...tag, ...solve() };
      const fresh = newest.key === wanted;
      if (!fresh) assistant.want(tag, member, request);
      return { ...newest, fresh };
    },
  };
}
