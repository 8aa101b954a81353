// Tables sort by a click on a column's name. Without JavaScript they stand in their own order.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const value = (row, column) => row.cells[column].textContent.trim();
  const number = (text) => parseFloat(text.replace("−", "-").replace("≥", ""));
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      // Figures start with the greatest, names with A.
      const rows = [...body.rows].filter((row) => !row.classList.contains("all"));
      const last = [...body.rows].filter((row) => row.classList.contains("all"));
      const figures = rows.some((row) => !isNaN(number(value(row, column))));
      const was = head.getAttribute("aria-sort");
      const descending = was ? was === "ascending" : figures;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const compare = (a, b) => {
        if (!figures) return value(a, column).localeCompare(value(b, column));
        const [x, y] = [number(value(a, column)), number(value(b, column))];
        if (isNaN(x) || isNaN(y)) return (isNaN(x) - isNaN(y)) * (descending ? -1 : 1);
        return x - y;
      };
      rows.sort((a, b) => (descending ? -1 : 1) * compare(a, b));
      body.append(...rows, ...last);
    });
  });
}
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not(.long)")) part.open = true;
});
