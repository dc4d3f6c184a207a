"""What notebooks import: reading a study, writing figures and tables, scores of pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib import pyplot

from lrfr.errors import UserError
from lrfr.formats import FIVE
from lrfr.report import notebooks, results
from lrfr.train.fold import read_fold

ROOT = Path(__file__).resolve().parents[2]


def test_pairs_by_hand():
    people = np.array([0, 0, 1])
    x = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]], np.float32)
    scores, same = results.pairs(x, x, people)
    assert np.allclose(scores, [-5, -1, -np.sqrt(18)]) and same.tolist() == [True, False, False]
    scores, same = results.pairs(x, x.copy(), people)
    assert len(scores) == 6 and same.sum() == 2


def test_unit_keeps_a_zero_row_finite():
    assert np.allclose(results.unit(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0, 0]])


def test_embeddings_align_with_faces(project):
    report = results.Report("smoke", "x")
    faces, validation = report.faces(0), report.faces(0, "validation")
    rows = report.embedding("kd", 0, 0, "8")
    every = np.load(report.file("embeddings/kd.npz"))["fold0/seed0/8"]
    held_out = np.sort(np.concatenate([faces.image, validation.image]))
    assert len(rows) == len(faces) and (rows == every[np.isin(held_out, faces.image)]).all()
    some = report.sample(0, 2, most=3)
    assert (report.embedding("kd", 0, 0, "8", some) == every[np.searchsorted(held_out, some.image)]).all()
    own = report.embedding("kd", 0, 0, "8", validation)
    assert len(own) == len(validation) and (own == every[np.isin(held_out, validation.image)]).all()
    with pytest.raises(UserError, match="holds test and validation people of fold 0 only"):
        report.embedding("kd", 0, 0, "8", report.faces(0, "train"))
    assert (report.embedding("teacher", 0, 5, "8") == report.embedding("teacher", 0, 0, "8")).all()
    with pytest.raises(UserError, match="embeddings/kd.npz: holds no 'fold0/seed5/8'"):
        report.embedding("kd", 0, 5, "8")


def few_photographs(report: results.Report) -> None:
    """Leave person p of the invented study min(p, 10) photographs or so, and mark one to train on as a duplicate."""
    index = report.people[0]
    place = index.groupby("person").cumcount()
    index = index[place < np.maximum(index.person, 1)]
    trained = pd.read_csv(report.file("folds.csv")).query("role == 'train'").person.max()
    index.loc[index[index.person == trained].index[0], "removed"] = 1
    index.to_csv(report.runs / "index.csv", index=False)


def test_faces_are_those_that_the_stages_use(project):
    few_photographs(results.Report("smoke", "x"))
    report, fold = results.Report("smoke", "x"), read_fold(project, 0)
    index = report.people[0].image.to_numpy()  # of read_fold's numbers, which are rows
    for role, rows in (("train", fold.images), ("validation", fold.validation), ("test", fold.test)):
        assert report.faces(0, role).image.tolist() == sorted(index[rows])
    assert report.faces(0, most=2).groupby("person").size().max() == 2
    classes = report.sample(0, None, role="train").person.nunique()
    assert classes == fold.labels.max() + 1


def test_a_sample_is_of_people_with_several_photographs_and_the_same_twice(project):
    few_photographs(results.Report("smoke", "x"))
    report = results.Report("smoke", "x")
    every = report.sample(0, None)
    assert set(every.person) == {2, 3} and every.person.is_monotonic_increasing  # 0 and 1 have one photograph
    assert report.sample(0, None, least=1).person.nunique() == 4
    one = report.sample(0, 1, most=2)
    assert one.equals(report.sample(0, 1, most=2)) and len(one) == 2 and one.person.nunique() == 1
    assert report.sample(0, 99).equals(every)


def test_tables_hold_one_protocol_unless_all_are_asked_for(project):
    path = project.reports / "tables/results.csv"
    table = results.read_table(path)
    other = table.assign(protocol="official", value=table.value / 2)
    pd.concat([table, other]).to_csv(path, index=False)
    report = results.Report("smoke", "x")
    assert set(report.table("results").protocol) == {"dense"} and len(report.table("results")) == len(table)
    assert len(report.table("results", None)) == 2 * len(table) and len(report.table("cost"))
    assert (
        report.table("results", "view2").empty
        and results.headline(report.table("results", "view2"), "eer", "lr_lr").empty
    )
    dense, official = (
        results.headline(report.table("results", protocol), "eer", "lr_lr") for protocol in ("dense", "official")
    )
    assert dense.model.tolist() == official.model.tolist() and not dense.equals(official)
    assert results.headline(report.table("results"), "eer", "lr_lr").equals(dense) and report.resolutions == list(
        project.resolutions
    )


def test_compared_says_what_the_data_decide(project):
    report = results.Report("smoke", "x")
    table = report.compared("kd")
    assert table.columns.tolist() == ["resolution", "against scratch"]  # the invented study compares with nobody else
    assert table.resolution.tolist() == list(project.resolutions)
    row = report.table("comparisons").query("a == 'kd' and metric == 'eer' and pairing == 'lr_lr'").iloc[0]
    assert table.iloc[0, 1] == f"{100 * row['diff']:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}] worse"
    assert report.compared("hkdd")["against scratch"].str.endswith(" tie").all()  # p is 1
    assert report.compared("nobody").empty


def test_only_the_named_notebooks_read_what_was_measured_in_seconds():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        source = path.read_text(encoding="utf-8")
        read = [table for table in notebooks.TIMES if f'\\"{table}\\"' in source]
        assert not read or path.stem in notebooks.TIMED, (path.stem, read)


def test_reads_tables_logs_and_parameters(project, monkeypatch):
    monkeypatch.chdir("notebooks")
    report = results.Report("smoke", "x")
    assert report.resolutions == list(project.resolutions) and set(project.models) < set(report.models)
    assert report.parameters == project and set(pd.read_csv(report.file("students/kd/log.csv")).term) == {
        "face",
        "kd",
        "learning_rate",
    }
    assert (
        np.load(report.file("chips.npy"), mmap_mode="r").shape[1:] == (150, 150, 3)
        and np.load(report.file("views/area.npy"), mmap_mode="r").ndim == 5
        and len(report.table("cost"))
    )


def test_says_what_is_missing(project, tmp_path_factory, monkeypatch):
    with pytest.raises(UserError, match="run `make study` first"):
        results.Report("lfw", "x")
    report = results.Report("smoke", "x")
    with pytest.raises(UserError, match="students/none/log.csv: in neither .* run `make study` first"):
        pd.read_csv(report.file("students/none/log.csv"))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(UserError, match="inside a clone"):
        results.Report("smoke", "x")


def test_figures_and_tables_are_the_same_bytes_twice(project):
    def files(out: str) -> dict[str, bytes]:
        report = results.Report("smoke", "x", out)
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
    report = results.Report("smoke", "some-notebook")
    report.save(pyplot.figure(), "empty", "Nothing.")
    report.save(pyplot.figure(), "empty", "Nothing, again.")
    assert Path("notebooks/output/some-notebook/empty.png").is_file()


def test_photographs_that_may_not_be_passed_on_stay_out_of_pages(project, monkeypatch):
    def save(out: str) -> Path:
        report = results.Report("smoke", "x", out)
        report.save(pyplot.figure(), "faces", "Some faces.", photographs=True)
        report.save(pyplot.figure(), "curve", "A curve.")
        return report.folder

    assert (save("free") / "faces.png").is_file()
    monkeypatch.setattr(results, "SHOWN", ())
    folder = save("bound")
    assert not (folder / "faces.png").exists() and list(json.loads((folder / "figures.json").read_text())) == ["curve"]
    assert (save("") / "faces.png").is_file() and not pyplot.get_fignums()


def test_refuses_bad_and_repeated_names(project):
    report = results.Report("smoke", "x", "out")
    with pytest.raises(UserError, match="not a name"):
        report.save(pyplot.figure(), "../up", "No.")
    report.save(pyplot.figure(), "one", "Yes.")
    with pytest.raises(UserError, match="twice"):
        report.save(pyplot.figure(), "one", "No.")


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
    report = results.Report("smoke", "x", "out")
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
    report = results.Report("smoke", "x", "out")
    words = report.ablation("mkmmd")
    assert "no arm of MK-MMD" in words and "`models` in `params.yaml`" in words and not Path("out").exists()


@pytest.mark.parametrize("method", FIVE)
def test_a_methods_notebook_names_every_arm(method):
    arms = yaml.safe_load((ROOT / "conf/config.yaml").read_text(encoding="utf-8"))["arms"]
    notebook = next((ROOT / "notebooks").glob(f"0?-{method.replace('_', '-')}.ipynb"))
    text = "".join("".join(cell["source"]) for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"])
    own = [name.split("-")[1] for name, arm in arms.items() if arm["like"] == method]
    assert own and f'report.ablation("{method}")' in text and [arm for arm in own if f"`{arm}`" not in text] == []
