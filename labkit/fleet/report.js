// A column's button sorts the rows by it; pressed again, the other way round.
const body = document.querySelector("tbody");
const heads = [...document.querySelectorAll("th")];
heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  heads.forEach((other) => other.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const value = (row) => row.cells[column].dataset.by ?? row.cells[column].textContent;
  const order = (a, b) => value(a).localeCompare(value(b), "en", { numeric: true }) * (ascending ? 1 : -1);
  body.append(...[...body.rows].sort(order));
}));
