// Start an explorer in a page without a kernel: what lies beside this script, and a model that
// keeps its state, with as much of anywidget's interface as explorers use. What the reader set is in
// the address, so that it is there again after a way back, and in a copied link.

(async (root) => {
  const { esm, state } = JSON.parse(root.querySelector("script").textContent);
  const url = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
  const { default: explorer } = await import(url);
  URL.revokeObjectURL(url);
  const begun = { ...state };
  const { restore, remember } = settings(root, state, begun);
  restore();
  const listeners = new EventTarget();
  const model = {
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      for (const event of [`change:${name}`, "change"]) listeners.dispatchEvent(new Event(event));
      remember();
    },
    on: (event, listener) => listeners.addEventListener(event, listener),
    off: (event, listener) => listeners.removeEventListener(event, listener),
    save_changes() {},
  };
  root.replaceChildren();
  explorer.render({ model, el: root });
  if (root.shadowRoot.querySelector(".failure:not([hidden])")) {
    for (const [name, value] of Object.entries(begun)) model.set(name, value); // an outdated link
  }
  root.dataset.ready = "";

  /** The settings that are not as at first, in the address after "#", one explorer beside another. */
  function settings(element, present, first) {
    const number = [...document.querySelectorAll(".nodecore-explorer")].indexOf(element);
    const prefix = `explorer${number}.`;
    const read = () => new URLSearchParams(location.hash.slice(1));
    let timer = 0;
    const write = () => {
      const all = read();
      for (const [name, value] of Object.entries(present)) {
        const text = JSON.stringify(value);
        if (name === "data" || text === JSON.stringify(first[name])) all.delete(prefix + name);
        else all.set(prefix + name, text);
      }
      const own = [...all].filter(([name]) => /^explorer\d+\./.test(name)); // no section's name
      if (own.length || location.hash.includes(prefix)) {
        const hash = own.length ? `#${new URLSearchParams(own)}` : "";
        history.replaceState(history.state, "", location.pathname + location.search + hash);
      }
    };
    return {
      restore() {
        for (const [name, text] of read()) {
          const trait = name.slice(prefix.length);
          if (!name.startsWith(prefix) || trait === "data" || !(trait in first)) continue;
          try {
            present[trait] = JSON.parse(text);
          } catch {
            // not written by an explorer
          }
        }
      },
      /** Once the numbers rest: browsers count how often an address changes. */
      remember() {
        clearTimeout(timer);
        timer = setTimeout(write, 300);
      },
    };
  }
})(document.currentScript.parentElement);
