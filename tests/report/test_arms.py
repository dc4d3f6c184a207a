"""The ablation section of a method's notebook: what it draws, what it says, and that the notebooks have it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from matplotlib import pyplot

from lrfr.report import arms, results

ROOT = Path(__file__).resolve().parents[2]


def test_ablation_draws_differences_with_intervals_in_points():
    rows = [("no_hfd", "hr", 0.01, -0.01, 0.04), ("no_dkd", "8", -0.02, -0.03, 0.0), ("no_hfd", "8", 0.03, 0.01, 0.06)]
    figure = arms.plot(pd.DataFrame(rows, columns=["arm", "resolution", "diff", "diff_low", "diff_high"]))
    pyplot.close(figure)
    ax = figure.axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["no_hfd", "no_dkd"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["8 px", "hr"]
    first, second = ax.containers
    assert first[0].get_ydata().tolist() == [1, 3] and first[0].get_xdata().round().tolist() == [1, 0]
    ends = [
        segment[:, 1].round(6).tolist() for container in (first, second) for segment in container[2][0].get_segments()
    ]
    assert ends == [[-1, 4], [1, 6], [-3, 0]]


def write_ablation(project, rows: list[tuple[str, str, str, str, float, float, float]]) -> None:
    columns = ["method", "arm", "pairing", "resolution", "diff", "diff_low", "diff_high"]
    table = pd.DataFrame(rows, columns=columns).assign(protocol="dense", metric="eer", value=0.2, p=0.5)
    table.to_csv(project.reports / "tables/ablation.csv", index=False)


def test_ablation_says_what_the_intervals_decide(project):
    small, large, sharp = project.resolutions[0], project.resolutions[1], "hr"
    write_ablation(
        project,
        [
            ("hkdd", "no_dkd", "lr_lr", sharp, -0.03, -0.05, -0.01),
            ("hkdd", "no_dkd", "lr_lr", small, 0.02, 0.01, 0.03),
            ("hkdd", "no_hfd", "lr_lr", sharp, 0.01, 0.0, 0.02),
            ("hkdd", "no_hfd", "lr_lr", large, 0.01, -0.02, 0.04),
            ("hkdd", "no_hfd", "hr_lr", large, 0.5, 0.4, 0.6),  # neither another pairing
            ("mkmmd", "no_mmd", "lr_lr", small, 0.5, 0.4, 0.6),  # nor another method
        ],
    )
    report = results.open_study("smoke", "x", "out")
    words = report.ablation("hkdd")
    assert words.splitlines()[:2] == [
        f"- `no_dkd` against HKDD: worse at {small}; better at hr.",
        f"- `no_hfd` against HKDD: tie at {large}, hr.",
    ]
    assert "2 of 4 intervals leave zero out; if no arm differed from HKDD, about 0.2 would" in words
    table = pd.read_csv("out/ablation.csv", dtype=str, keep_default_na=False).set_index("resolution")
    assert table.columns.tolist() == ["no_dkd", "no_hfd"] and table.index.tolist() == [small, large, "hr"]
    assert table.no_dkd.tolist() == ["+2.0 [+1.0, +3.0] worse", "", "-3.0 [-5.0, -1.0] better"]
    captions = json.loads(Path("out/figures.json").read_text())
    assert Path("out/ablation.png").is_file() and "the stage `summary`" in captions["ablation"]


def test_without_arms_the_ablation_says_what_to_do(project):
    report = results.open_study("smoke", "x", "out")
    words = report.ablation("mkmmd")
    assert "no arm of MK-MMD" in words and "`run_arms` in `params.yaml`" in words and not Path("out").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "conf/arm").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_methods_notebook_names_every_arm(path):
    (method, arms), *others = yaml.safe_load(path.read_text(encoding="utf-8"))["arms"].items()
    notebook = next((path.parents[2] / "notebooks").glob(f"0?-{method.replace('_', '-')}.ipynb"))
    text = "".join("".join(cell["source"]) for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"])
    assert not others and f'report.ablation("{method}")' in text
    assert [arm for arm in arms if f"`{arm}`" not in text] == []
