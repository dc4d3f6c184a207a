"""What the pages share: Markdown with formulas as MathML, and the templates in lrfr/report/templates.

No HTML page asks another host for anything: browsers draw MathML, and style and sorting are lines inside each page.
"""

import re
from collections.abc import Callable
from html import escape
from pathlib import Path

import jinja2
from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from lrfr import formats
from lrfr.errors import UserError

TEMPLATES = Path(__file__).parent / "templates"
Link = Callable[[str], str | None]  # the target of a link -> another target, or None for plain text


def mathml(latex: str, display: str) -> str:
    """LaTeX as MathML; display is "inline" or "block". UserError for commands that the converter does not know."""
    known = re.sub(r"(begin|end)\{aligned\}", r"\1{align*}", latex)  # MathJax, in JupyterLab, wants `aligned` in $$
    result = convert(known, display=display)
    if leftover := re.search(r"<mi>(\\\w+|&)</mi>", result):
        raise UserError(
            f"formula '{' '.join(latex.split())}': '{leftover[1]}' cannot be drawn; write it with simpler commands."
        )
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


def frame(html: str) -> str:
    """A data frame's own HTML without its inline style and its old-fashioned border."""
    html = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    return f'<div class="scroll">{re.sub(r" (border|style)=.[^>]*?.(?=[ >])", "", html)}</div>'


FILTERS = {
    "inline": lambda text: markdown(text).strip().removeprefix("<p>").removesuffix("</p>"),  # one paragraph
    "unlinked": lambda text: markdown(text, lambda url: None),
    "frame": frame,
    "table": formats.markdown,  # a data frame as a pipe table
}
JINJA = jinja2.Environment(  # no autoescape, as in nbconvert: the templates escape what is not HTML already
    loader=jinja2.FileSystemLoader(TEMPLATES), trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
)
JINJA.filters |= FILTERS


def filled(template: str, **values: object) -> str:
    """A file of templates/, filled in."""
    return JINJA.get_template(template).render(values) + "\n"
