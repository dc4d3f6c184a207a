from lrfr.data.photographs import COMMITTED, make_manifest, read_manifest
from lrfr.sources import lfw
from tests.gate.refusals import refusal


def places(small):
    """Every way to say where LFW is."""
    yield small.root / lfw.ARCHIVE
    yield small.root
    folder = small.unpack()
    yield small.root
    yield folder
    (small.root / lfw.PAIRS).rename(folder / lfw.PAIRS)
    yield folder
    folder.rename(small.root / "renamed")
    yield small.root / "renamed"


def test_the_root_may_be_archive_or_folder(small_lfw):
    for root in places(small_lfw):
        lfw.check(root, small_lfw.manifest)
        photographs = lfw.Photographs(root)
        assert {name: photographs.read(name) for name in photographs.names} == small_lfw.photographs


def test_the_manifest_is_sorted_and_has_no_pixels(small_lfw):
    table = read_manifest(small_lfw.manifest)
    assert table["name"].tolist() == sorted(small_lfw.photographs)
    assert table["person"].tolist() == [name.split("/")[0] for name in table["name"]]
    folder = small_lfw.unpack()
    assert [f"{folder}/{name}" for name in table["name"]] == sorted(str(path) for path in folder.glob("*/*.jpg"))
    assert make_manifest(lfw.Photographs(folder).faces()) == small_lfw.manifest.read_bytes()


def test_where_there_is_nothing(small_lfw, tmp_path):
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "empty", tmp_path / "absent"):
        assert f"{root}: neither" in refusal(lfw.check, root, small_lfw.manifest)
    (small_lfw.root / lfw.PAIRS).unlink()
    assert "pairs.txt: no such file" in refusal(lfw.check, small_lfw.root, small_lfw.manifest)


def test_what_differs_is_named_and_counted(small_lfw):
    faces = small_lfw.photographs
    first, *_, last = faces
    faces["Z_New/Z_New_0001.jpg"] = faces.pop(first)
    faces["Z_New/Z_New_0002.jpg"] = b"x"
    faces[last] = faces[last] + b"x"
    small_lfw.write()
    expected = f"4 files are missing, additional or changed (first '{first}')"
    assert expected in refusal(lfw.check, small_lfw.root, small_lfw.manifest)
    small_lfw.unpack()
    assert expected in refusal(lfw.check, small_lfw.root, small_lfw.manifest)


def test_other_pairs_are_refused(small_lfw, monkeypatch):
    path = small_lfw.root / lfw.PAIRS
    path.write_text(small_lfw.pairs.replace("E_Person\t2\t1", "E_Person\t1\t2"))
    assert "pairs.txt: not the published View 2" in refusal(lfw.check, small_lfw.root, small_lfw.manifest)
    monkeypatch.setenv("LRFR_LFW_ROOT", str(small_lfw.root))
    assert "not the published View 2" in refusal(lfw.lists)
    path.write_text(small_lfw.pairs)
    assert len(lfw.lists()) == 4


def test_a_missing_photograph_is_named(small_lfw):
    for root in (small_lfw.root, small_lfw.unpack()):
        assert refusal(lfw.Photographs(root).read, "X/X_0001.jpg").startswith("X/X_0001.jpg: missing from LFW at")


def test_the_root_is_known_from_the_environment_or_a_file(small_lfw, monkeypatch, tmp_path):
    assert "run `lrfr study STUDY --lfw PATH` or set LRFR_LFW_ROOT" in refusal(lfw.PLACE.find)
    assert lfw.PLACE.file == tmp_path / "cache" / "lfw-root"
    lfw.PLACE.file.parent.mkdir()
    lfw.PLACE.file.write_text("/stored\n")
    assert str(lfw.PLACE.find()) == "/stored"
    monkeypatch.setenv("LRFR_LFW_ROOT", "/set")
    assert str(lfw.PLACE.find()) == "/set"
    monkeypatch.delenv("LRFR_CACHE")
    assert lfw.PLACE.file.as_posix() == ".cache/lfw-root"


def test_pairs(small_lfw):
    table = lfw.read_pairs(small_lfw.root / lfw.PAIRS)
    assert table.values.tolist() == [
        ["official", 0, "B_Person/B_Person_0001.jpg", "B_Person/B_Person_0002.jpg", 1],
        ["official", 0, "A_Person/A_Person_0001.jpg", "C_Person/C_Person_0003.jpg", 0],
        ["official", 1, "E_Person/E_Person_0002.jpg", "E_Person/E_Person_0001.jpg", 1],
        ["official", 1, "D_Person/D_Person_0001.jpg", "F_Person/F_Person_0001.jpg", 0],
    ]


def test_every_other_list_of_pairs_is_refused(small_lfw, tmp_path):
    path = tmp_path / "other.txt"
    for data in (
        b"",
        b"10\t300\n\xff\xfe",
        small_lfw.pairs.replace("\n", "\r\n").encode(),
        small_lfw.pairs[:-1].encode(),
    ):
        path.write_bytes(data)
        assert refusal(lfw.read_pairs, path).startswith(f"{path}: not the published View 2 (its sha256 differs)")
    assert "absent: cannot be read" in refusal(lfw.read_pairs, tmp_path / "absent")


def test_the_real_one(real_lfw, monkeypatch):
    lfw.check(real_lfw)
    assert make_manifest(lfw.Photographs(real_lfw).faces()) == (COMMITTED / "lfw.csv").read_bytes()
    monkeypatch.setenv("LRFR_LFW_ROOT", str(real_lfw))
    pairs, names = lfw.lists(), set(read_manifest(COMMITTED / "lfw.csv")["name"])
    assert (
        pairs.groupby(["fold", "same"]).size().tolist() == [300] * 20 and {*pairs["name_a"], *pairs["name_b"]} <= names
    )
    first = ["official", 0, "Abel_Pacheco/Abel_Pacheco_0001.jpg", "Abel_Pacheco/Abel_Pacheco_0004.jpg", 1]
    assert pairs.iloc[0].tolist() == first
