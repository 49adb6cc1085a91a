// Announce the results of a report's or a question's buttons, whose own texts are ipywidgets.

export default { render };

function render({ model, el }) {
  const { line, say, end } = announcer();
  const tell = () => say(model.get("text"));
  el.append(line);
  model.on("change:text", tell);
  return () => {
    end();
    model.off("change:text", tell);
  };
}
