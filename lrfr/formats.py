"""How results are ordered, read, written and shown: the house order of models, cells with intervals, tables, pages."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2
import pandas as pd

from lrfr import files

CELL = ["pairing", "resolution", "metric"]  # what a row of a table is about, beside its protocol and model
SIGNIFICANT = 0.05  # p after Holm's correction; a difference with a larger one is a tie
DIGITS = (
    "%.6g"  # of numbers in CSV files: more than any interval supports, few enough for the last bit of a sum to show
)
HEADLINE = ("8", "16", "32", "hr")  # the resolutions of the README's table and of metrics.json
FIVE = ("hkdd", "se_dfd", "mkmmd", "icd_face", "acs_review")  # the papers' methods, compared with each other
# everything is compared with these, where they are
REFERENCES = ("scratch", "scratch_centres", "start", "teacher", "edgeface_xs", "edgeface_xxs", "kd")
# the house order of models, in tables and in figures
BASELINES = ("scratch", "scratch_centres", "kd", "feature", "fitnet", "at", "rkd", "kd_tuned_teacher")
ORDER = ("teacher", "start", "hr_student", *BASELINES, *FIVE, "joint", "random_net", "raw_pixels", "shuffled")


def order(models: Iterable[str]) -> list[str]:
    """The models without duplicates, in the house order; unknown ones at the end, by name."""
    return sorted(set(models), key=lambda m: (ORDER.index(m) if m in ORDER else len(ORDER), m))


def families(models: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """Pairs (a, b) by the question that they answer: everything against each reference, the five among each other."""
    asked = {name: [(m, name) for m in models if m != name] for name in REFERENCES if name in models}
    five = [m for m in FIVE if m in models]
    return {**asked, "five": [(a, b) for k, a in enumerate(five) for b in five[k + 1 :]]}


def pixels(resolution: str) -> float:
    """A sortable size of a resolution's name: pixels, with 'hr' as the largest."""
    return float("inf") if resolution == "hr" else float(resolution)


def read_table(path: Path) -> pd.DataFrame:
    """A table of a study; resolutions and protocols are names, never numbers."""
    return pd.read_csv(path, dtype={"resolution": str, "protocol": str}, keep_default_na=True)


def write_table(folder: Path, name: str, table: pd.DataFrame, text: str) -> None:
    """<name>.csv with six significant digits, and `text`, the same for people, as <name>.md; both replaced at once."""
    files.write_table(folder / f"{name}.csv", table, DIGITS)
    files.write_text(folder / f"{name}.md", text)


def per_cent(value: float, low: float, high: float, sign: str = "") -> str:
    """Like "11.2 [9.8, 12.9]" from fractions, never "-0.0"; "11.2" where `low` is NaN; sign "+" shows every sign."""
    point, *ends = (f"{round(100 * number, 1) + 0.0:{sign}.1f}" for number in (value, low, high))
    return point if pd.isna(low) else f"{point} [{', '.join(ends)}]"


def verdict(row) -> str:
    """better, worse or tie: what a row of comparisons.csv says of an error of a against that of b."""
    return "tie" if not row.p_holm < SIGNIFICANT else "better" if row["diff"] < 0 else "worse"


def wide(
    rows: pd.DataFrame, cells: Iterable[str], index: str | list[str] = "model", columns: str = "resolution"
) -> pd.DataFrame:
    """A tidy table as people read it: one of `cells` (a string a row of `rows`) for each `index` and each of `columns`.

    Rows and columns in order of appearance, resolutions from small to large; what is not there is "".
    """
    table = rows.assign(cell=list(cells)).pivot(index=index, columns=columns, values="cell")
    names = list(dict.fromkeys(rows[columns]))
    names = sorted(names, key=pixels) if columns == "resolution" else names
    return table.loc[rows.set_index(index).index.unique(), names].fillna("").rename_axis(columns=None).reset_index()


def headline(results: pd.DataFrame, metric: str, pairing: str) -> pd.DataFrame:
    """One metric of results.csv: models in rows, resolutions in columns, per cent with intervals in the cells."""
    rows = results[(results.metric == metric) & (results.pairing == pairing)]
    rows = rows.assign(rank=rows.model.map(order(rows.model).index)).sort_values("rank", kind="stable")
    return wide(rows, [per_cent(row.value, row.low, row.high) for row in rows.itertuples()])


def markdown(table: pd.DataFrame) -> str:
    """A pipe table of strings."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).values.tolist()]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def sections(parts: dict[str, pd.DataFrame]) -> str:
    """Tables under their headings; one with the heading "" has none."""
    return "".join(
        f"\n## {title}\n\n{markdown(part)}" if title else f"\n{markdown(part)}" for title, part in parts.items()
    )


def page(title: str, lead: str, parts: dict[str, pd.DataFrame]) -> str:
    """A Markdown page: title, a paragraph or more, and tables as `sections` writes them."""
    return f"# {title}\n\n{lead}\n{sections(parts)}"


def render(name: str, **values) -> str:
    """A page of `lrfr/templates` with its values; a value that is not given is an error."""
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return jinja.get_template(name).render(values)
