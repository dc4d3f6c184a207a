"""What notebooks import: reading a study, writing figures and tables, scores of pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from lrfr.errors import UserError
from lrfr.report import results


def test_pairs_by_hand():
    people = np.array([0, 0, 1])
    x = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]], np.float32)
    scores, same = results.pairs(x, x, people)
    assert np.allclose(scores, [-5, -1, -np.sqrt(18)]) and same.tolist() == [True, False, False]
    scores, same = results.pairs(x, x.copy(), people)
    assert len(scores) == 6 and same.sum() == 2


def test_unit_keeps_a_zero_row_finite():
    assert np.allclose(results.unit(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0, 0]])


def test_order_of_models_and_resolutions():
    assert results.order(["hkdd", "zebra", "teacher", "hkdd"]) == ["teacher", "hkdd", "zebra"]
    assert sorted(["hr", "16", "8"], key=results.pixels) == ["8", "16", "hr"]


def test_headline_shows_value_and_interval():
    rows = [("kd", "hr_lr", r, "eer", v, v - 0.01, v + 0.02) for r, v in (("hr", 0.1), ("8", 0.25))]
    table = results.headline(pd.DataFrame(rows, columns=["model", "pairing", "resolution", "metric", "value", "low", "high"]))
    assert table.columns.tolist() == ["model", "8", "hr"] and table.iloc[0].tolist() == [
        "kd",
        "25.0 [24.0, 27.0]",
        "10.0 [9.0, 12.0]",
    ]


def test_embeddings_align_with_faces(project):
    report = results.open_study("smoke", "x")
    faces = report.faces(0)
    rows = report.embedding("kd", 0, 0, "8")
    every = report.embeddings("kd")["fold0/seed0/8"]
    held_out = np.sort(np.concatenate([faces.image, report.faces(0, "validation").image]))
    assert len(rows) == len(faces) and (rows == every[np.isin(held_out, faces.image)]).all()
    assert (report.embedding("teacher", 0, 5, "8") == report.embedding("teacher", 0, 0, "8")).all()
    with pytest.raises(UserError, match="holds no 'fold0/seed5/8'"):
        report.embedding("kd", 0, 5, "8")


def test_reads_tables_logs_and_parameters(project, monkeypatch):
    monkeypatch.chdir("notebooks")
    report = results.open_study("smoke", "x")
    assert report.resolutions == list(project.resolutions) and set(project.models) < set(report.models)
    assert report.parameters == project and set(report.log("kd").term) == {"face", "kd", "learning_rate"}
    assert report.chips().shape[1:] == (150, 150, 3) and report.views().ndim == 6 and len(report.cost("cost"))


def test_says_what_is_missing(project, tmp_path_factory, monkeypatch):
    with pytest.raises(UserError, match="run `make study` first"):
        results.open_study("lfw", "x")
    report = results.open_study("smoke", "x")
    with pytest.raises(UserError, match="students/none/log.csv: not there; run `make study` first"):
        report.log("none")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(UserError, match="inside a clone"):
        results.open_study("smoke", "x")


def test_figures_and_tables_are_the_same_bytes_twice(project):
    def files(out: str) -> dict[str, bytes]:
        report = results.open_study("smoke", "x", out)
        fig, ax = pyplot.subplots()
        ax.plot([1, 2])
        report.save(fig, "line", "A line.")
        report.save_table(pd.DataFrame({"a": [1, 2], "b": [0.12345, np.nan]}), "numbers", "Numbers.")
        return {path.name: path.read_bytes() for path in Path(out).iterdir()}

    first, second = files("one"), files("two")
    assert first == second and set(first) == {"line.png", "figures.json", "numbers.csv", "numbers.md", "tables.json"}
    assert json.loads(first["figures.json"]) == {"line": "A line."} and "| 1 | 0.123 |" in first["numbers.md"].decode()
    assert not pyplot.get_fignums()


def test_by_hand_figures_go_to_the_ignored_folder(project):
    report = results.open_study("smoke", "some-notebook")
    report.save(pyplot.figure(), "empty", "Nothing.")
    report.save(pyplot.figure(), "empty", "Nothing, again.")
    assert Path("notebooks/output/some-notebook/empty.png").is_file()


def test_refuses_bad_and_repeated_names(project):
    report = results.open_study("smoke", "x", "out")
    with pytest.raises(UserError, match="not a name"):
        report.save(pyplot.figure(), "../up", "No.")
    report.save(pyplot.figure(), "one", "Yes.")
    with pytest.raises(UserError, match="twice"):
        report.save(pyplot.figure(), "one", "No.")
