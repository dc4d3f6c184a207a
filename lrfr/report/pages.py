"""Small self-contained HTML: Markdown with MathML, highlighted code, tables, and the frame around a page.

Nothing here asks another host for anything: formulas become MathML, which browsers draw themselves, and the style and the
sorting of tables are a few lines inside each page.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape

import mistune
import pandas as pd
from latex2mathml.converter import convert
from mistune.plugins.math import math as dollar_math
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from lrfr.errors import UserError
from lrfr.report.style import CSS, SORT

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def mathml(latex: str, display: str) -> str:
    """LaTeX as MathML; display is "inline" or "block".

    Raises
    ------
    UserError
        for commands and environments that the converter does not know.
    """
    known = re.sub(r"(begin|end)\{aligned\}", r"\1{align*}", latex)  # MathJax, in JupyterLab, wants `aligned` inside $$
    result = convert(known, display=display)
    leftover = re.search(r"<mi>(\\\w+|&)</mi>", result)
    if leftover:
        raise UserError(
            f"formula {' '.join(latex.split())!r}: {leftover[1]!r} cannot be drawn; write it with simpler commands."
        )
    return result


class Renderer(mistune.HTMLRenderer):
    """HTML with MathML; `link` turns the target of a link into another target, or into None for plain text."""

    def __init__(self, link: Callable[[str], str | None]) -> None:
        super().__init__(escape=False)
        self.target = link

    def link(self, text: str, url: str, title: str | None = None) -> str:
        target = self.target(url)
        return text if target is None else super().link(text, target, title)

    def block_math(self, text: str) -> str:
        return f'<div class="math">{mathml(text, "block")}</div>\n'

    def inline_math(self, text: str) -> str:
        return mathml(text, "inline")

    def block_code(self, code: str, info: str | None = None) -> str:
        return code_html(code) if info == "python" else f"<pre>{escape(code)}</pre>\n"


def markdown_html(text: str, link: Callable[[str], str | None] = lambda url: url) -> str:
    """Markdown with pipe tables, raw HTML and $formulas$ as HTML."""
    html = mistune.create_markdown(renderer=Renderer(link), plugins=["table", dollar_math])(text)
    return html.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")


def inline_html(text: str) -> str:
    """One paragraph of Markdown without its <p>."""
    return markdown_html(text).strip().removeprefix("<p>").removesuffix("</p>")


def code_html(source: str) -> str:
    return highlight(source, PythonLexer(), HtmlFormatter(cssclass="code"))


def text_html(text: str) -> str:
    """What a cell printed, without terminal colours."""
    return f'<pre class="printed">{escape(ANSI.sub("", text))}</pre>\n'


def frame_html(html: str) -> str:
    """A data frame's own HTML without its inline style and its old-fashioned border."""
    html = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    return f'<div class="scroll">{re.sub(r" (border|style)=.[^>]*?.(?=[ >])", "", html)}</div>\n'


def table_html(table: pd.DataFrame) -> str:
    """A table whose columns sort at a click; cells are shown as they are, numbers with up to four significant digits."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return "" if pd.isna(value) else f"{value:.4g}"
        return escape(str(value))

    head = "".join(f'<th scope="col"><button>{escape(str(name))}</button></th>' for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{cell(v)}</td>" for v in row) + "</tr>\n" for row in table.itertuples(index=False)
    )
    return f'<div class="scroll"><table class="sortable"><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n'


def figure_html(source: str, caption: str, note: str = "") -> str:
    """An image with its caption, and a smaller note such as where it comes from (HTML)."""
    small = f" <small>{note}</small>" if note else ""
    return (
        f'<figure><img src="{escape(source)}" alt="{escape(caption)}" loading="lazy">'
        f"<figcaption>{inline_html(caption)}{small}</figcaption></figure>\n"
    )


def page(kind: str, title: str, body: str, navigation: str) -> str:
    """A whole document (of the kind "index", wide, or "notebook") that asks no other host for anything."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n'
        f'<style>\n{CSS}</style>\n</head>\n<body class="{kind}">\n'
        f"{navigation}<main>\n{body}</main>\n<script>\n{SORT}</script>\n</body>\n</html>\n"
    )
