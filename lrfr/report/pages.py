"""What the HTML pages share: Markdown with formulas as MathML, and the templates in lrfr/report/templates.

nbconvert draws the notebooks and jinja2 the index, in the same frame. No page asks another host for anything: browsers
draw MathML themselves, and the style and the sorting of tables are a few lines inside each page.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from pathlib import Path

import jinja2
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, TagRemovePreprocessor
from nbformat import NotebookNode

from lrfr.errors import UserError

TEMPLATES = Path(__file__).parent / "templates"
Link = Callable[[str], str | None]  # the target of a link -> another target, or None for plain text


def mathml(latex: str, display: str) -> str:
    """LaTeX as MathML; display is "inline" or "block". UserError for commands that the converter does not know."""
    known = re.sub(r"(begin|end)\{aligned\}", r"\1{align*}", latex)  # MathJax, in JupyterLab, wants `aligned` in $$
    result = convert(known, display=display)
    if leftover := re.search(r"<mi>(\\\w+|&)</mi>", result):
        formula = " ".join(latex.split())
        raise UserError(f"formula {formula!r}: {leftover[1]!r} cannot be drawn; write it with simpler commands.")
    return result


class Renderer(IPythonRenderer):
    """nbconvert's HTML of Markdown, with MathML, an id on every heading, and links as `link` wants them."""

    def __init__(self, link: Link) -> None:
        super().__init__(escape=False)
        self.target = link

    def link(self, text: str, url: str, title: str | None = None) -> str:
        target = self.target(url)
        return text if target is None else super().link(text, target, title)

    def heading(self, text: str, level: int, **attrs) -> str:
        name = re.sub(r"\W+", "-", re.sub(r"<.*?>", "", text).lower()).strip("-")
        return f'<h{level} id="{escape(name)}">{text}</h{level}>\n'

    def block_math(self, body: str) -> str:
        return f'<span class="math">{mathml(body, "block")}</span>'  # a <div> may not stand in a paragraph

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")


def markdown(text: str, link: Link = lambda url: url) -> str:
    """Markdown with pipe tables, raw HTML and $formulas$ as HTML."""
    html = MarkdownWithMath(Renderer(link)).render(text)
    return html.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")


def inline(text: str) -> str:
    """One paragraph of Markdown without its <p>."""
    return markdown(text).strip().removeprefix("<p>").removesuffix("</p>")


def frame(html: str) -> str:
    """A data frame's own HTML without its inline style and its old-fashioned border."""
    html = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    return f'<div class="scroll">{re.sub(r" (border|style)=.[^>]*?.(?=[ >])", "", html)}</div>'


FILTERS = {"inline": inline, "frame": frame, "unlinked": lambda text: markdown(text, lambda url: None)}


def index_html(**values: object) -> str:
    """templates/index.html.j2, filled in."""
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # no autoescape, as in nbconvert: the templates escape what is not HTML already
    jinja.filters |= FILTERS
    return jinja.get_template("index.html.j2").render(values) + "\n"


def notebook_html(notebook: NotebookNode, page: dict[str, object], link: Link) -> str:
    """templates/notebook.html.j2 of an executed notebook, by nbconvert; `page` is what stands around the cells."""
    exporter = HTMLExporter(
        preprocessors=[
            TagRemovePreprocessor(enabled=True, remove_cell_tags={"parameters"}),
            CoalesceStreamsPreprocessor(enabled=True),  # where a kernel cuts what is printed depends on its timing
        ],
        template_paths=[str(TEMPLATES)],
        template_file="notebook.html.j2",
        filters={**FILTERS, "markdown2html": lambda text: markdown(text, link)},
    )
    return exporter.from_notebook_node(notebook, {"page": page})[0] + "\n"
