// Tables that sort by a click on a heading, and buttons that copy a command.
function sortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const text = row.cells[column].textContent, value = parseFloat(text);
        return Number.isNaN(value) ? text : value;
      };
      const compare = (a, b) => {
        const [p, q] = [key(a), key(b)];
        if (typeof p !== typeof q) return typeof p === "number" ? -1 : 1; // what is not known comes last
        const order = p < q ? -1 : p > q ? 1 : 0;
        return down ? -order : order;
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
    });
  });
}

for (const table of document.querySelectorAll("table.sortable")) sortable(table);

function select(node) {
  const range = document.createRange();
  range.selectNodeContents(node);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
}

document.addEventListener("click", async (event) => {
  if (!event.target.classList.contains("copy")) return;
  const button = event.target, code = button.parentElement.querySelector("code");
  select(code); // where there is no clipboard, it is at least selected
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "copied";
  } catch {
    button.textContent = document.execCommand("copy") ? "copied" : "selected";
  }
  setTimeout(() => { button.textContent = "copy"; }, 1500);
});
