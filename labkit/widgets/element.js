// Make a page's elements. Python puts this text before each module beside this file.
function make(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "role") made.setAttribute("role", value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}
