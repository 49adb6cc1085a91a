// An element of a page, for the modules beside this file: Python puts this text before theirs.
function make(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "role") made.setAttribute("role", value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}
