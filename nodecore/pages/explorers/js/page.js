// Start an explorer in a page without a kernel: what lies beside this script, and a model that
// keeps its state, with as much of anywidget's interface as explorers use.

(async (root) => {
  const { esm, state } = JSON.parse(root.querySelector("script").textContent);
  const url = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
  const { default: explorer } = await import(url);
  URL.revokeObjectURL(url);
  const listeners = new EventTarget();
  const model = {
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      for (const event of [`change:${name}`, "change"]) listeners.dispatchEvent(new Event(event));
    },
    on: (event, listener) => listeners.addEventListener(event, listener),
    off: (event, listener) => listeners.removeEventListener(event, listener),
    save_changes() {},
  };
  root.replaceChildren();
  explorer.render({ model, el: root });
  root.dataset.ready = "";
})(document.currentScript.parentElement);
