// Tables sort by a click on a column's name. Without JavaScript they stand in their own order.
"use strict";
const number = (text) => parseFloat(text.replace("−", "-").replace("≥", ""));

// What compares two rows by the texts of a column: figures start with the greatest, names with A.
function comparison(texts, descending, figures) {
  return (a, b) => {
    if (!figures) return (descending ? -1 : 1) * texts(a).localeCompare(texts(b));
    const [x, y] = [number(texts(a)), number(texts(b))];
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
    return (descending ? -1 : 1) * (x - y);
  };
}

// Calls sort(column, how) when a column's name is clicked, where how(rows, texts) sorts rows by their texts.
function sortable(table, sort) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      sort(column, (rows, texts) => {
        const figures = rows.some((row) => !isNaN(number(texts(row))));
        const was = head.getAttribute("aria-sort");
        const descending = was ? was === "ascending" : figures;
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        rows.sort(comparison(texts, descending, figures));
      });
    });
  });
}

for (const table of document.querySelectorAll("table.sortable:not(.paged)")) {
  const body = table.tBodies[0];
  sortable(table, (column, how) => {
    const rows = [...body.rows].filter((row) => !row.classList.contains("all"));
    const last = [...body.rows].filter((row) => row.classList.contains("all"));
    how(rows, (row) => row.cells[column].textContent.trim());
    body.append(...rows, ...last);
  });
}

// A table of very many rows holds them as data, and shows a page of those that are asked for.
for (const table of document.querySelectorAll("table.paged")) {
  const scroll = table.parentElement;
  const data = scroll.parentElement.querySelector("script[type='application/json']");
  const form = scroll.parentElement.querySelector("form.pager");
  const { rows, size } = JSON.parse(data.textContent);
  const styles = [...table.tHead.rows[0].cells].map((head) => head.className);
  let page = 0;
  const show = () => {
    const asked = ["source", "target"].map((name) => form.elements[name].value.trim());
    const found = rows.filter((row) => asked.every((text, column) => !text || row[column] === text));
    const pages = Math.max(1, Math.ceil(found.length / size));
    page = Math.min(Math.max(page, 0), pages - 1);
    const body = document.createElement("tbody");
    for (const row of found.slice(page * size, (page + 1) * size)) {
      const line = body.insertRow();
      row.forEach((text, column) => {
        const cell = line.insertCell();
        const signed = /^[+-]\d+(\.\d+)?$/.test(text) && parseFloat(text) !== 0;
        cell.className = styles[column] + (signed ? (text[0] === "+" ? " gain" : " drop") : "");
        cell.textContent = /^-\d/.test(text) ? text.replace("-", "−") : text;
      });
    }
    table.tBodies[0].replaceWith(body);
    form.querySelector("span").textContent =
      `page ${page + 1} of ${pages}, ${found.length.toLocaleString("en")} directions`;
    form.elements.back.disabled = page === 0;
    form.elements.on.disabled = page === pages - 1;
  };
  sortable(table, (column, how) => {
    how(rows, (row) => row[column]);
    page = 0;
    show();
  });
  form.elements.back.addEventListener("click", () => { page -= 1; show(); });
  form.elements.on.addEventListener("click", () => { page += 1; show(); });
  form.addEventListener("input", () => { page = 0; show(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  show();
}

// A map of very many languages is an image; its cells say what they hold when they are pointed at.
for (const figure of document.querySelectorAll("figure.picture")) {
  const image = figure.querySelector("img");
  const { names, titles } = JSON.parse(figure.querySelector("script").textContent);
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  figure.append(tip);
  image.addEventListener("pointermove", (event) => {
    const at = (place, across) => Math.min(names.length - 1, Math.max(0, Math.floor((place / across) * names.length)));
    const box = image.getBoundingClientRect();
    const row = at(event.clientY - box.top, box.height);
    const column = at(event.clientX - box.left, box.width);
    const title = titles[row][column];
    tip.hidden = row === column && !title;
    tip.textContent = `${names[row]} → ${names[column]}` + (title ? `: ${title}` : "");
    const left = event.clientX > innerWidth / 2;
    tip.style.left = left ? "auto" : `${event.clientX + 14}px`;
    tip.style.right = left ? `${innerWidth - event.clientX + 14}px` : "auto";
    tip.style.top = `${event.clientY + 14}px`;
  });
  image.addEventListener("pointerleave", () => { tip.hidden = true; });
}

addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not(.long)")) part.open = true;
});
