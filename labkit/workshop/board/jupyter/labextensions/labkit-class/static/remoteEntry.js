// The button "Raise hand" in each notebook's toolbar, and the banner below it that says what the leader ordered. JupyterLab loads this file as a built extension.
// https://jupyterlab.readthedocs.io/en/stable/extension/extension_dev.html, https://webpack.js.org/concepts/module-federation/
const LOOKS = 2000; // milliseconds
const CLOSED = {text: "This lab is closed to you. If it's yours, reload the page. Otherwise its participant has ended your visit: close the page."};
const LABELS = {"": "Raise hand", raised: "Hand is up", seen: "Help is coming"};
let shared;

async function plugin() {
  const [lumino] = Object.values(shared["@lumino/widgets"]);
  const {Widget} = (await lumino.get())();
  return {id: "labkit-class:hand", autoStart: true, activate: app => follow(app, Widget)};
}

function follow(app, Widget) {
  const {baseUrl} = app.serviceManager.serverSettings;
  const buttons = new Set(), banners = new Set();
  let hand = "", banner = {};

  async function ask(options) {
    const secret = document.cookie.match(/(?:^|; )_xsrf=([^;]*)/)?.[1] ?? "";
    const headers = {"X-XSRFToken": secret}; // JupyterHub wants it for a GET, too
    const at = encodeURIComponent(app.shell.currentWidget?.context?.path ?? "");
    const answer = await fetch(`${baseUrl}labkit/class?at=${at}`, {headers, ...options}).catch(() => null);
    if (answer?.ok) ({hand, banner} = await answer.json());
    if (answer?.status === 403) banner = CLOSED;
    for (const button of buttons) show(button);
    for (const each of banners) showBanner(each);
  }
  function show(button) {
    if (button.textContent !== LABELS[hand]) button.textContent = LABELS[hand];
    button.setAttribute("aria-pressed", hand !== "");
    button.title = hand ? "Take your hand down" : "Ask the workshop's leader for help";
  }
  function toggle() {
    ask({method: "POST", body: JSON.stringify({up: hand === ""})});
  }
  function showBanner({text, choices, widget}) {
    const shown = JSON.stringify(banner);
    if (widget.shown === shown) return;
    widget.shown = shown;
    widget.setHidden(!banner.text);
    text.textContent = banner.text ?? "";
    choices.replaceChildren(...Object.entries(banner.buttons ?? {}).map(([name, label]) => {
      const button = document.createElement("button");
      button.className = "jp-Button jp-mod-styled jp-mod-accept";
      button.textContent = label;
      button.addEventListener("click", () => press(name));
      return button;
    }));
  }
  async function press(name) {
    const {opens} = banner;
    for (const {choices} of banners) choices.replaceChildren("One moment …");
    for (const {widget} of banners) delete widget.shown; // perhaps the same is shown again
    await ask({method: "POST", body: JSON.stringify({press: name})});
    if (opens && name === "close") app.commands.execute("docmanager:open", {path: opens});
  }
  function addBanner(panel) {
    const [node, row, text, choices] = ["div", "div", "span", "span"].map(name => document.createElement(name));
    row.style.cssText = "align-items: center; background: var(--jp-layout-color2); border-left: 6px solid " +
      "var(--jp-warn-color1); color: var(--jp-ui-font-color0); display: flex; flex-wrap: wrap; gap: 4px 12px; padding: 6px 12px; white-space: normal";
    text.style.cssText = "flex: 1 1 24em; overflow-wrap: anywhere";
    choices.style.cssText = "display: flex; flex-wrap: wrap; gap: 6px";
    text.setAttribute("role", "status"); // a screen reader says it when it changes
    row.append(text, choices);
    node.append(row);
    const each = {text, choices, widget: new Widget({node})};
    // JupyterLab gives a widget the height that it asks for.
    new ResizeObserver(() => {
      node.style.minHeight = `${row.offsetHeight}px`;
      each.widget.parent?.fit();
    }).observe(row);
    banners.add(each);
    each.widget.disposed.connect(() => banners.delete(each));
    panel.contentHeader.addWidget(each.widget);
    showBanner(each);
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
      addBanner(panel);
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
