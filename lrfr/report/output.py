"""Where a notebook's figures and tables go, with their captions: to the report, or under notebooks/output/ by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from IPython.display import display
from matplotlib import pyplot
from matplotlib.figure import Figure

from lrfr.errors import UserError
from lrfr.formats import markdown

DPI = 110  # our choice: sharp on a page 800 CSS pixels wide, 30 to 90 kB a figure
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def find_root(start: Path) -> Path:
    """The project's top folder: the nearest one at or above `start` with a dvc.yaml."""
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise UserError("dvc.yaml: not found here or above; open the notebook inside a clone of the project.")


class Saved:
    """A figure or table as a notebook shows it: by name where a stage stores it, by content where a person looks."""

    def __init__(self, bundle: dict[str, object]) -> None:
        self.bundle = bundle

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, object]:
        return self.bundle


class Output(NamedTuple):
    """A folder for figures and tables of `notebook`; `staged`, if a stage runs it and each name may be used once."""

    folder: Path
    notebook: str
    staged: bool

    def record(self, file: str, name: str, caption: str) -> Path:
        """Note the caption of a figure or table in `file`; returns the path for it, without extension."""
        if not NAME.fullmatch(name):
            raise UserError(f"{name}: not a name for a figure or table; use lower-case letters, digits and hyphens.")
        self.folder.mkdir(parents=True, exist_ok=True)
        captions = self.folder / file
        known = json.loads(captions.read_text(encoding="utf-8")) if captions.exists() else {}
        if self.staged and name in known:
            raise UserError(f"{self.notebook}: saves '{name}' twice; give the second one a name of its own.")
        captions.write_text(json.dumps({**known, name: caption}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return self.folder / name

    def withhold(self, fig: Figure, name: str, caption: str) -> None:
        """Close a figure and show a line in its place."""
        pyplot.close(fig)
        words = f"[{name}: {caption} Not shown here: the photographs may not be passed on. Run the notebook by hand to see it.]"
        display(Saved({"text/plain": words}))

    def figure(self, fig: Figure, name: str, caption: str) -> None:
        """Write <name>.png and its caption, close the figure and show it."""
        path = self.record("figures.json", name, caption).with_suffix(".png")
        fig.savefig(path, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
        pyplot.close(fig)
        link = {"application/vnd.lrfr.figure+json": {"name": name, "caption": caption}, "text/plain": caption}
        display(Saved(link if self.staged else {"image/png": path.read_bytes(), "text/plain": caption}))

    def table(self, table: pd.DataFrame, name: str, caption: str, digits: int) -> None:
        """Write <name>.csv (all digits) and <name>.md (rounded), and show the rounded table."""
        path = self.record("tables.json", name, caption)
        table.to_csv(path.with_suffix(".csv"), index=False, lineterminator="\n")
        rounded = table.copy()
        for column in rounded.select_dtypes("float"):
            rounded[column] = [("" if pd.isna(value) else f"{value:.{digits}f}") for value in rounded[column]]
        path.with_suffix(".md").write_text(f"{markdown(rounded)}\n{caption}\n", encoding="utf-8")
        link = {"application/vnd.lrfr.table+json": {"name": name, "caption": caption}, "text/plain": caption}
        html = rounded.to_html(index=False, border=0)
        display(Saved({**(link if self.staged else {}), "text/html": html, "text/plain": caption}))
