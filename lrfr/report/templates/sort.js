for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => row.cells[head.cellIndex].textContent.trim();
    const compare = (a, b) => {
      const x = parseFloat(a), y = parseFloat(b);
      return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
    };
    const rows = [...body.rows].filter(row => key(row) !== ""), empty = [...body.rows].filter(row => key(row) === "");
    rows.sort((a, b) => (up ? 1 : -1) * compare(key(a), key(b)));
    body.append(...rows, ...empty);
  });
}
