"""The look of the pages and the few lines of JavaScript that sort tables."""

CSS = """\
:root { color-scheme: light dark; --ink: #1d2329; --soft: #5b6670; --paper: #ffffff; --wash: #f4f6f8;
    --line: #dde2e7; --accent: #0b62a8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dfe4e8; --soft: #9aa5af; --paper: #14181c; --wash: #1d2329; --line: #343c44; --accent: #7cbcf0; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 17px/1.6 Charter, Georgia, "DejaVu Serif", serif; }
main, nav { max-width: 54rem; margin: 0 auto; padding: 0 1.1rem; overflow-wrap: break-word; }
main { padding-bottom: 4rem; }
.index main, .index nav { max-width: 64rem; }
.index main > p, .index main > ul { max-width: 46rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1rem 2rem;
    align-items: start; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; justify-content: space-between; padding-top: 1rem;
    padding-bottom: .6rem; }
nav, table, figcaption, button, .lead { font-family: system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
nav, figcaption, table { font-size: .82rem; line-height: 1.45; }
h1, h2, h3 { line-height: 1.25; margin: 2.2em 0 .6em; font-weight: 650; }
h1 { font-size: 1.9rem; margin-top: .8em; }
h2 { font-size: 1.35rem; padding-top: .5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.08rem; }
a { color: var(--accent); text-underline-offset: .15em; }
code, pre { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .82rem; }
code { background: var(--wash); padding: .1em .25em; border-radius: 3px; }
pre { background: var(--wash); padding: .7rem .9rem; border-radius: 6px; overflow-x: auto; line-height: 1.45; margin: 1rem 0; }
h1 code { font-size: .85em; }
pre code { background: none; padding: 0; }
pre.printed { white-space: pre-wrap; background: none; border-left: 3px solid var(--line); border-radius: 0; }
figure { margin: 1.6rem 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #fff; border-radius: 6px;
    padding: .3rem; }
figcaption { color: var(--soft); margin-top: .5rem; }
figcaption small { font-size: inherit; display: block; }
.math, .scroll { overflow-x: auto; overflow-y: hidden; margin: 1rem 0; }
math { font-size: 1.08em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .7rem .28rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
    white-space: nowrap; }
main > .scroll > table:not(.sortable):not(.dataframe) td { white-space: normal; min-width: 6rem; }
th { color: var(--soft); font-weight: 600; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; text-align: left; }
th button::after { content: " \\2195"; opacity: .45; }
th[aria-sort=ascending] button::after { content: " \\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: " \\2193"; opacity: 1; }
details { border: 1px solid var(--line); border-radius: 6px; padding: .4rem .9rem; margin: .8rem 0; }
summary { cursor: pointer; }
blockquote { margin: 1rem 0; padding-left: 1rem; border-left: 3px solid var(--line); color: var(--soft); }
.lead { color: var(--soft); font-size: .95rem; }
.cards { list-style: none; padding: 0; }
.cards li { margin: 0 0 .9rem; }
.cards p { margin: 0; color: var(--soft); font-size: .92rem; line-height: 1.45; }
.code .k, .code .kn, .code .kc, .code .ow { color: #a1258d; }
.code .s1, .code .s2, .code .sd, .code .sa, .code .si { color: #2c6e2f; }
.code .c1, .code .ch { color: #687079; font-style: italic; } .code .mi, .code .mf { color: #9a4b00; }
.code .nf, .code .nc { color: #0b62a8; }
@media (prefers-color-scheme: dark) {
  .code .k, .code .kn, .code .kc, .code .ow { color: #e39adf; }
  .code .s1, .code .s2, .code .sd, .code .sa, .code .si { color: #9bd39d; }
  .code .c1, .code .ch { color: #8b969f; } .code .mi, .code .mf { color: #e8b07a; } .code .nf, .code .nc { color: #7cbcf0; }
  figure img { filter: brightness(.9); }
}
@media print { nav { display: none; } figure { break-inside: avoid; } }
"""

SORT = """\
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
"""
