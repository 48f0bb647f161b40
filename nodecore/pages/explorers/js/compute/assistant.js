// The page's side of the worker: one request at a time, always the newest state.

// @ts-expect-error: the bundler puts the bundled worker here as text
import WORKER from "./worker.js" with { type: "text" };

/**
 * A worker at one's service. want(tag, member, request) sends what worker.js takes, unless that was
 * asked last or a first answer is under way; tag.key names what is asked, `member` is {key, model,
 * x, y}. onAnswer(data, tag) gets the answers to the newest request and tells whether it takes them:
 * what it does not take may be asked again.
 *
 * @param {Shell} shell
 * @param {(data: any, tag: any) => boolean} onAnswer
 */
export function makeAssistant(shell, onAnswer) {
  const url = URL.createObjectURL(new Blob([WORKER], { type: "text/javascript" }));
  const worker = new Worker(url);
  /** @type {any} */
  let sent = { id: 0, tag: {}, member: null, busy: false };

  worker.onerror = (event) => shell.fail(`its worker fails (${event.message})`);
  worker.onmessage = ({ data }) => {
    if (data.id !== sent.id) return;
    sent.busy = false;
    if (!onAnswer(data, sent.tag)) sent.tag = {};
  };
  shell.onEnd(() => {
    worker.terminate();
    URL.revokeObjectURL(url);
  });
  return {
    want(tag, member, request) {
      if (sent.busy || sent.tag.key === tag.key) return;
      const { model, x, y } = member;
      if (sent.member !== member.key) worker.postMessage({ model, x, y });
      const id = sent.id + 1;
      sent = { id, tag, member: member.key, busy: true };
      worker.postMessage({ id, ...request });
    },
  };
}
