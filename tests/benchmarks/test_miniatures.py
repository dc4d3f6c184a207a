import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lrfr.benchmarks import miniatures, survface, tinyface
from lrfr.gate import insightface_bin, recordio
from lrfr.sources import orl
from tests.gate.refusals import refusal

WRITERS = {
    "tinyface": miniatures.write_tinyface,
    "survface": miniatures.write_survface,
    "scface": miniatures.write_scface,
    "records": lambda folder: miniatures.write_records(folder, 5, 3),
}


def digest(folder):
    """Of all names and bytes."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        data = path.read_bytes() if path.is_file() else b""
        found.update(path.relative_to(folder).as_posix().encode() + data)
    return found.hexdigest()


@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_files_every_time(tmp_path, kind):
    for name in ("one", "two"):
        WRITERS[kind](tmp_path / name)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize("kind", WRITERS)
def test_nothing_is_overwritten(tmp_path, kind):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    (tmp_path / "file").write_text("too")
    for name in ("mine", "file"):
        assert "is already there" in refusal(WRITERS[kind], tmp_path / name)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


def test_no_half_written_set(tmp_path, monkeypatch):
    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda p, data: 1 / 0 if p.suffix == ".mat" else write(p, data))
    with pytest.raises(ZeroDivisionError):
        miniatures.write_tinyface(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def likeness(pixels, person, photograph, crop):
    """Correlation of an image with an ORL photograph of the same size."""
    picture = Image.open(io.BytesIO(orl.Photographs().read(f"s{person}/{photograph}.pgm"))).crop(crop)
    other = np.asarray(picture.resize(pixels.shape[1::-1], Image.Resampling.BICUBIC), float)
    return np.corrcoef(pixels[..., 1].ravel(), other.ravel())[0, 1]


def test_who_is_who(tmp_path):
    """By the pixels: the person that a list names is the person of ORL in the picture."""
    whole = (0, 0, 92, 112)
    miniatures.write_tinyface(tmp_path / "t")
    tiny = tinyface.read_tinyface(tmp_path / "t")
    assert all(likeness(tiny.probes.read(i), tiny.probes.ids[i], 3 + i % 3, whole) > 0.98 for i in range(0, 24, 5))
    assert all(likeness(tiny.gallery.read(i), tiny.gallery.ids[i], 1 + i % 2, whole) > 0.98 for i in range(16))
    miniatures.write_survface(tmp_path / "s")
    surveillance = survface.read_survface(tmp_path / "s")
    for faces in (surveillance.gallery, surveillance.mated):
        for i, name in enumerate(faces.names):
            assert likeness(faces.read(i), faces.ids[i], int(name.split("_")[2][0]), whole) > 0.98
    miniatures.write_records(tmp_path / "r", 5, 3)
    records = recordio.RecordSet(tmp_path / "r")
    assert records.labels.tolist() == np.repeat(range(5), 3).tolist() and records.people == 5
    assert all(likeness(records.read(i), records.labels[i] + 1, 1 + i % 3, orl.FALLBACK) > 0.98 for i in range(15))


def test_pairs_of_a_fold_stay_in_it(tmp_path):
    """Ten folds of four people; positive pairs are of one person by their pixels, negative ones of two."""
    miniatures.write_bin(tmp_path / "x.bin")
    pairs = insightface_bin.read_bin(tmp_path / "x.bin")
    assert pairs.same.tolist() == ([True] * 4 + [False] * 4) * 10
    for pair in (0, 3, 8, 79):
        fold, place = divmod(pair, 8)
        person = 4 * fold + 1 + place % 4
        other = person if pairs.same[pair] else 4 * fold + 1 + (place + 1) % 4
        first = 1 if pairs.same[pair] else 3
        assert likeness(pairs.read(2 * pair), person, first, orl.FALLBACK) > 0.98
        assert likeness(pairs.read(2 * pair + 1), other, first + 1, orl.FALLBACK) > 0.98


def test_the_bin_is_a_pickle_that_names_nothing(tmp_path):
    miniatures.write_bin(tmp_path / "x.bin")

    class Strict(pickle.Unpickler):
        def find_class(self, module, name):
            raise AssertionError(f"{module}.{name}")

    images, same = Strict(io.BytesIO((tmp_path / "x.bin").read_bytes())).load()
    assert len(images) == 160 and len(same) == 80
