"""A cached target is the teacher's own output, for the right image, or the cache is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.models.features import Features
from lrfr.train import targets
from lrfr.train.fold import read_fold
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
    assert all(
        each.is_contiguous(memory_format=torch.channels_last) for each in old.maps
    )  # as the student's lie in memory
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


@pytest.mark.parametrize("name", ["embedding", "map0", "attention3"])
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
    cached.shuffle(fold.persons)
    after = cached(fold.images, flags)
    assert torch.equal(after.ids, torch.from_numpy(fold.images))  # the image is still itself
    rows = cached.row[fold.images]
    assert sorted(rows) == list(range(18)) and (fold.persons[rows] != fold.persons).all()  # a permutation
    stored = np.load(folder(tiny) / "embedding.npy")
    assert np.array_equal(after.embedding.numpy(), stored[rows, flags.astype(int)]) and not torch.equal(
        before, after.embedding
    )


@pytest.mark.parametrize("sizes", [(1, 1), (4, 4), (1, 2, 3, 4), (5, 1, 1, 1, 1, 1), (3, 10, 9)])
def test_shuffling_people_of_any_size(sizes: tuple[int, ...]):
    cache = targets.CachedTargets.__new__(targets.CachedTargets)
    persons = np.random.Generator(np.random.Philox(key=3)).permutation(np.repeat(np.arange(len(sizes)), sizes))
    cache.images = np.arange(len(persons)) * 2
    cache.row = np.full(2 * len(persons), -1)
    cache.shuffle(persons)
    assert (persons[cache.row[cache.images]] != persons).all() and (cache.row[1::2] == -1).all()


def test_beyond_the_budget_the_teacher_runs_on_line(
    tiny: Study, changed: Callable[..., Study], capsys: pytest.CaptureFixture[str]
):
    study = changed(tiny, {"targets.budget_mb": 0, "teacher.se": None})
    targets.run(study)
    assert "more than targets.budget_mb" in capsys.readouterr().out
    assert {path.stem for path in folder(study).glob("*.npy")} == {"images", "embedding"}
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
    assert stored.keys() == {
        "images",
        "embedding",
        *(f"{kind}{level}" for kind in ("map", "attention") for level in range(4)),
    }
    assert stored["embedding"].shape == (18, 2, 128) and all(len(array) == 18 for array in stored.values())
    assert [stored[f"map{level}"].shape[1:] for level in range(4)] == [
        *((2, 16, 16, 32), (2, 8, 8, 64), (2, 4, 4, 128), (2, 4, 4, 256))
    ]
    assert [stored[f"attention{level}"].shape[2:] for level in range(4)] == [(1, s, s) for s in (16, 8, 4, 4)]
    assert all(stored[f"map{level}"].dtype == np.float16 for level in range(4))
    assert {path.stem for path in folder(tiny, "se").glob("*.npy")} == {"images", "embedding"}


def test_outputs_at_known_points():
    trained = Trained(
        torch.nn.Identity(), torch.tensor([1.0, 0.0]), torch.tensor(2.0), torch.tensor([[0.0, 3.0], [5.0, 0.0]]), 8.0
    )
    stage = torch.tensor([[[[1.0, 1.0], [1.0, 1.0]], [[0.0, 2.0], [4.0, 6.0]]]])
    named = targets.outputs(Features((stage,), torch.tensor([[1.0, 4.0]])), trained, (1,))
    assert named["embedding"].tolist() == [[0, 2]] and set(named) == {"embedding", "map0", "attention0"}
    assert named["map0"].flatten().tolist() == [1, 3]
    assert named["attention0"].item() == (4 * 1 + 0 + 4 + 16 + 36) / 2 / 4  # squares before pooling
    # logits are scaled cosines to the class weights, and come of the embedding alone
    found = targets.assemble(torch.tensor([7]), {"embedding": named["embedding"]}, trained, frozenset({"logits"}))
    assert found.logits.tolist() == [[8, 0]] and found.embedding is None and found.ids.tolist() == [7]


def test_confidence_at_known_points():
    logits, labels = torch.zeros(2, 3), torch.tensor([0, 2])
    assert targets.confidence(logits, labels, 1.0) == pytest.approx(1 / 3)
    logits[0, 0] = logits[1, 2] = np.log(2)
    assert targets.confidence(logits, labels, 1.0) == pytest.approx(0.5)
    assert targets.confidence(logits, labels, 0.5) == pytest.approx(4 / 6)
    assert targets.confidence(logits, torch.tensor([1, 1]), 1.0) == pytest.approx(0.25)


def test_the_confidence_of_a_fold_is_of_people_who_are_a_class(singles: Study):
    table = pd.read_csv(singles.runs / "targets" / "confidence.csv")
    assert list(table.columns) == ["fold", "temperature", "p_target"] and table.temperature.tolist() == [1, 2, 4]
    cached, _ = targets.load_targets(singles, fold := read_fold(singles, 0), "plain", frozenset({"logits"}))
    known = fold.labels >= 0
    logits = cached(fold.images[known], np.zeros(8, bool)).logits.double()
    for temperature, expected in zip(table.temperature, table.p_target, strict=True):
        p = (logits / temperature).softmax(1)[torch.arange(8), torch.from_numpy(fold.labels[known])].mean()
        assert expected == pytest.approx(float(p), rel=1e-4)


def files(study: Study) -> dict[str, bytes]:
    return {
        p.relative_to(study.runs).as_posix(): p.read_bytes() for p in (study.runs / "targets").rglob("*") if p.is_file()
    }


def test_parts_side_by_side_give_the_same_bytes(
    tiny: Study, changed: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
):
    """As many parts as a large set has, in one process and in two; and up to float sums what one part gives.

    Of half the faces, and of the plain teacher, so that it is quick.
    """
    whole = {path.stem: np.load(path) for path in folder(tiny).glob("*.npy")}
    index = pd.read_csv(tiny.runs / "index.csv")
    index.assign(removed=(index.image % 6 > 2).astype(int)).to_csv(tiny.runs / "index.csv", index=False)
    rows = np.flatnonzero(whole["images"] % 6 <= 2)
    monkeypatch.setattr(targets, "BATCH", 2)
    monkeypatch.setattr(targets, "PART", 4)  # 4, 4 and 1 images
    found = []
    for jobs in (1, 2):
        targets.run(changed(tiny, {"jobs": jobs, "teacher.se": None}))
        found.append(files(tiny))
    assert found[0] == found[1] and len(rows) == 9
    for name, array in whole.items():
        new, old = np.load(folder(tiny) / f"{name}.npy").astype(np.float64), array[rows].astype(np.float64)
        assert new.shape == old.shape and np.allclose(new, old, rtol=2e-3, atol=1e-3 * float(np.abs(old).max()))


def test_a_part_writes_its_own_rows_only(tiny: Study, tmp_path: Path):
    names = targets.allocate(tiny, 0, "se", tmp_path / "part")
    assert names == ["embedding"]
    targets.fill(tiny, 0, "se", tmp_path / "part", names, 3, 9)
    part, whole = (np.load(place / "embedding.npy") for place in (tmp_path / "part", folder(tiny, "se")))
    assert np.allclose(part[3:9], whole[3:9], atol=1e-4) and not part[:3].any() and not part[9:].any()
    assert np.array_equal(np.load(tmp_path / "part" / "images.npy"), read_fold(tiny, 0).images)


def test_the_budget_counts_what_the_arrays_really_take(tiny: Study, changed: Callable[..., Study], tmp_path: Path):
    names = [name for name in targets.layout(tiny, "plain") if name != "embedding"]
    size = sum(np.load(folder(tiny) / f"{name}.npy").nbytes for name in names)
    enough = -(-size // 2**20)
    for budget, kept in ((enough, ["embedding", *names]), (enough - 1, ["embedding"])):
        study = changed(tiny, {"targets.budget_mb": budget})
        assert set(targets.allocate(study, 0, "plain", tmp_path / str(budget))) == set(kept)
