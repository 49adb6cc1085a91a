// The functions that the pages share. Python puts this text before each of the other modules in this folder.
function make(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    // Older browsers have no properties for these.
    if (/^(role$|aria-)/.test(name)) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

const SAID_AFTER = 500; // milliseconds

// A line that screen readers announce, but that isn't visible. It has to exist before it gets its text.
// JupyterLab's status bar changes when a call begins and ends, and Orca announces only the first of two changes within
// 0.1 s. So each text waits until the status bar is still.
function announcer() {
  const line = make("span", { className: "labkit-unseen", role: "status" });
  let waiting;
  function say(text) {
    clearTimeout(waiting);
    waiting = setTimeout(() => { line.textContent = text; }, SAID_AFTER);
  }
  return { line, say, end: () => clearTimeout(waiting) };
}
