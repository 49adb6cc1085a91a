// "Who gets in?" without a kernel: labkit itself decides, in the browser's own Python (https://pyodide.org).
// A browser doesn't load this module from a file. Then the table below the policy stays as it is.
const STARTED = `
import json, time
from labkit.course.widgets import who_gets_in
shown = who_gets_in.example(time.time)

def start():
    return json.dumps([shown.role_name, shown.policy, [vars(caller) for caller in shown.callers]])

def judge(policy, callers):
    return json.dumps(shown.judge(policy, json.loads(callers)))
`;
let python;

for (const output of document.querySelectorAll(".cell_output")) {
  if (!output.textContent.trim().startsWith("Who gets in? A simulation")) continue;
  const status = document.createElement("span");
  status.setAttribute("role", "status");
  const button = Object.assign(document.createElement("button"), { type: "button", className: "alive" });
  button.textContent = "Try it here";
  button.addEventListener("click", () => show(output, button, status));
  output.prepend(button, " ", status);
}

async function show(output, button, status) {
  button.disabled = true;
  status.textContent = "Loading Python (14 MB) …";
  try {
    python ??= load();
    const page = Object.assign(document.createElement("div"), { className: "labkit" });
    const [widget, judged] = await Promise.all([import("./who_gets_in.js"), python]);
    widget.default.render({ model: new Model(judged), el: page });
    output.replaceChildren(page);
    page.querySelector("[contenteditable]").focus();
  } catch (error) {
    python = undefined;
    button.disabled = false;
    status.textContent = `Python could not be loaded (${error.message}). The table below shows the stored verdicts.`;
  }
}

async function load() {
  const { loadPyodide } = await import("./pyodide/pyodide.mjs");
  const [started, packed] = await Promise.all([loadPyodide(), fetch(new URL("labkit.zip", import.meta.url))]);
  started.unpackArchive(await packed.arrayBuffer(), "zip");
  started.runPython(STARTED);
  return started.globals;
}

// What the widget's page expects of a notebook's model. Here, no role takes the policy.
class Model {
  constructor(globals) {
    this.globals = globals;
    this.heard = {};
    this.values = { request_number: 0, said: "" };
    this.restart();
  }

  restart() {
    const [role, policy, callers] = JSON.parse(this.globals.get("start")());
    this.changed({ role, policy, callers });
    this.save_changes();
  }

  get(name) { return this.values[name]; }

  set(name, value) { this.values[name] = value; }

  save_changes() {
    const verdicts = JSON.parse(this.globals.get("judge")(this.values.policy, JSON.stringify(this.values.callers)));
    this.changed({ verdicts: { ...verdicts, request_number: this.values.request_number } });
  }

  changed(values) {
    Object.assign(this.values, values);
    for (const name of Object.keys(values)) for (const tell of this.heard[`change:${name}`] ?? []) tell();
  }

  send(message) { if (message === "start over") this.restart(); }

  on(names, tell) { for (const name of names.split(" ")) (this.heard[name] ??= []).push(tell); }

  off() {}
}
