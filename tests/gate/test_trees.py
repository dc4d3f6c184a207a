import hashlib
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfr.errors import UserError
from lrfr.gate.trees import Faces, check_listing, check_name, identical, make_listing, prefix_number, read_folders
from tests.gate.refusals import refusal


@pytest.fixture
def tree(tmp_path):
    for name in ("12/12_b.jpg", "12/12_a.JPG", "3/3_x.png", "7/7_1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "list.txt").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "3" / "Thumbs.db").touch()
    return tmp_path


def test_people_are_sorted_folders_and_ids_count_them(tree):
    folders = read_folders(tree, images=5, people=3, numbered=True)
    assert folders.people == ("12", "3", "7")
    assert folders.faces.names == ("12/12_a.JPG", "12/12_b.jpg", "3/3_x.png", "7/7_1.jpg")
    assert folders.faces.ids.tolist() == [0, 0, 1, 2] and folders.faces.ids.dtype == np.int64
    assert [(count.observed, count.published) for count in folders.counts] == [(4, 5), (3, 3)]


def test_what_does_not_belong_is_named(tree):
    def check(name, word, make):
        path = tree / name
        make(path)
        text = refusal(read_folders, tree, numbered=True)
        assert name.split("/")[-1].replace("\\", "\\\\") in text and word in text
        path.rmdir() if path.is_dir() else path.unlink()

    check("loose.jpg", "outside of a person's folder", lambda path: path.touch())
    check("empty", "no image there", lambda path: path.mkdir())
    check("3/inner", "not an image", lambda path: path.mkdir())
    check("3/notes.txt", "not an image", lambda path: path.touch())
    check("3/7_9.jpg", "belongs to another person than 3", lambda path: path.touch())
    check("3/face.jpg", "person's number", lambda path: path.touch())
    check("3/3_pipe.jpg", "neither a file nor a folder", os.mkfifo)
    check("3/3_broken.jpg", "neither a file nor a folder", lambda path: path.symlink_to("absent"))
    check("3/3_\\x.jpg", "not the name of a file", lambda path: path.touch())
    assert read_folders(tree, numbered=True)


def test_names_that_cannot_be_written_down(tree):
    for name in (b"3_\xff\xfe.jpg", b"3_line\nbreak.jpg"):
        path = os.fsencode(tree / "3") + b"/" + name
        open(path, "wb").close()
        assert "no UTF-8, or control characters" in refusal(read_folders, tree)
        os.unlink(path)


def test_where_there_is_nothing(tree):
    for root in (tree / "absent", tree / "list.txt"):
        assert root.name in refusal(read_folders, root)
    (tree / "nobody").mkdir()
    assert "no folder there" in refusal(read_folders, tree / "nobody")


def test_one_file_in_two_roles(tmp_path):
    def role(folder, **files):
        (tmp_path / folder).mkdir()
        for name, data in files.items():
            (tmp_path / folder / name).write_bytes(data)
        return Faces(tmp_path / folder, tuple(files), np.arange(len(files)))

    gallery = role("gallery", a=b"1", b=b"2", c=b"2", d=b"4")
    assert identical(gallery, role("other", a=b"9", d=b"8"), "") == 0
    assert identical(gallery, role("copied", x=b"2", y=b"1"), "") == 3  # a copy under another name is counted
    text = refusal(identical, gallery, role("probe", z=b"2", d=b"4"), "")
    assert "gallery/d" in text and "gallery and probe" in text
    (tmp_path / "gallery" / "a").unlink()
    assert "gallery/a" in refusal(identical, gallery, gallery, "")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12))
def test_any_name_is_a_number_or_a_sentence(name):
    for check in (check_name, prefix_number):
        try:
            result = check(name, "set")
        except UserError as error:
            assert str(error).startswith("set: ") and str(error).isprintable()
        else:
            assert result is None or name.startswith((str(result), "0"))


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
    assert "that list is missing" in refusal(check_listing, folder, tmp_path / "list.csv", "lrfr study")
