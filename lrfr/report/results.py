"""What a notebook imports: the results of one study, and where its figures and tables go.

A notebook reads what the study's stages wrote and never trains a model for a table. Run by its stage, it writes to the
folder `out`; run by hand, to `notebooks/output/<notebook>/`, which git ignores.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib import pyplot
from matplotlib.figure import Figure

from lrfr import config
from lrfr.errors import UserError

DPI = 110  # our choice: sharp on a page 800 CSS pixels wide, 30 to 90 kB a figure
UNSEEDED = ("teacher", "random_net", "raw_pixels")  # no training seed, stored under the first one
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# the house order of models, in tables and in figures
# fmt: off
ORDER = (
    "teacher", "hr_student", "scratch", "kd", "feature",
    "fitnet", "at", "rkd", "kd_tuned_teacher",
    "hkdd", "se_dfd", "mkmmd", "icd_face", "acs_review",
    "random_net", "raw_pixels", "shuffled",
)
# fmt: on


def order(models) -> list[str]:
    """The models without duplicates, in the house order; unknown ones at the end, by name."""
    return sorted(set(models), key=lambda m: (ORDER.index(m) if m in ORDER else len(ORDER), m))


def pixels(resolution: str) -> float:
    """A sortable size of a resolution's name: pixels, with 'hr' as the largest."""
    return float("inf") if resolution == "hr" else float(resolution)


def read_table(path: Path) -> pd.DataFrame:
    """A table of a study; resolutions and protocols are names, never numbers."""
    return pd.read_csv(path, dtype={"resolution": str, "protocol": str}, keep_default_na=True)


def headline(results: pd.DataFrame, metric: str = "eer", pairing: str = "hr_lr") -> pd.DataFrame:
    """Models in rows, resolutions in columns, "11.2 [9.8, 12.9]" in per cent in the cells (value and interval)."""
    rows = results[(results.metric == metric) & (results.pairing == pairing)]

    def cell(row: pd.Series) -> str:
        band = "" if pd.isna(row.low) else f" [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        return f"{100 * row.value:.1f}{band}"

    wide = rows.assign(cell=[cell(row) for _, row in rows.iterrows()]).pivot(index="model", columns="resolution", values="cell")
    return wide.loc[order(wide.index), sorted(wide.columns, key=pixels)].fillna("").rename_axis(columns=None).reset_index()


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of float (n, D) divided by their length; a zero row stays zero."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def pairs(a: np.ndarray, b: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all pairs of different images: -L2 distance of a row of a and a row of b, and whether the people agree.

    a, b: float (n, D), rows of the same n images. `a is b` gives the n(n-1)/2 pairs i < j, otherwise the n(n-1) ordered
    ones. Returns float64 and bool vectors.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    chosen = np.triu(np.ones(squared.shape, bool), 1) if a is b else ~np.eye(len(x), dtype=bool)
    people = np.asarray(people)
    return -np.sqrt(np.maximum(squared[chosen], 0)), (people[:, None] == people[None])[chosen]


def markdown(table: pd.DataFrame) -> str:
    """A pipe table of strings."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).values.tolist()]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |\n" for row in rows)


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


class Report:
    """The results of `study`, for the notebook `notebook`, whose figures and tables go to `out`."""

    def __init__(self, root: Path, study: str, notebook: str, out: str) -> None:
        self.root, self.study, self.notebook, self.staged = root, study, notebook, bool(out)
        self.runs, self.reports = root / "runs" / study, root / "reports" / study
        self.folder = (root / out) if out else root / "notebooks" / "output" / notebook

    def _existing(self, path: Path) -> Path:
        if not path.exists():
            raise UserError(f"{path.relative_to(self.root).as_posix()}: not there; run `make study` first.")
        return path

    def run_file(self, path: str) -> Path:
        """A file that a stage wrote under runs/<study>/."""
        return self._existing(self.runs / path)

    def table(self, name: str) -> pd.DataFrame:
        return read_table(self._existing(self.reports / "tables" / f"{name}.csv"))

    def cost(self, name: str) -> pd.DataFrame:
        """A table of measured seconds and bytes: differs from machine to machine."""
        return read_table(self._existing(self.reports / "tables" / f"{name}.csv"))

    @cached_property
    def parameters(self) -> config.Study:
        """The parameters of this study.

        Raises
        ------
        UserError
            if params.yaml holds another study.
        """
        parameters = config.load(self.root / "params.yaml")
        if parameters.study != self.study:
            raise UserError(f"params.yaml: describes study '{parameters.study}'; run `lrfr study {self.study}` first.")
        return parameters

    @property
    def models(self) -> list[str]:
        return order(self.table("results").model)

    @property
    def resolutions(self) -> list[str]:
        return sorted(self.table("results").resolution.unique(), key=pixels)

    def headline(self, metric: str = "eer", pairing: str = "hr_lr") -> pd.DataFrame:
        return headline(self.table("results"), metric, pairing)

    def index(self) -> pd.DataFrame:
        return pd.read_csv(self.run_file("index.csv"))

    def folds(self) -> pd.DataFrame:
        return pd.read_csv(self.run_file("folds.csv"))

    def chips(self) -> np.ndarray:
        """uint8 (N, 150, 150, 3), read-only: the aligned faces."""
        return np.load(self.run_file("chips.npy"), mmap_mode="r")

    def views(self) -> np.ndarray:
        """uint8 (N, 2, V, S, S, 3), read-only: image, mirrored or not, view (smallest to largest pixels, then hr)."""
        return np.load(self.run_file("views.npy"), mmap_mode="r")

    def log(self, model: str) -> pd.DataFrame:
        return pd.read_csv(self.run_file(f"students/{model}/log.csv"))

    def gradients(self, model: str) -> pd.DataFrame:
        return pd.read_csv(self.run_file(f"students/{model}/gradients.csv"))

    def embeddings(self, model: str):
        """The archive of a model's embeddings: 'fold{k}/seed{s}/{resolution}', validation and test people's images."""
        return np.load(self.run_file(f"embeddings/{model}.npz"))

    def faces(self, fold: int, role: str = "test") -> pd.DataFrame:
        """The images of the people with this role (train, validation, test), in ascending image number."""
        folds = self.folds()
        people = folds.person[(folds.fold == fold) & (folds.role == role)]
        index = self.index().sort_values("image")
        return index[index.person.isin(people)].reset_index(drop=True)

    def embedding(self, model: str, fold: int, seed: int, resolution: str, role: str = "test") -> np.ndarray:
        """float32 (n, D): one row per row of `faces(fold, role)`; role is test or validation."""
        with self.embeddings(model) as archive:
            if model in UNSEEDED:
                seed = min(int(key.split("/")[1].removeprefix("seed")) for key in archive.files)
            key = f"fold{fold}/seed{seed}/{resolution}"
            if key not in archive.files:
                raise UserError(f"embeddings/{model}.npz: holds no '{key}'; choose a fold, seed and resolution of the study.")
            rows = archive[key]
        held_out = np.sort(np.concatenate([self.faces(fold, r).image for r in ("validation", "test")]))
        return rows[np.isin(held_out, self.faces(fold, role).image)]

    def _record(self, file: str, name: str, caption: str) -> Path:
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

    def save(self, fig: Figure, name: str, caption: str) -> None:
        """Write <name>.png and its caption, close the figure and show it. The caption is one or more full sentences."""
        path = self._record("figures.json", name, caption).with_suffix(".png")
        fig.savefig(path, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
        pyplot.close(fig)
        link = {"application/vnd.lrfr.figure+json": {"name": name, "caption": caption}, "text/plain": caption}
        display(Saved(link if self.staged else {"image/png": path.read_bytes(), "text/plain": caption}))

    def save_table(self, table: pd.DataFrame, name: str, caption: str, digits: int = 3) -> None:
        """Write <name>.csv (all digits) and <name>.md (rounded), and show the rounded table."""
        path = self._record("tables.json", name, caption)
        table.to_csv(path.with_suffix(".csv"), index=False, lineterminator="\n")
        rounded = table.copy()
        for column in rounded.select_dtypes("float"):
            rounded[column] = [("" if pd.isna(value) else f"{value:.{digits}f}") for value in rounded[column]]
        path.with_suffix(".md").write_text(f"{markdown(rounded)}\n{caption}\n", encoding="utf-8")
        link = {"application/vnd.lrfr.table+json": {"name": name, "caption": caption}, "text/plain": caption}
        html = rounded.to_html(index=False, border=0)
        display(Saved({**(link if self.staged else {}), "text/html": html, "text/plain": caption}))


def open_study(study: str, notebook: str, out: str = "") -> Report:
    """The results of a study for a notebook.

    study: a name as in reports/<study>. notebook: the notebook's file name without extension. out: "" by hand.
    Works from the project's top folder and from any folder below.

    Raises
    ------
    UserError
        outside a clone, or if the study has not been run.
    """
    root = find_root(Path.cwd())
    if not (root / "reports" / study / "tables").is_dir():
        raise UserError(f"reports/{study}/tables: not there; run `make study` first.")
    return Report(root, study, notebook, out)
