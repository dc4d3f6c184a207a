"""What a notebook imports: the results of one study, and where its figures and tables go.

A notebook reads what the study's stages wrote and never trains a model for a table. Run by its stage, it writes to the
folder `out`; run by hand, to `notebooks/output/<notebook>/`, which git ignores.
"""

import json
import re
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from IPython.display import display
from matplotlib import pyplot
from matplotlib.figure import Figure

from lrfr import config
from lrfr.errors import UserError

# notebooks import all of these from here
from lrfr.formats import SIGNIFICANT, headline, markdown, order, per_cent, pixels, read_table, verdict, wide  # noqa: F401
from lrfr.protocol.folds import DENSE, Rows, held_out_rows
from lrfr.report import figures
from lrfr.report.tables import arranged, lr_eer
from lrfr.streams import philox

SHOWN = ("orl",)  # sources of photographs that may be shown in published pages
WORDS = yaml.safe_load((Path(__file__).parent / "templates" / "ablation.yaml").read_text(encoding="utf-8"))
DPI = 110  # our choice: sharp on a page 800 CSS pixels wide, 30 to 90 kB a figure
FIGURE, TABLE = "application/vnd.lrfr.figure+json", "application/vnd.lrfr.table+json"  # as a stage's page links them


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of float (n, D) divided by their length, in their own precision; a zero row stays zero."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def pairs(a: np.ndarray, b: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all pairs of different images: -L2 distance of a row of a and one of b, and whether the people agree.

    a, b: float (n, D), the same n images; `a is b` gives the n(n-1)/2 pairs i < j, else all n(n-1) ordered ones.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    chosen = np.triu(np.ones(squared.shape, bool), 1) if a is b else ~np.eye(len(x), dtype=bool)
    people = np.asarray(people)
    return -np.sqrt(np.maximum(squared[chosen], 0)), (people[:, None] == people[None])[chosen]


class Report:
    """The results of a study, as in reports/<study>, for a notebook (a file name without extension).

    Figures and tables go to the folder `out` ("": by hand). Works from the project's top folder and from any folder
    below; UserError outside a clone, or if the study has not been run.
    """

    def __init__(self, study: str, notebook: str, out: str = "") -> None:
        here = Path.cwd()
        root = next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").is_file()), None)
        if root is None:
            raise UserError("dvc.yaml: not found here or above; open the notebook inside a clone of the project.")
        if not (root / "reports" / study / "tables").is_dir():
            raise UserError(f"reports/{study}/tables: not there; run `make study` first.")
        self.root, self.study, self.notebook, self.staged = root, study, notebook, bool(out)
        self.runs, self.reports = root / "runs" / study, root / "reports" / study
        self.folder = root / (out or f"notebooks/output/{notebook}")

    def file(self, path: str) -> Path:
        """A file that a stage wrote under runs/<study>/ or reports/<study>/.

        chips.npy is uint8 (N, 150, 150, 3), aligned, with a margin around it where the study keeps one; views/area.npy
        (n, V, S, S, 3), of the training source's faces, from the fewest pixels to hr.
        students/<model>/log.csv is a model's training: fold, seed, epoch, term, value.
        """
        for folder in (self.runs, self.reports):
            if (folder / path).exists():
                return folder / path
        raise UserError(f"{path}: in neither runs/{self.study} nor reports/{self.study}; run `make study` first.")

    def table(self, name: str, protocol: str | None = DENSE) -> pd.DataFrame:
        """A table of the study; of one that has several protocols, the rows of this one (None: all rows)."""
        table = read_table(self.file(f"tables/{name}.csv"))
        chosen = slice(None) if protocol is None or "protocol" not in table else table.protocol == protocol
        return table[chosen].reset_index(drop=True)

    @cached_property
    def parameters(self) -> config.Study:
        """The parameters of this study; UserError if params.yaml holds another one."""
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

    def compared(self, model: str, pairing: str = "lr_lr") -> pd.DataFrame:
        """Differences of the equal error rate to each reference, with interval and verdict: a row a resolution."""
        references = ["scratch", "scratch_centres", "start", "kd", "teacher"]
        table = self.table("comparisons").query("a == @model and metric == 'eer' and pairing == @pairing")
        table = table[table.b.isin(references)].sort_values("b", key=lambda b: b.map(references.index), kind="stable")
        cells = [f"{per_cent(row['diff'], row.low, row.high, '+')} {verdict(row)}" for _, row in table.iterrows()]
        table = wide(table.assign(against="against " + table.b), cells, "resolution", "against")
        return arranged(table, ["resolution"])

    def ablation(self, method: str) -> str:
        """Save figure and table `ablation` of a method's arms; what they say as Markdown, or what to do first.

        Equal error rate of an arm minus that of its method, both faces at the resolution. The intervals decide: an arm
        is worse or better where its interval leaves zero out, and a tie elsewhere.
        """
        rows, name = lr_eer(self.table("ablation").query("method == @method")), figures.label(method)
        if rows.empty:
            return WORDS["none"].format(study=self.study, name=name, method=method)
        found = np.select([rows.diff_low > 0, rows.diff_high < 0], ["worse", "better"], "tie")
        rows, level = arranged(rows.assign(verdict=found), ["resolution"]), self.parameters.evaluate.level
        self.save(figures.arms(rows), "ablation", WORDS["figure"].format(name=name, level=100 * level))
        cells = [f"{per_cent(row.diff, row.diff_low, row.diff_high, '+')} {row.verdict}" for row in rows.itertuples()]
        table = wide(rows, cells, "resolution", "arm")
        self.save_table(table[["resolution", *sorted(table.columns[1:])]], "ablation", WORDS["table"].format(name=name))
        text = ""
        for arm, own in rows.groupby("arm"):
            at = [f"{found} at {', '.join(group.resolution)}" for found, group in own.groupby("verdict", sort=False)]
            text += f"- `{arm}` against {name}: {'; '.join(at)}.\n"
        numbers = {"decided": (rows.verdict != "tie").sum(), "all": len(rows), "chance": (1 - level) * len(rows)}
        return f"{text}\n{WORDS['chance'].format(name=name, **numbers)}"

    @cached_property
    def people(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Photographs (image, person, name, fallback: no face was found, removed: a duplicate), roles in the folds."""
        index, folds = (pd.read_csv(self.file(f"{name}.csv")) for name in ("index", "folds"))
        return index.sort_values("image").reset_index(drop=True), folds

    def gradient_table(self, model: str) -> pd.DataFrame:
        """Mean gradient of each term relative to the face loss, on the deepest stage that it reaches: a row a term, a
        column a time.
        """
        gradients = pd.read_csv(self.file(f"students/{model}/gradients.csv"))
        deepest = gradients[gradients.stage == gradients.groupby("term").stage.transform("max")]
        means = deepest.groupby(["term", "when"]).ratio.mean().unstack()
        return means.filter(["start", "early", "end"]).rename_axis(columns=None).reset_index()

    def _held_out(self, fold: int) -> Rows:
        return held_out_rows(*self.people, fold, self.parameters.faces.validation_images)

    def faces(self, fold: int, role: str = "test", most: int | None = None) -> pd.DataFrame:
        """Photographs of the people with this role (train, validation, test), in ascending image number.

        As the stages use them: duplicates are only tested, and validation has a limited number of each person. most:
        only the first so many of each; with the study's `evaluate.dense_images`, the test is that of protocol `dense`.
        """
        index, folds = self.people
        if role == "train":
            people = folds.person[(folds.fold == fold) & (folds.role == role)]
            found = index[index.person.isin(people) & (index.removed == 0)]
        else:
            rows = self._held_out(fold)
            found = index[index.image.isin(rows.images[{"test": rows.test, "validation": rows.validation}[role]])]
        return found.groupby("person").head(most or len(found)).reset_index(drop=True)

    def sample(self, fold: int, people: int | None, most: int | None = None, least=2, role="test") -> pd.DataFrame:
        """`faces` of people with `least` photographs or more, sorted by person: of at most `people`, drawn (None: all).

        So many faces are enough for an illustration, whatever the size of the study.
        """
        every = self.faces(fold, role)
        photographs = every.person.value_counts()
        known = np.sort(photographs.index[photographs >= least].to_numpy())
        if people is not None and people < len(known):
            lot = philox("shown", 0, fold).random_raw(len(known))
            known = known[np.argsort(lot, kind="stable")[:people]]
        found = every[every.person.isin(known)].sort_values(["person", "image"])
        return found.groupby("person").head(most or len(found)).reset_index(drop=True)

    def embedding(
        self, model: str, fold: int, seed: int, resolution: str, faces: pd.DataFrame | None = None
    ) -> np.ndarray:
        """float32 (n, D): a row for each of `faces`, held-out photographs of the fold; by default its test people's."""
        untrained = (self.runs / "references" / f"{model}.npz").is_file()
        file = f"{'references' if untrained else 'embeddings'}/{model}.npz"
        with np.load(self.file(file)) as archive:
            if untrained:
                seed = min(int(key.split("/")[1].removeprefix("seed")) for key in archive.files)
            key = f"fold{fold}/seed{seed}/{resolution}"
            if key not in archive.files:
                raise UserError(f"{file}: holds no '{key}'; choose a fold, seed and resolution of the study.")
            rows = archive[key]
        images = (self.faces(fold) if faces is None else faces).image.to_numpy()
        held_out = self._held_out(fold).images
        if not np.isin(images, held_out).all():
            raise UserError(f"{file}: holds test and validation people of fold {fold} only.")
        return rows[np.searchsorted(held_out, images)]

    def _record(self, file: str, name: str, caption: str) -> Path:
        """Note the caption of a figure or table in `file`; returns the path for it, without extension."""
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
            raise UserError(f"{name}: not a name for a figure or table; use lower-case letters, digits and hyphens.")
        self.folder.mkdir(parents=True, exist_ok=True)
        captions = self.folder / file
        known = json.loads(captions.read_text(encoding="utf-8")) if captions.exists() else {}
        if self.staged and name in known:
            raise UserError(f"{self.notebook}: saves '{name}' twice; give the second one a name of its own.")
        captions.write_text(json.dumps({**known, name: caption}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return self.folder / name

    def save(self, fig: Figure, name: str, caption: str, photographs: bool = False) -> None:
        """Write <name>.png and its caption of one or more full sentences, close the figure and show it.

        photographs: it shows faces. Of sources that may not be passed on, it is drawn only in a notebook run by hand.
        """
        if photographs and self.staged and self.parameters.faces.source not in SHOWN:  # these pages are published
            why = "Not shown here: the photographs may not be passed on. Run the notebook by hand to see it."
            shown: dict = {"text/plain": f"[{name}: {caption} {why}]"}
        else:
            path = self._record("figures.json", name, caption).with_suffix(".png")
            fig.savefig(path, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
            link = {FIGURE: {"name": name, "caption": caption}}
            shown = {**(link if self.staged else {"image/png": path.read_bytes()}), "text/plain": caption}
        pyplot.close(fig)
        display(shown, raw=True)

    def save_table(self, table: pd.DataFrame, name: str, caption: str, digits: int = 3) -> None:
        """Write <name>.csv (all digits) and <name>.md (rounded), and show the rounded table."""
        path = self._record("tables.json", name, caption)
        table.to_csv(path.with_suffix(".csv"), index=False, lineterminator="\n")
        numbers = table.select_dtypes("float")
        rounded = table.assign(**numbers.map(lambda value: "" if pd.isna(value) else f"{value:.{digits}f}"))
        path.with_suffix(".md").write_text(f"{markdown(rounded)}\n{caption}\n", encoding="utf-8")
        link = {TABLE: {"name": name, "caption": caption}} if self.staged else {}
        display({**link, "text/html": rounded.to_html(index=False, border=0), "text/plain": caption}, raw=True)
