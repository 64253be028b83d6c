// Tables that are sorted by a column's button and saved as CSV, as they are shown.
const make = (tag, props = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...children);
  return element;
};
const words = cell => (cell.dataset.csv ?? cell.innerText).replace(/\s+/g, " ").trim();

// -1, 0 or 1 times `sign`; numbers before words, what is empty last either way
function compare(a, b, sign) {
  const [x, y] = [a, b].map(cell => cell.dataset.value ?? words(cell));
  if (x === "" || y === "") return (x === "") - (y === "");
  const numbers = isFinite(x) && isFinite(y);
  return sign * (numbers ? x - y : x.localeCompare(y, undefined, { numeric: true }));
}

function sort(table, column, way) {
  const [body] = table.tBodies, lines = table.lines;
  const chosen = way === "none" ? lines : lines.filter(line => !line.classList.contains("group"))
    .sort((a, b) => compare(a.cells[column], b.cells[column], way === "ascending" ? 1 : -1));
  body.replaceChildren(...chosen);
  [...table.tHead.rows[0].cells].forEach((cell, i) => cell.setAttribute("aria-sort", i === column ? way : "none"));
}

const field = text => {
  const safe = /^[=@]|^[+-](?![\d.])/.test(text) ? `'${text}` : text;  // no spreadsheet takes it for a formula
  return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};
const csv = table => [table.tHead.rows[0], ...table.tBodies[0].rows].filter(line => !line.classList.contains("group"))
  .map(line => [...line.cells].map(cell => field(words(cell))).join(",")).join("\r\n") + "\r\n";

function save(table) {
  const href = URL.createObjectURL(new Blob([csv(table)], { type: "text/csv" }));
  make("a", { href, download: `${table.dataset.name}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

const NEXT = { none: "descending", descending: "ascending", ascending: "none" };
for (const table of document.querySelectorAll("table[data-name]")) {
  table.lines = [...table.tBodies[0].rows];
  [...table.tHead.rows[0].cells].forEach((cell, i) => {
    cell.dataset.csv = words(cell);
    const [name, ...more] = cell.childNodes, way = make("span", { className: "way" });  // it shows the order, by the stylesheet
    const button = make("button", { type: "button", title: cell.title || "sort" }, name, way, ...more);
    button.onclick = () => sort(table, i, NEXT[cell.getAttribute("aria-sort")]);
    cell.append(button);
    cell.setAttribute("aria-sort", "none");
  });
  const button = make("button", { type: "button", className: "download", textContent: "save as CSV" });
  button.setAttribute("aria-label", `save the table ${table.dataset.name} as CSV`);
  button.onclick = () => save(table);
  table.parentElement.after(button);
}
