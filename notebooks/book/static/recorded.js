// The live picture of the calls to AWS, with the calls that are stored in the notebook: it can be stepped through without
// a kernel. `make book` puts this text after the widget's page, so that it's one script, which also loads from a file.
for (const stored of document.querySelectorAll(".cell_output script.recorded")) {
  const { calls, ...values } = JSON.parse(stored.textContent);
  if (!calls.length) continue;
  const page = Object.assign(document.createElement("div"), { className: "labkit" });
  const model = {
    get: (name) => values[name],
    on: (_, heard) => { model.heard = heard; },
    send: () => model.heard({ calls }),
  };
  stored.parentElement.replaceChildren(page);
  render({ model, el: page });
  page.querySelector(".labkit-own").remove(); // only the pods' calls are stored
}
