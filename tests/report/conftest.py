"""A tiny invented study on disk, so that pages, tables and figures can be tested without training anything."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lrfr.config import Study
from lrfr.data.degradations import view_bank
from lrfr.data.degrade import degrade
from lrfr.train.trainings import points

ROOT = Path(__file__).resolve().parents[2]
SECOND = "01-low-resolution-faces"
OPEN = "from lrfr.report import results\nreport = results.Report(study, 'tiny', out)"
METRICS = {"eer": ("lr_lr", "hr_lr"), "accuracy": ("lr_lr", "hr_lr"), "rank1": ("hr_lr",)}


def tuning(study: Study, rng: np.random.Generator) -> pd.DataFrame:
    """Trials of every tuned model, and the order of all models; `kd` is the first."""
    errors = {name: float(rng.uniform(0.2, 0.4)) for name in study.models} | {"kd": 0.1}
    rows = [
        (name, ", ".join(grid), tried, "validation_eer", 0.3, int(k == 1))
        for name, grid in study.tuning.grid.items()
        for k, tried in enumerate(points(grid))
    ]
    order = sorted(errors, key=errors.get)
    rows += [("ranking", "model", name, "validation_eer@16", errors[name], int(name == "kd")) for name in order]
    return pd.DataFrame(rows, columns=["method", "weight", "candidate", "metric", "value", "chosen"])


def tables(study: Study, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    models = ["teacher", *study.models, "random_net", "raw_pixels"]
    rows = [
        (
            study.study,
            "dense",
            model,
            pairing,
            resolution,
            metric,
            value := float(rng.uniform(0.05, 0.4)),
            value - 0.03,
            value + 0.04,
            "bootstrap",
        )
        for metric, pairings in METRICS.items()
        for model in models
        for pairing in pairings
        for resolution in study.resolutions
    ]
    names = ["study", "protocol", "model", "pairing", "resolution", "metric", "value", "low", "high", "interval"]
    results = pd.DataFrame(rows, columns=names)
    other = results[results.model != "scratch"].rename(columns={"model": "a", "value": "diff"})
    comparisons = other.drop(columns=["interval"]).assign(
        b="scratch", p=0.2, p_holm=np.where(other.a == "kd", 0.01, 1.0)
    )
    return {
        "results": results.assign(seeds=1, sd_seed=np.nan),
        "comparisons": comparisons,
        "runs": results.assign(fold=0, seed=0)[["model", "fold", "seed", "resolution", "metric", "value"]],
        "teacher": results[results.model == "teacher"].rename(columns={"model": "setting"}),
        "gradients": pd.DataFrame(
            {"model": ["kd"], "term": ["kd"], "stage": ["stage4"], "when": ["end"], "mean": [1.0]}
        ),
        "cost": pd.DataFrame({"model": list(study.models), "latency_ms": 3.0, "params": 10_000}),
        "schemes": pd.DataFrame({"scheme": ["cached"], "seconds": [12.5]}),
        "ablation": pd.DataFrame(
            {"method": ["hkdd"], "arm": ["no_hfd"], "protocol": ["dense"], "pairing": ["lr_lr"], "metric": ["eer"]}
        ).assign(resolution="8", diff=0.01, diff_low=-0.01, diff_high=0.03, p=0.3),
        "schedule": pd.DataFrame(
            {
                "model": ["kd"],
                "arm": ["long"],
                "protocol": ["dense"],
                "pairing": ["lr_lr"],
                "metric": ["eer"],
                "epochs": [9],
            }
        ).assign(resolution="8", against="itself", value=0.1, diff=-0.01, diff_low=-0.03, diff_high=0.01, p_holm=0.3),
        "degradations": pd.DataFrame({"condition": ["camera"], "model": ["kd"], "resolution": ["8"], "value": [0.2]}),
        "mirror": results[(results.metric == "eer") & (results.pairing == "lr_lr")].assign(once=0.2, diff=-0.01),
        "throughput": pd.DataFrame({"part": ["whole loop"], "images_per_second": [250.0], "share": [0.7]}),
        "latency": pd.DataFrame({"network": ["student"], "runtime": ["onnx"], "median_ms": [1.5], "ratio": [1.0]}),
        "tuning": tuning(study, rng),
        "claims": pd.DataFrame({"paper": ["hkdd"], "claim": ["better than kd"], "verdict": ["not tested"]}),
    }


def write_study(folder: Path, values: dict) -> Study:
    """Write runs/smoke, reports/smoke and the notebooks' sources into an empty project folder."""
    values = values | {"notebooks": ["00-start-here", SECOND]}
    study, rng = Study(**values), np.random.Generator(np.random.Philox(key=7))
    (folder / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    shutil.copytree(
        ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns("output", ".ipynb_checkpoints")
    )
    runs, reports = folder / study.runs, folder / study.reports
    for path in (runs / "embeddings", runs / "references", reports / "students/kd", reports / "tables"):
        path.mkdir(parents=True)

    images = 10
    person = np.repeat(np.arange(study.faces.people), images)
    role = np.where(
        np.arange(study.faces.people) < 4, "test", np.where(np.arange(study.faces.people) < 6, "validation", "train")
    )
    base = rng.integers(0, 256, (study.faces.people, 12, 12, 3))[person]
    coarse = np.clip(base + rng.normal(0, 40, (len(person), 12, 12, 3)), 0, 255).astype(np.uint8)
    chips = degrade(np.repeat(np.repeat(coarse, 13, 1), 13, 2)[:, :150, :150], 60, 150)
    np.save(runs / "chips.npy", chips)
    sizes = study.views.smallest, study.views.largest, study.views.size
    (runs / "views").mkdir()
    np.save(runs / "views" / "area.npy", view_bank("area", chips[:2], *sizes, study.seed, range(2)))
    index = pd.DataFrame({"image": range(len(person)), "person": person, "set": "orl", "name": "x"})
    index = index.assign(fallback=0, removed=0)
    index.to_csv(runs / "index.csv", index=False)
    pd.DataFrame({"fold": 0, "person": range(len(role)), "role": role}).to_csv(runs / "folds.csv", index=False)
    held_out = person[role[person] != "train"]
    centres = rng.normal(size=(study.faces.people, 16))
    noise = {name: 0.3 + 0.4 * i for i, name in enumerate(("hr", *reversed(study.resolutions[:-1])))}
    arrays = {
        f"fold0/seed0/{r}": (centres[held_out] + s * rng.normal(size=(len(held_out), 16))).astype(np.float32)
        for r, s in noise.items()
    }
    for file in ("references/teacher.npz", "embeddings/kd.npz"):
        np.savez(runs / file, **arrays)
    log = [(0, 0, epoch, term, 1 / (1 + epoch)) for epoch in range(3) for term in ("face", "kd", "learning_rate")]
    pd.DataFrame(log, columns=["fold", "seed", "epoch", "term", "value"]).to_csv(
        reports / "students/kd/log.csv", index=False
    )
    gradients = [(0, 0, when, progress, "kd", "stage4", 0.5) for when, progress in (("start", 0.1), ("end", 1.0))]
    columns = ["fold", "seed", "when", "progress", "term", "stage", "ratio"]
    pd.DataFrame(gradients, columns=columns).to_csv(reports / "students/kd/gradients.csv", index=False)
    (reports / "STATUS.md").write_text("# Status\n", encoding="utf-8")
    for name, table in tables(study, rng).items():
        table.to_csv(reports / "tables" / f"{name}.csv", index=False)
    return study


@pytest.fixture
def project(tmp_path: Path, composed: Callable[[str], dict], monkeypatch: pytest.MonkeyPatch) -> Study:
    """A project folder of its own with an invented study; the test runs inside."""
    study = write_study(tmp_path, composed("smoke"))
    monkeypatch.chdir(tmp_path)
    return study


def write_notebook(name: str, *codes: str, text: str = "# Tiny\n\nThe abstract.") -> None:
    """notebooks/<name>.ipynb with the usual parameters and these cells of code."""
    parameters = new_code_cell("study = 'orl'\nfold = 0\nseed = 0\nout = ''", metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell(text), parameters, *map(new_code_cell, codes)]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    nbformat.write(new_notebook(cells=cells), f"notebooks/{name}.ipynb")


def write_second() -> None:
    """A small notebook in the place of the study's second one: a figure, a table, a formula, noise on stderr."""
    figure = "from matplotlib import pyplot\nfig = pyplot.figure()\nreport.save(fig, 'empty', 'An empty figure.')"
    table = "import pandas, sys\nreport.save_table(pandas.DataFrame({'a': [1.5]}), 'numbers', 'Some $x^2$.')"
    write_notebook(SECOND, OPEN, figure, table + "\nprint('no' + 'ise', file=sys.stderr)", text="# Tiny\n\nAbout $x$.")


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory, composed: Callable[[str], dict]) -> tuple[Path, Study]:
    """The same with two notebooks executed, the real first one and a small one, and the site. For reading only."""
    from lrfr.report import notebooks, site

    folder = tmp_path_factory.mktemp("project")
    study = write_study(folder, composed("smoke"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_second()
        for name in study.notebooks:
            notebooks.run(study, name)
        site.run(study)
    return folder, study
