"""The list of a benchmark set's files and hashes."""

from __future__ import annotations

import hashlib

import pytest

from lrfr.gate.listing import check_listing, make_listing
from lrfr.sources.places import Place
from tests.data.refusals import refusal


@pytest.fixture
def folder(tmp_path):
    for name in ("set/b/2.jpg", "set/b/1.jpg", "set/a.mat"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path / "set"


def test_every_file_is_listed_by_name(folder, tmp_path):
    (folder / "Thumbs.db").write_bytes(b"x")  # what systems leave behind is no part of a set
    rows = make_listing(folder).decode().splitlines()
    expected = [
        f"{name},{hashlib.sha256(f'set/{name}'.encode()).hexdigest()}" for name in ("a.mat", "b/1.jpg", "b/2.jpg")
    ]
    assert rows == ["name,sha256", *expected]
    assert make_listing(folder / "a.mat").decode().splitlines() == ["name,sha256", expected[0]]
    folder.rename(tmp_path / "elsewhere")
    assert make_listing(tmp_path / "elsewhere").decode().splitlines() == rows


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "b" / "1.jpg").write_bytes(b"y"),
        lambda folder: (folder / "b" / "1.jpg").unlink(),
        lambda folder: (folder / "b" / "3.jpg").write_bytes(b"y"),
        lambda folder: (folder / "b" / "1.jpg").rename(folder / "1.jpg"),
    ],
    ids=["changed", "missing", "additional", "moved"],
)
def test_a_set_that_has_changed_is_refused(folder, tmp_path, change):
    (tmp_path / "list.csv").write_bytes(make_listing(folder))
    check_listing(folder, tmp_path / "list.csv", "lrfr study")
    change(folder)
    message = refusal(check_listing, folder, tmp_path / "list.csv", "lrfr study")
    assert "its files are not those in" in message and "run `lrfr study` again" in message


def test_a_list_that_is_missing(folder, tmp_path):
    assert "list.csv: cannot be read" in refusal(check_listing, folder, tmp_path / "list.csv", "lrfr study")


def test_a_place_is_in_the_variable_or_in_the_file(tmp_path, monkeypatch):
    place = Place("set-some", "some", "lrfr study STUDY --some DIR", "--some")
    monkeypatch.setenv("LRFR_CACHE", str(tmp_path))
    monkeypatch.delenv("LRFR_SET_SOME_ROOT", raising=False)
    assert "some: it is not known where it is; run `lrfr study STUDY --some DIR` or set LRFR_SET_SOME_ROOT" in refusal(
        place.find
    )
    ((file, text),) = place.choose(tmp_path / "a")[1].items()
    assert file == tmp_path / "set-some-root"
    file.write_bytes(text)
    assert place.find() == tmp_path / "a" and place.choose(None) == (tmp_path / "a", {})
    monkeypatch.setenv("LRFR_SET_SOME_ROOT", str(tmp_path / "b"))
    assert place.find() == tmp_path / "b"
    assert "would win; unset it or leave out --some" in refusal(place.choose, tmp_path / "a")
