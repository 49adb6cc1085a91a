// A click on a column's button sorts the rows by this column. A second click reverses the order. Rows without a value
// come last.
const body = document.querySelector("tbody");
const heads = [...document.querySelectorAll("th")];
const order = new Intl.Collator("en", { numeric: true });
heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  heads.forEach((other) => other.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const value = (cell) => cell.textContent && (cell.dataset.by ?? cell.textContent);
  const rows = [...body.rows].map((row) => [value(row.cells[column]), row]);
  rows.sort(([a], [b]) => (!a - !b) || order.compare(a, b) * (ascending ? 1 : -1));
  body.append(...rows.map(([, row]) => row));
}));
