// Announce the result after a button is pressed in a report or a question. Those are ipywidgets, and announce nothing.

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
