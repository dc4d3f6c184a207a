import hashlib
import zipfile

import pandas as pd
import pytest

from lrfr.data.photographs import COMMITTED, make_manifest, read_manifest
from lrfr.sources import celeba
from tests.gate.refusals import refusal
from tests.sources.small_lfw import invented

PEOPLE = {f"{number:06d}.jpg": str(person) for number, person in ((3, 12), (1, 7), (2, 12))}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Three listed photographs of two people and one that is not listed, in a folder."""
    root = tmp_path / "celeba"
    (root / celeba.NAME).mkdir(parents=True)
    names = sorted(PEOPLE)
    for number, name in enumerate([*names, "000009.jpg"]):
        (root / celeba.NAME / name).write_bytes(invented(number))
    lines = "".join(f"{name} {person}\n" for name, person in (PEOPLE | {"000009.jpg": "7"}).items())
    (root / celeba.LABELS).write_text("img label\r\n" + lines)
    (tmp_path / "celeba.csv").write_bytes(make_manifest((n, "", (root / celeba.NAME / n).read_bytes()) for n in names))
    text = "".join(f"{name} {PEOPLE[name]}\n" for name in names)
    monkeypatch.setattr(celeba, "LABELS_SHA256", hashlib.sha256(text.encode()).hexdigest())
    monkeypatch.setenv("LRFR_CELEBA_ROOT", str(root))
    return root


def packed(small):
    """The same as an archive, as it is published."""
    with zipfile.ZipFile(small / f"{celeba.NAME}.zip", "w") as archive:
        for path in (small / celeba.NAME).iterdir():
            archive.write(path, f"{celeba.NAME}/{path.name}")
            path.unlink()
    (small / celeba.NAME).rmdir()
    return small / f"{celeba.NAME}.zip"


def places(small):
    """Every way to say where it is."""
    yield small
    yield small / celeba.NAME
    yield packed(small)
    yield small


def test_the_root_may_be_archive_or_folder(small):
    manifest = small.parent / "celeba.csv"
    expected = {name: (small / celeba.NAME / name).read_bytes() for name in PEOPLE}
    for root in places(small):
        celeba.check(root, manifest)
        kept = celeba.photographs(root, manifest)
        assert {name: kept.read(name) for name in PEOPLE} == expected
    assert kept.members.keys() == PEOPLE.keys()  # what is not listed is not in memory
    (small / celeba.LABELS).rename(small / "elsewhere.txt")
    assert "identity_CelebA.txt: no such file; put CelebA's identities beside" in refusal(celeba.check, small, manifest)
    assert "neither img_align_celeba nor img_align_celeba.zip is there" in refusal(celeba.check, small.parent, manifest)


def test_persons_come_from_the_labels(small):
    table = read_manifest(small.parent / "celeba.csv", persons=celeba.persons)
    assert table["name"].tolist() == sorted(PEOPLE) and table["person"].tolist() == ["7", "12", "12"]
    assert len(read_manifest(small.parent / "celeba.csv", people=1, persons=celeba.persons)) == 1
    assert "not a manifest" in refusal(read_manifest, small.parent / "celeba.csv")


@pytest.mark.parametrize("change", [lambda t: t.replace(" 7\n", " 8\n", 1), lambda t: t.replace("000002", "000004")])
def test_other_labels_are_refused(small, change):
    path = small / celeba.LABELS
    path.write_text(change(path.read_text()))
    manifest = small.parent / "celeba.csv"
    assert "not CelebA's identities of the photographs" in refusal(celeba.check, small, manifest)


def test_a_changed_or_missing_photograph_is_named(small):
    manifest, path = small.parent / "celeba.csv", small / celeba.NAME / "000002.jpg"
    path.write_bytes(path.read_bytes() + b"x")
    assert refusal(celeba.check, small, manifest).startswith("000002.jpg: its bytes differ from the manifest")
    path.unlink()
    assert refusal(celeba.check, small, manifest).startswith("000002.jpg: missing from CelebA at")


def test_the_manifest_holds_names_and_hashes_alone():
    table = pd.read_csv(COMMITTED / "celeba.csv")
    assert len(table) == 30_476 and table["person"].isna().all() and table["name"].is_monotonic_increasing
    assert table["name"].str.fullmatch(r"\d{6}\.jpg").all() and table["sha256"].str.fullmatch("[0-9a-f]{64}").all()
    persons = read_manifest(COMMITTED / "celeba.csv", persons=lambda table: ["one"] * len(table))["person"]
    assert set(persons) == {"one"}
