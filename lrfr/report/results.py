"""What a notebook imports: the results of one study, and where its figures and tables go.

A notebook reads what the study's stages wrote and never trains a model for a table. Run by its stage, it writes to the
folder `out`; run by hand, to `notebooks/output/<notebook>/`, which git ignores.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lrfr import config
from lrfr.errors import UserError

# notebooks import all of these from here
from lrfr.formats import SIGNIFICANT, headline, markdown, order, pairs, per_cent, pixels, read_table, unit, verdict  # noqa: F401  # fmt: skip
from lrfr.protocol.folds import DENSE, held_out_rows
from lrfr.report import arms
from lrfr.report.output import Output, find_root

SHOWN = ("orl",)  # sources of photographs that may be shown in published pages
SAMPLE = 7 << 32  # stream of the counter-based generator for samples of people; every use of a seed has its own
# Tables of what was measured in seconds, or that read such a table: only a study's `cost_notebooks` may read them.
MEASURED = ("cost", "schemes", "throughput", "latency", "claims")
UNSEEDED = ("teacher", "random_net", "raw_pixels")  # no training seed, stored under the first one


class Report:
    """The results of `study`, for the notebook `notebook`, whose figures and tables go to `out`."""

    def __init__(self, root: Path, study: str, notebook: str, out: str) -> None:
        self.root, self.study, self.notebook, self.staged = root, study, notebook, bool(out)
        self.runs, self.reports = root / "runs" / study, root / "reports" / study
        self.folder = (root / out) if out else root / "notebooks" / "output" / notebook
        self.output = Output(self.folder, notebook, self.staged)

    def _existing(self, path: Path) -> Path:
        if not path.exists():
            raise UserError(f"{path.relative_to(self.root).as_posix()}: not there; run `make study` first.")
        return path

    def run_file(self, path: str) -> Path:
        """A file that a stage wrote under runs/<study>/."""
        return self._existing(self.runs / path)

    def report_file(self, path: str) -> Path:
        """A file that a stage wrote under reports/<study>/."""
        return self._existing(self.reports / path)

    def table(self, name: str, protocol: str | None = DENSE) -> pd.DataFrame:
        """A table of the study; of one that has several protocols, the rows of this one (None: all rows).

        Tables named in `MEASURED` differ from machine to machine.
        """
        table = read_table(self.report_file(f"tables/{name}.csv"))
        return (
            table
            if protocol is None or "protocol" not in table
            else table[table.protocol == protocol].reset_index(drop=True)
        )

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

    def headline(self, metric: str = "eer", pairing: str = "hr_lr", protocol: str = DENSE) -> pd.DataFrame:
        """`headline` of this study's results; empty where no model has the metric."""
        return headline(self.table("results", protocol), metric, pairing)

    def compared(
        self, model: str, references=("scratch", "kd", "teacher"), metric: str = "eer", pairing: str = "lr_lr"
    ) -> pd.DataFrame:
        """Differences of an error to each reference, in points with interval and verdict: a row a resolution."""
        table = self.table("comparisons")
        table = table[(table.a == model) & (table.metric == metric) & (table.pairing == pairing)]
        wide = {}
        for name in references:
            rows = table[table.b == name].set_index("resolution")
            if len(rows):
                cells = [
                    f"{per_cent(row['diff'], row.low, row.high, '+')} {verdict(row)}" for _, row in rows.iterrows()
                ]
                wide[f"against {name}"] = pd.Series(cells, rows.index)
        sizes = [resolution for resolution in self.resolutions if resolution in set(table.resolution)]
        return pd.DataFrame(wide, index=pd.Index(sizes, name="resolution")).fillna("").reset_index()

    def ablation(self, method: str) -> str:
        """Save figure and table `ablation` of a method's arms; what they say as Markdown, or what to do first."""
        return arms.section(self, method)

    @cached_property
    def _index(self) -> pd.DataFrame:
        return pd.read_csv(self.run_file("index.csv")).sort_values("image").reset_index(drop=True)

    @cached_property
    def _folds(self) -> pd.DataFrame:
        return pd.read_csv(self.run_file("folds.csv"))

    def index(self) -> pd.DataFrame:
        """All photographs: image, person, name, fallback (no face was found), removed (a duplicate, never trained on)."""
        return self._index.copy()

    def folds(self) -> pd.DataFrame:
        """fold, person, role: train, validation or test."""
        return self._folds.copy()

    def landmarks(self) -> pd.DataFrame:
        return pd.read_csv(self.report_file("landmarks.csv"))

    def chips(self) -> np.ndarray:
        """uint8 (N, 150, 150, 3), read-only: the aligned faces."""
        return np.load(self.run_file("chips.npy"), mmap_mode="r")

    def views(self) -> np.ndarray:
        """uint8 (N, V, S, S, 3), read-only: image, view (smallest to largest pixels, then hr)."""
        return np.load(self.run_file("views.npy"), mmap_mode="r")

    def log(self, model: str) -> pd.DataFrame:
        return pd.read_csv(self.report_file(f"students/{model}/log.csv"))

    def gradients(self, model: str) -> pd.DataFrame:
        return pd.read_csv(self.report_file(f"students/{model}/gradients.csv"))

    def gradient_table(self, model: str) -> pd.DataFrame:
        """Mean gradient of each term relative to the face loss: a row a term, a column a time."""
        wide = self.gradients(model).groupby(["term", "when"]).ratio.mean().unstack()
        times = [when for when in ("start", "early", "end") if when in wide]
        return wide[times].rename_axis(columns=None).reset_index()

    def teacher_log(self) -> pd.DataFrame:
        """Fine-tuning of the teacher's settings: fold, setting, epoch, loss, accuracy on training faces."""
        return pd.read_csv(self.run_file("teacher/log.csv"))

    def target_folder(self, fold: int, variant: str = "plain") -> Path:
        """The stored answers of a fold's teacher, one .npy file each."""
        return self.run_file(f"targets/fold{fold}/{variant}")

    def head_file(self, model: str, fold: int, seed: int) -> Path:
        """What a student was trained with and does not keep: class directions `weight`, the method's state `method.*`."""
        return self.run_file(f"heads/{model}/fold{fold}-seed{seed}.safetensors")

    def embeddings(self, model: str):
        """The archive of a model's embeddings: 'fold{k}/seed{s}/{resolution}', validation and test people's images."""
        return np.load(self.run_file(f"embeddings/{model}.npz"))

    def _held_out(self, fold: int):
        return held_out_rows(self._index, self._folds, fold, self.parameters.faces.validation_images)

    def faces(self, fold: int, role: str = "test", most: int | None = None) -> pd.DataFrame:
        """Photographs of the people with this role (train, validation, test), in ascending image number.

        As the stages use them: duplicates are only tested, and validation has a limited number of each person. most: only the
        first so many of each person; with the study's `evaluate.dense_images`, the test is that of protocol `dense`.
        """
        if role == "train":
            people = self._folds.person[(self._folds.fold == fold) & (self._folds.role == role)]
            images = self._index.image[self._index.person.isin(people) & (self._index.removed == 0)]
        else:
            rows = self._held_out(fold)
            images = rows.images[{"test": rows.test, "validation": rows.validation}[role]]
        found = self._index[self._index.image.isin(images)]
        return (found if most is None else found.groupby("person").head(most)).reset_index(drop=True)

    def sample(
        self, fold: int, people: int | None, most: int | None = None, least: int = 2, role: str = "test", seed: int = 0
    ) -> pd.DataFrame:
        """`faces` of people with at least `least` photographs: of at most `people` of them, drawn by `seed` (None: of all).

        So many faces are enough for an illustration, whatever the size of the study. Sorted by person and image.
        """
        every = self.faces(fold, role)
        photographs = every.person.value_counts()
        known = np.sort(photographs.index[photographs >= least].to_numpy())
        if people is not None and people < len(known):
            lot = np.random.Philox(key=[seed, SAMPLE + fold]).random_raw(len(known))
            known = known[np.argsort(lot, kind="stable")[:people]]
        found = every[every.person.isin(known)].sort_values(["person", "image"])
        return (found if most is None else found.groupby("person").head(most)).reset_index(drop=True)

    def embedding(
        self, model: str, fold: int, seed: int, resolution: str, faces: pd.DataFrame | None = None
    ) -> np.ndarray:
        """float32 (n, D): one row per row of `faces`, held-out photographs of the fold; by default those of its test people."""
        with self.embeddings(model) as archive:
            if model in UNSEEDED:
                seed = min(int(key.split("/")[1].removeprefix("seed")) for key in archive.files)
            key = f"fold{fold}/seed{seed}/{resolution}"
            if key not in archive.files:
                raise UserError(
                    f"embeddings/{model}.npz: holds no '{key}'; choose a fold, seed and resolution of the study."
                )
            rows = archive[key]
        images = (self.faces(fold) if faces is None else faces).image.to_numpy()
        held_out = self._held_out(fold).images
        if not np.isin(images, held_out).all():
            raise UserError(f"embeddings/{model}.npz: holds test and validation people of fold {fold} only.")
        return rows[np.searchsorted(held_out, images)]

    @property
    def withheld(self) -> bool:
        """Whether figures with photographs stay out of what a stage writes: its pages are published, these faces may not be."""
        return self.staged and self.parameters.faces.source not in SHOWN

    def save(self, fig: Figure, name: str, caption: str, photographs: bool = False) -> None:
        """Write <name>.png and its caption, close the figure and show it. The caption is one or more full sentences.

        photographs: the figure shows faces; of sources that may not be passed on, it is drawn only where a person runs the
        notebook by hand.
        """
        if photographs and self.withheld:
            self.output.withhold(fig, name, caption)
        else:
            self.output.figure(fig, name, caption)

    def save_table(self, table: pd.DataFrame, name: str, caption: str, digits: int = 3) -> None:
        """Write <name>.csv (all digits) and <name>.md (rounded), and show the rounded table."""
        self.output.table(table, name, caption, digits)


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
