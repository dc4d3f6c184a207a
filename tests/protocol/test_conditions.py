"""Small faces under other conditions than plain averaging, networks that are simply fed, and test sets of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lrfr.config import Study
from lrfr.data.degradations import small_images
from lrfr.data.degrade import middle
from lrfr.models.student import student_view
from lrfr.models.teachers import TEACHERS, build_teacher
from lrfr.protocol import embed, folds, references
from lrfr.protocol import study as stage
from lrfr.protocol.cells import embedding_file
from lrfr.report import tables
from lrfr.train.fold import read_fold, teacher_input
from tests.protocol import faces
from tests.protocol.conftest import with_students

ASKED = {"camera": (8, 16), "jpeg": (16,)}
KEYS = ["8", "16", "hr", "camera-8", "camera-16", "jpeg-16"]


@pytest.fixture
def conditioned(tiny: Study) -> Study:
    """The tiny study with two conditions and a network of random weights that is simply fed."""
    values = tiny.model_dump()
    evaluate = values["evaluate"] | {"degradations": ASKED}
    return with_students(tiny, evaluate=evaluate, references={"fed": {"name": "edgeface_xxs", "weights": "random"}})


def test_every_network_sees_the_same_small_image(conditioned: Study):
    """One face under one condition, by hand, through a student and through the network that is fed."""
    references.run(conditioned)
    embed.run(conditioned)
    fold, row = read_fold(conditioned, 0), 3
    image = fold.held_out[row : row + 1]
    small = small_images("camera", fold.chips[image], 16, conditioned.seed, image)
    fed_file = conditioned.runs / "references" / "fed.npz"
    assert embedding_file(conditioned, "fed") == fed_file
    with np.load(conditioned.runs / "embeddings" / "scratch.npz") as student, np.load(fed_file) as fed:
        assert sorted(student) == sorted(f"fold0/seed{seed}/{key}" for seed in (0, 1) for key in KEYS)
        assert sorted(fed) == sorted(f"fold0/seed0/{key}" for key in KEYS)
        expected = embed.embed_views(
            embed.load_student(conditioned, "scratch", 0, 1), student_view(small, 16, 32).numpy()
        )
        assert np.allclose(student["fold0/seed1/camera-16"][row], expected[0], atol=1e-5)
        assert not np.allclose(student["fold0/seed1/camera-16"], student["fold0/seed1/16"], atol=1e-3)
        net, see = build_teacher("edgeface_xxs", "random"), TEACHERS["edgeface_xxs"].see
        with torch.inference_mode():
            raw = net(teacher_input(see(small, 16))).embedding[0]
        assert np.allclose(fed["fold0/seed0/camera-16"][row], raw / raw.norm(), atol=1e-4)
    with np.load(fed_file.with_name("teacher.npz")) as teacher:
        assert {key.split("/")[-1] for key in teacher} == {*KEYS, "standardised"}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    """An invented study, evaluated and summarised: `camera` adds noise to all but two models."""
    folder = tmp_path_factory.mktemp("conditions")
    values = faces.tiny_study().model_dump()
    values["evaluate"] |= {"degradations": {"camera": (8, 16)}}
    study = Study(**values)

    def write(study: Study) -> None:
        faces.write_faces(study)
        for path in study.runs.glob("*/*.npz"):
            arrays, rng = dict(np.load(path)), np.random.default_rng(len(path.stem))
            for key in [key for key in arrays if path.stem != "teacher_settings" and key.split("/")[-1] in ("8", "16")]:
                noise = rng.normal(size=arrays[key].shape) if path.stem not in ("kd", "hkdd") else 0.0
                own, resolution = key.rsplit("/", 1)
                arrays[f"{own}/camera-{resolution}"] = (arrays[key] + noise).astype(np.float32)
            np.savez(path, **arrays)

    return faces.summarised(folder, study, write), study


def test_conditions_are_protocols_of_their_own(told: tuple[Path, Study]):
    reports, _ = told
    results = pd.read_csv(reports / "tables/results.csv", dtype={"resolution": str})
    assert set(results.protocol) == {"dense", "dense-camera"}
    found = results[results.protocol == "dense-camera"]
    assert set(found.resolution) == {"8", "16"} and set(found.pairing) == {"lr_lr", "hr_lr"}
    text = (reports / "tables/results.md").read_text(encoding="utf-8")
    assert "# Protocol `dense-camera`" in text and tables.TEXTS["conditions"]["camera"] in text
    comparisons = pd.read_csv(reports / "tables/comparisons.csv")
    counts = comparisons.groupby("protocol").size()
    assert set(counts.index) == {"dense", "dense-camera"}
    family = comparisons[(comparisons.protocol == "dense-camera") & (comparisons.metric == "eer")]
    assert (family.p_holm >= family.p).all()


def test_what_a_condition_costs_is_paired_with_the_plain_faces(told: tuple[Path, Study]):
    reports, _ = told
    table = pd.read_csv(reports / "tables/degradations.csv", dtype={"resolution": str})
    results = pd.read_csv(reports / "tables/results.csv", dtype={"resolution": str})
    plain = results[(results.protocol == "dense") & (results.metric == "eer") & (results.pairing == "lr_lr")]
    plain = plain.set_index(["model", "resolution"]).value
    assert set(table.condition) == {"camera"} and set(table.resolution) == {"8", "16"}
    for row in table.itertuples():
        assert row.diff == pytest.approx(row.value - plain[row.model, row.resolution], abs=2e-6)
        assert row.diff_low <= row.diff + 1e-9 <= row.diff_high + 2e-9
    same = table[table.model == "kd"]  # its faces under `camera` are the plain ones
    assert (same["diff"] == 0).all() and (same.diff_low <= 0).all() and (same.p > 0.9).all()


@pytest.fixture
def other_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Index and roles of a study that trains on `celeba` and tests the people of three other sources."""
    monkeypatch.chdir(tmp_path)
    values = faces.tiny_study().model_dump() | {"study": "others"}
    searcher = {"name": "edgeface_xs", "weights": "random"}
    values["faces"] |= {"source": "celeba", "tests": ("lfw", "cfp", "orl"), "folds": 1, "run_folds": (0,)}
    values["faces"] |= {"people": 20, "margin": 41, "resemblance": 0.42, "searcher": searcher}
    values["evaluate"] |= {"official": True, "dense_images": 3, "impostors": 40}
    study = Study(**values)
    study.runs.mkdir(parents=True)
    sets, each = ["celeba"] * 20 + ["lfw"] * 6 + ["cfp"] * 4 + ["orl"] * 5, 4
    people = np.repeat(np.arange(len(sets)), each)
    index = pd.DataFrame({"image": np.arange(len(people)), "person": people, "set": np.repeat(sets, each), "name": "x"})
    index.assign(fallback=0, removed=0).to_csv(study.runs / "index.csv", index=False)
    roles = ["train"] * 15 + ["validation"] * 5 + ["test"] * 15
    table = pd.DataFrame({"fold": 0, "person": np.arange(35), "role": roles})
    table.to_csv(study.runs / "folds.csv", index=False)
    rows = []
    for name, first in (("official", 20), ("cfp_ff", 26), ("cfp_fp", 26)):
        for k in range(2):
            a = each * (first + 2 * k)
            rows += [(name, 0, k, a, a + 1, 1), (name, 0, k, a + 4, a + 5, 1), (name, 0, k, a, a + 6, 0)]
            rows.append((name, 0, k, a + 1, a + 7, 0))
    pd.DataFrame(rows, columns=folds.OFFICIAL_COLUMNS).to_csv(study.runs / "official.csv", index=False)
    return study


def test_each_test_set_has_its_pairs(other_people: Study):
    fold = folds.build_fold(other_people, 0, draws=50)
    assert list(fold.dense) == ["dense", "orl"] and list(fold.lists) == ["official", "cfp_ff", "cfp_fp"]
    people = {name: set(fold.rows.people[chosen.rows]) for name, chosen in fold.dense.items()}
    assert people == {"dense": set(range(20, 26)), "orl": set(range(30, 35))}
    assert all(len(chosen.rows) == 3 * len(people[name]) for name, chosen in fold.dense.items())
    tested = fold.rows.people[fold.rows.test]
    assert set(tested[fold.lists["cfp_ff"].first]) <= set(range(26, 30))
    assert not np.array_equal(fold.dense["dense"].pairs.counts[1:, :5], fold.dense["orl"].pairs.counts[1:, :5])
    counts = folds.count(other_people).set_index(["protocol", "searches"])
    assert counts.loc[("orl", 0), "identities"] == 5 and counts.loc[("cfp_fp", 0), "n_genuine"] == 4


def test_the_middle_of_a_margin():
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    assert np.array_equal(middle(images, 4), images[:, 2:6, 2:6]) and middle(images, 8).shape == images.shape


def test_names_of_protocols():
    assert folds.under("dense", "") == "dense" and folds.under("official", "camera") == "official-camera"
    assert folds.under("dense", "misaligned") == stage.DENSE.replace("dense", "misaligned")
