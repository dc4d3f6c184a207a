import numpy as np
import pytest

from lrfr.files import atomic_file, atomic_folder


def test_file_appears_only_at_the_end(tmp_path):
    path = tmp_path / "new" / "a.npy"
    with atomic_file(path) as temporary:
        np.save(temporary, np.arange(3))
        assert temporary.parent == path.parent and not path.exists()
    assert np.load(path).tolist() == [0, 1, 2]
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_folder_replaces_the_old_one_entirely(tmp_path):
    path = tmp_path / "deep" / "folder"
    for name in ("first", "second"):
        with atomic_folder(path) as temporary:
            (temporary / name).write_text(name)
    assert [p.name for p in path.iterdir()] == ["second"]
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_keeps_the_old_folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as temporary:
        (temporary / "new").write_text("half")
        raise KeyboardInterrupt
    assert [p.name for p in path.iterdir()] == ["old"] and list(tmp_path.iterdir()) == [path]


def test_a_failed_rename_brings_the_old_folder_back(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_folder(path) as temporary:
        temporary.rmdir()  # now there is nothing to put in its place
    assert [p.name for p in path.iterdir()] == ["old"] and list(tmp_path.iterdir()) == [path]
