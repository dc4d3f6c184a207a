"""A cached target is the teacher's own output, for the right image, or the cache is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.models.features import Features
from lrfr.train import targets
from lrfr.train.faces import read_fold
from lrfr.train.teacher import Trained

EVERYTHING = frozenset({"embedding", "logits", "maps", "attention"})


def folder(study: Study, variant: str = "plain") -> Path:
    return study.runs / "targets" / "fold0" / variant


@pytest.mark.parametrize("mirrored", [False, True])
def test_cached_equals_on_line(tiny: Study, mirrored: bool):
    fold = read_fold(tiny, 0)
    cached, online = targets.load_targets(tiny, fold, "plain", EVERYTHING)
    ids = fold.images[[5, 0, 17]]
    chips = torch.from_numpy(fold.chips[ids])
    new, old = online(ids, chips.flip(2) if mirrored else chips), cached(ids, np.full(3, mirrored))
    assert torch.equal(new.ids, torch.from_numpy(ids)) and torch.equal(old.ids, new.ids)
    for name in ("embedding", "logits"):
        assert torch.allclose(getattr(old, name), getattr(new, name), atol=1e-4)
    sides = (16, 8, 4, 4)
    for name, tolerance in (("maps", 2**-10), ("attention", 1e-4)):
        for level, (a, b) in enumerate(zip(getattr(old, name), getattr(new, name), strict=True)):
            assert a.dtype == torch.float32 and a.shape == b.shape and a.shape[2:] == (sides[level],) * 2
            assert torch.allclose(a, b, rtol=tolerance, atol=1e-4 * float(b.abs().max()))
    assert not any(t.requires_grad for t in (old.embedding, new.embedding, *old.maps, *new.maps))


def test_a_mirror_image_has_targets_of_its_own(tiny: Study):
    fold = read_fold(tiny, 0)
    cached, _ = targets.load_targets(tiny, fold, "plain", EVERYTHING)
    there, back = (cached(fold.images[:4], np.full(4, flag)) for flag in (False, True))
    assert (there.embedding - back.embedding).norm() > 0.05 * there.embedding.norm()


@pytest.mark.parametrize("needs", [frozenset(), frozenset({"embedding"}), frozenset({"logits", "attention"})])
def test_a_method_gets_what_it_needs_and_nothing_else(tiny: Study, needs: frozenset[str]):
    fold = read_fold(tiny, 0)
    cached, online = targets.load_targets(tiny, fold, "plain", needs)
    for found in (
        cached(fold.images[:2], np.zeros(2, bool)),
        online(fold.images[:2], torch.from_numpy(fold.chips[fold.images[:2]])),
    ):
        assert {name for name in EVERYTHING if getattr(found, name) is not None} == needs


def test_swapped_rows_are_caught(tiny: Study):
    path = folder(tiny) / "embedding.npy"
    np.save(path, np.roll(np.load(path), 1, axis=0))
    with pytest.raises(UserError, match="cached targets of fold 0: 'embedding'"):
        targets.load_targets(tiny, read_fold(tiny, 0), "plain", frozenset({"embedding"}))


@pytest.mark.parametrize("name", ["logits", "map0", "attention3"])
def test_scaled_values_are_caught(tiny: Study, name: str):
    path = folder(tiny) / f"{name}.npy"
    np.save(path, np.load(path) * np.float32(1.2))
    with pytest.raises(UserError, match=name.rstrip("0123456789")):
        targets.load_targets(tiny, read_fold(tiny, 0), "plain", EVERYTHING)


def test_other_images_are_caught(tiny: Study):
    path = folder(tiny) / "images.npy"
    np.save(path, np.load(path)[::-1].copy())
    with pytest.raises(UserError, match="cached targets of fold 0 are of other images"):
        targets.load_targets(tiny, read_fold(tiny, 0), "plain", frozenset({"embedding"}))


def test_shuffled_targets_never_come_from_the_same_person(tiny: Study):
    fold = read_fold(tiny, 0)
    cached, _ = targets.load_targets(tiny, fold, "plain", frozenset({"embedding"}))
    flags = np.arange(18) % 2 == 1
    before = cached(fold.images, flags).embedding
    cached.shuffle(fold.labels)
    after = cached(fold.images, flags)
    assert torch.equal(after.ids, torch.from_numpy(fold.images))  # the image is still itself
    assert sorted(cached.row.values()) == list(range(18))  # a permutation
    for image, label in zip(fold.images.tolist(), fold.labels.tolist(), strict=True):
        assert fold.labels[cached.row[image]] != label
    stored = np.load(folder(tiny) / "embedding.npy")
    rows = [cached.row[image] for image in fold.images.tolist()]
    assert np.array_equal(after.embedding.numpy(), stored[rows, flags.astype(int)]) and not torch.equal(before, after.embedding)


@pytest.mark.parametrize("sizes", [(1, 1), (4, 4), (1, 2, 3, 4), (5, 1, 1, 1, 1, 1), (3, 10, 9)])
def test_shuffling_people_of_any_size(sizes: tuple[int, ...]):
    cache = targets.CachedTargets.__new__(targets.CachedTargets)
    labels = np.random.Generator(np.random.Philox(key=3)).permutation(np.repeat(np.arange(len(sizes)), sizes))
    cache.images = np.arange(len(labels)) * 2
    cache.shuffle(labels)
    assert all(labels[cache.row[2 * row]] != label for row, label in enumerate(labels))


def test_beyond_the_budget_the_teacher_runs_on_line(
    tiny: Study, changed: Callable[..., Study], capsys: pytest.CaptureFixture[str]
):
    study = changed(tiny, {"targets.budget_mb": 0})
    targets.run(study)
    assert "more than targets.budget_mb" in capsys.readouterr().out
    assert {path.stem for path in folder(study).glob("*.npy")} == {"images", "embedding", "logits"}
    fold = read_fold(study, 0)
    for needs, stored in (({"embedding", "logits"}, True), ({"maps"}, False), ({"embedding", "attention"}, False)):
        cached, online = targets.load_targets(study, fold, "plain", frozenset(needs))
        assert (cached is not None) == stored and online.needs == needs


def test_only_what_is_asked_for_is_stored(tiny: Study, changed: Callable[..., Study]):
    study = changed(tiny, {"targets.store": ("embedding",), "teacher.se": None})
    targets.run(study)
    assert {path.stem for path in folder(study).glob("*.npy")} == {"images", "embedding"}
    assert not folder(study, "se").exists()


def test_files_have_a_row_for_every_training_image_and_its_mirror(tiny: Study):
    stored = {path.stem: np.load(path) for path in folder(tiny).glob("*.npy")}
    assert np.array_equal(stored["images"], read_fold(tiny, 0).images)
    assert stored["embedding"].shape == (18, 2, 128) and stored["logits"].shape == (18, 2, 3)
    assert [stored[f"map{level}"].shape[2:] for level in range(4)] == [(32, 16, 16), (64, 8, 8), (128, 4, 4), (256, 4, 4)]
    assert [stored[f"attention{level}"].shape[2:] for level in range(4)] == [(1, s, s) for s in (16, 8, 4, 4)]
    assert all(stored[f"map{level}"].dtype == np.float16 for level in range(4))
    assert {path.stem for path in folder(tiny, "se").glob("*.npy")} == {"images", "embedding"}


def test_outputs_at_known_points():
    trained = Trained(
        torch.nn.Identity(), torch.tensor([1.0, 0.0]), torch.tensor(2.0), torch.tensor([[0.0, 3.0], [5.0, 0.0]]), 8.0
    )
    stage = torch.tensor([[[[1.0, 1.0], [1.0, 1.0]], [[0.0, 2.0], [4.0, 6.0]]]])
    named = targets.outputs(Features((stage,), torch.tensor([[1.0, 4.0]])), trained, (1,))
    assert named["embedding"].tolist() == [[0, 2]] and named["logits"].tolist() == [[8, 0]]
    assert named["map0"].flatten().tolist() == [1, 3]
    assert named["attention0"].item() == (4 * 1 + 0 + 4 + 16 + 36) / 2 / 4  # squares before pooling


def test_confidence_at_known_points():
    logits = np.zeros((2, 2, 3), dtype=np.float32)
    assert targets.confidence(logits, np.array([0, 2]), 1.0) == pytest.approx(1 / 3)
    logits[0, :, 0] = logits[1, :, 2] = np.log(2)
    assert targets.confidence(logits, np.array([0, 2]), 1.0) == pytest.approx(0.5)
    assert targets.confidence(logits, np.array([0, 2]), 0.5) == pytest.approx(4 / 6)
