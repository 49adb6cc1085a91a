// Who gets in? The policy and the claims are edited here; Python decides, and sends the verdicts back.
// Every text is set as text, never as HTML: a claim with markup in it shows the markup.

const CLAIMS = [
  ["iss", "iss, the issuer"],
  ["sub", "sub, the service account"],
  ["aud", "aud, who the token is for"],
];
const SLOW = 1000; // milliseconds after which the page says that it waits for an answer

export default { render };

function render({ model, el }) {
  const id = `labkit-${Math.random().toString(36).slice(2)}`;
  let chosen = 0;
  let waiting;

  const name = make("span", { id: `${id}-policy` }, `The trust policy of ${model.get("role")}`);
  const place = make("div", { className: "labkit-editor" });
  const editor = codemirror.policyEditor({ parent: place, labelledBy: name.id, changed: (policy) => ask({ policy }) });
  const caller = make("select", { id: `${id}-caller` });
  const inputs = CLAIMS.map(([name]) => make("input", { id: `${id}-${name}`, spellcheck: false }));
  const minutes = make("input", { id: `${id}-minutes`, type: "number", step: "1" });
  const apply = make("button", { type: "button", className: "labkit-button" },
    `Make it real: give ${model.get("role")} this policy`);
  const startOver = make("button", { type: "button", className: "labkit-button" }, "Start over");
  const headline = make("p", { className: "labkit-headline" });
  const rows = make("div", { className: "labkit-verdicts" });
  const said = make("p", { className: "labkit-said" });
  const announced = announcer();

  el.classList.add("labkit-page");
  el.append(
    make("p", {}, make("strong", {}, "Who gets in?"), " ",
      make("span", { className: "labkit-state labkit-there" }, "a simulation"),
      " STS isn't asked, and every signature counts as genuine."),
    make("div", { className: "labkit-two" },
      make("div", {},
        name,
        place,
        make("div", { className: "labkit-buttons" },
          ...(model.get("can_apply") ? [apply] : []), startOver),
        ...(model.get("can_apply") !== false ? [] : [make("p", {}, "This account isn't the lab's own: change the role with ",
          make("code", {}, "aws iam update-assume-role-policy"), ".")]),
        said),
      make("div", { className: "labkit-told" }, headline, rows),
      make("fieldset", {},
        make("legend", {}, "Change a claim"),
        field("whose token", caller),
        ...CLAIMS.map(([, label], n) => field(label, inputs[n])),
        field("exp, in minutes from now", minutes))),
    announced.line);

  const callers = () => model.get("callers");

  function ask(changes) {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.set("request_number", model.get("request_number") + 1);
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      headline.textContent = "Waiting for the kernel: these verdicts are older than your last change.";
    }, SLOW);
    model.save_changes(); // the book answers within this call
  }

  function change(name, value) {
    ask({ callers: callers().map((each, n) => (n === chosen ? { ...each, [name]: value } : each)) });
  }

  function showCallers() {
    if (caller.options.length !== callers().length) {
      caller.replaceChildren(...callers().map((each, n) => make("option", { value: n }, each.name)));
    }
    caller.value = chosen;
    const fields = [...CLAIMS.map(([name], n) => [inputs[n], name]), [minutes, "minutes"]];
    for (const [input, name] of fields) {
      const value = String(callers()[chosen]?.[name] ?? "");
      if (input.value !== value && input !== el.ownerDocument.activeElement) input.value = value;
    }
  }

  function showVerdicts() {
    const { problem, rows: verdicts, headline: told, request_number } = model.get("verdicts");
    if (request_number !== model.get("request_number")) return;
    clearTimeout(waiting);
    editor.mark(problem);
    if (problem) {
      headline.textContent = "There are no verdicts yet: correct this first.";
      rows.replaceChildren(make("div", { className: "labkit-problem" },
        make("p", {}, problem.what),
        make("p", {}, "Next: ", problem.next, "."),
        problem.line ? lineButton(problem.line) : ""));
      return;
    }
    headline.textContent = told;
    rows.replaceChildren(make("ul", {}, ...verdicts.map(verdict)));
  }

  function verdict({ admitted, mark, who, decides, line, reason }) {
    return make("li", {},
      make("span", { className: `labkit-state labkit-${admitted ? "right" : "wrong"}` }, mark),
      " ", make("strong", {}, who), ", ",
      ...(line ? ["by ", lineButton(line)] : [decides]),
      make("div", { className: "labkit-faint" }, reason));
  }

  function lineButton(line) {
    const button = make("button", { type: "button", className: "labkit-line", title: "Select this line in the policy" },
      `line ${line}`);
    button.addEventListener("click", () => editor.select(line));
    return button;
  }

  // In command mode, JupyterLab would handle some of these keys itself.
  for (const type of ["keydown", "keyup", "keypress"]) el.addEventListener(type, (event) => event.stopPropagation());
  name.addEventListener("click", editor.focus);
  caller.addEventListener("change", () => { chosen = Number(caller.value); showCallers(); });
  CLAIMS.forEach(([name], n) => inputs[n].addEventListener("input", () => change(name, inputs[n].value)));
  minutes.addEventListener("input", () => change("minutes", Number(minutes.value)));
  apply.addEventListener("click", () => model.send("apply"));
  startOver.addEventListener("click", () => model.send("start over"));

  const shown = { policy: () => editor.show(model.get("policy")), callers: showCallers, verdicts: showVerdicts,
    said: () => { said.textContent = model.get("said"); } };
  for (const [name, show] of Object.entries(shown)) {
    model.on(`change:${name}`, show);
    show();
  }
  const announce = () => {
    const { problem } = model.get("verdicts");
    const texts = [model.get("said"), headline.textContent, problem && `${problem.what} Next: ${problem.next}.`];
    announced.say(texts.filter(Boolean).join(" "));
  };
  model.on("change:verdicts change:said", announce);
  return () => {
    clearTimeout(waiting);
    announced.end();
    editor.end();
    model.off("change:verdicts change:said", announce);
    for (const [name, show] of Object.entries(shown)) model.off(`change:${name}`, show);
  };

  function field(label, input) {
    return make("div", { className: "labkit-field" }, make("label", { htmlFor: input.id }, label), input);
  }
}
