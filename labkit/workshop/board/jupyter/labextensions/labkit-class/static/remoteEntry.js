// The button "Raise hand" in each notebook's toolbar. JupyterLab loads this file as a built extension.
// https://jupyterlab.readthedocs.io/en/stable/extension/extension_dev.html, https://webpack.js.org/concepts/module-federation/
const LOOKS = 4000; // milliseconds
const LABELS = {"": "Raise hand", raised: "Hand is up", seen: "Help is coming"};
let shared;

async function plugin() {
  const [lumino] = Object.values(shared["@lumino/widgets"]);
  const {Widget} = (await lumino.get())();
  return {id: "labkit-class:hand", autoStart: true, activate: app => addButtons(app, Widget)};
}

function addButtons(app, Widget) {
  const {baseUrl} = app.serviceManager.serverSettings;
  const buttons = new Set();
  let hand = "";

  async function ask(options) {
    const secret = document.cookie.match(/(?:^|; )_xsrf=([^;]*)/)?.[1] ?? "";
    const headers = {"X-XSRFToken": secret}; // JupyterHub wants it for a GET, too
    const answer = await fetch(`${baseUrl}labkit/hand`, {headers, ...options}).catch(() => null);
    if (answer?.ok) hand = (await answer.json()).hand;
    for (const button of buttons) show(button);
  }
  function show(button) {
    if (button.textContent !== LABELS[hand]) button.textContent = LABELS[hand];
    button.setAttribute("aria-pressed", hand !== "");
    button.title = hand ? "Take your hand down" : "Ask the workshop's leader for help";
  }
  function toggle() {
    ask({method: "POST", body: JSON.stringify({up: hand === ""})});
  }
  app.docRegistry.addWidgetExtension("Notebook", {
    createNew(panel) {
      const button = document.createElement("button");
      button.className = "jp-ToolbarButtonComponent jp-mod-minimal jp-Button";
      button.addEventListener("click", toggle);
      const holder = document.createElement("div");
      holder.append(button);
      const widget = new Widget({node: holder});
      widget.addClass("jp-ToolbarButton");
      show(button);
      buttons.add(button);
      widget.disposed.connect(() => buttons.delete(button));
      panel.toolbar.insertAfter("cellType", "labkit-hand", widget);
      return widget;
    },
  });
  setInterval(() => { if (buttons.size && !document.hidden) ask(); }, LOOKS);
  ask();
}

(window._JUPYTERLAB ??= {})["labkit-class"] = {
  init(scope) { shared = scope; },
  async get() {
    const made = await plugin();
    return () => ({__esModule: true, default: made});
  },
};
