"""tables/mirror.csv: a face and its mirror image, averaged as it says, on the pairs and draws of the stage
`evaluate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lrfr.config import Study
from lrfr.data.degrade import degrade
from lrfr.deploy import mirror
from lrfr.formats import read_table
from lrfr.models.student import build_student, normalise
from lrfr.models.teachers import TEACHERS
from lrfr.protocol.cells import embedding_file
from lrfr.protocol.embed import load_student
from lrfr.train.checkpoint import save_tensors
from lrfr.train.distill import halved
from lrfr.train.fold import read_fold, teacher_input
from lrfr.train.teacher import load_trained
from tests.protocol import faces


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory):
    """A tiny study of LFW that has been evaluated, with its embeddings by model and key."""
    folder, study = tmp_path_factory.mktemp("study"), faces.lfw_study()
    faces.summarised(folder, study, faces.write_lfw)
    return study, folder


def run(study: Study, patch: pytest.MonkeyPatch, folder: Path, noise: float, sign: int = 1):
    """mirror.csv if the mirror image's embedding is `sign` times the face's own, with noise."""
    rng = np.random.default_rng(5)

    def embedding(study: Study, number: int, model: str, seed: int, resolution: str):
        with np.load(embedding_file(study, model)) as archive:
            x = archive[f"fold{number}/seed{seed}/{resolution}"].astype(np.float64)
        return sign * x + noise * rng.normal(size=x.shape)

    patch.chdir(folder)
    patch.setattr(mirror, "read_fold", lambda study, number: number)
    patch.setattr(mirror, "mirrored", embedding)
    mirror.run(study)
    return read_table(study.reports / "tables" / "mirror.csv")


def test_a_mirror_image_with_the_same_embedding_changes_nothing(evaluated, monkeypatch):
    study, folder = evaluated
    table = run(study, monkeypatch, folder, noise=0)
    assert list(table.columns) == mirror.COLUMNS and set(table.model) == {"teacher", *study.models}
    assert set(table.resolution) == {"8", "16", "32"} and set(table.protocol) == {"dense", "official"}
    np.testing.assert_array_equal(table.value, table.once)
    assert (table["diff"] == 0).all() and (table[table.protocol == "dense"].p == 1).all()
    assert table[table.protocol == "official"].p.isna().all()


def test_once_is_what_the_results_say(evaluated, monkeypatch):
    study, folder = evaluated
    table = run(study, monkeypatch, folder, noise=1)
    results = read_table(study.reports / "tables" / "results.csv")
    keys = ["protocol", "model", "pairing", "resolution", "metric"]
    both = table.merge(results, on=keys, suffixes=("", "_results"), validate="one_to_one")
    assert len(both) == len(table)
    np.testing.assert_allclose(both.once, both.value_results, rtol=1e-5)
    np.testing.assert_allclose(both["diff"], both.value - both.once, atol=2e-6)
    assert (both.value != both.once).any()


def test_intervals_are_those_of_the_results(evaluated, monkeypatch):
    """Where the mirror image changes nothing, the same pairs and draws give the same ends."""
    study, folder = evaluated
    table = run(study, monkeypatch, folder, noise=0)
    results = read_table(study.reports / "tables" / "results.csv")
    keys = ["protocol", "model", "pairing", "resolution", "metric"]
    both = table.merge(results, on=keys, suffixes=("", "_results"))
    np.testing.assert_allclose(both.low, both.low_results, rtol=1e-5)
    np.testing.assert_allclose(both.high, both.high_results, rtol=1e-5)


def test_the_page_names_protocols_and_differences(evaluated, monkeypatch):
    study, folder = evaluated
    run(study, monkeypatch, folder, noise=1)
    text = (study.reports / "tables" / "mirror.md").read_text(encoding="utf-8")
    assert "## eer, protocol `dense`" in text and "## accuracy, protocol `official`" in text and "| scratch | " in text


def test_a_mirrored_view_is_the_view_of_the_mirrored_face(tiny: Study):
    """What both networks are fed with: mirroring before or after making a face small is the same."""
    study, fold = tiny, read_fold(tiny, 0)
    seed, folder = study.train.seeds[0], study.reports / "students" / "feature"
    folder.mkdir(parents=True, exist_ok=True)
    net = build_student(study.student, "plain", study.views.size, seed)
    save_tensors(folder / f"fold0-seed{seed}.safetensors", halved(net.state_dict()))
    chips = np.ascontiguousarray(fold.chips[fold.held_out][:, :, ::-1])
    views = degrade(chips, 8, study.views.size)
    net = load_student(study, "feature", 0, seed)
    with torch.inference_mode():
        expected = net(normalise(torch.from_numpy(views))).embedding.numpy()
    found = mirror.mirrored(study, fold, "feature", seed, "8")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    teacher = load_trained(study, 0, study.teacher.setting).net
    with torch.inference_mode():
        seen = teacher_input(degrade(torch.from_numpy(chips), 8, chips.shape[1]))
        expected = TEACHERS[study.teacher.name].comparable(teacher(seen).embedding).numpy()
    np.testing.assert_allclose(mirror.mirrored(study, fold, "teacher", seed, "8"), expected, atol=1e-4)
