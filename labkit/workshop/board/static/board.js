// The names' key, what a screen reader hears, and the line that says that the board is old.
const names = document.getElementById("names");
function hideNames() {
  const hidden = document.body.classList.toggle("nameless");
  names.setAttribute("aria-pressed", hidden);
}
names.addEventListener("click", hideNames);
document.addEventListener("keydown", event => {
  if (event.key === "n" && !event.ctrlKey && !event.metaKey && !event.altKey) hideNames();
});

const said = document.getElementById("said"), lost = document.getElementById("lost");
document.body.addEventListener("htmx:afterSwap", () => {
  const counts = document.getElementById("counts").textContent;
  if (said.textContent !== counts) said.textContent = counts;
});
document.body.addEventListener("htmx:afterRequest", event => { lost.hidden = event.detail.successful; });
