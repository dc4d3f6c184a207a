import hashlib
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from lrfr.data.photographs import COMMITTED, make_manifest, read_manifest
from lrfr.sources import cfp
from tests.gate.refusals import refusal
from tests.sources.small_lfw import invented

REAL = Path(os.environ.get("LRFR_CFP_ROOT", Path(__file__).resolve().parents[3] / "shared" / "datasets" / "cfp"))
NAMES = [f"{p:03d}/{kind}/{i:02d}.jpg" for p in (1, 2) for kind in ("frontal", "profile") for i in (1, 2)]


def everything(kept):
    """(name, person, bytes) of all photographs: what the manifest was made of."""
    files = (path.relative_to(kept.folder).as_posix() for path in kept.folder.glob("*/*/*.jpg"))
    return ((name, name[:3], kept.read(name)) for name in sorted(files if kept.members is None else kept.members))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two people with two photographs of each kind; a pair of each kind in every fold. As it is published."""
    root = tmp_path / "cfp"
    for number, name in enumerate(NAMES):
        path = root / "Data" / "Images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(invented(number))
    for side, kind in (("F", "frontal"), ("P", "profile")):
        listed = [f"{k} ../Data/Images/{name}\n" for k, name in enumerate((n for n in NAMES if kind in n), start=1)]
        (root / "Protocol").mkdir(exist_ok=True)
        (root / "Protocol" / f"Pair_list_{side}.txt").write_text("".join(listed))
    for sides in ("FF", "FP"):
        for fold in range(1, 11):
            folder = root / "Protocol" / "Split" / sides / f"{fold:02d}"
            folder.mkdir(parents=True)
            (folder / "same.txt").write_text("3,4\n")
            (folder / "diff.txt").write_text("1,4\n")
    (tmp_path / "cfp.csv").write_bytes(make_manifest(everything(cfp.photographs(root))))
    rows = [
        f"{title},{fold},001/frontal/01.jpg,002/{kind}/02.jpg,0\n{title},{fold},002/frontal/01.jpg,002/{kind}/02.jpg,1\n"
        for title, kind in (("cfp_ff", "frontal"), ("cfp_fp", "profile"))
        for fold in range(10)
    ]
    text = "list,fold,name_a,name_b,same\n" + "".join(rows)
    monkeypatch.setattr(cfp, "LISTS_SHA256", hashlib.sha256(text.encode()).hexdigest())
    return root


def packed(small):
    """As two archives in one folder."""
    for source, target, inside in ((small / "Data" / "Images", cfp.ARCHIVE, ""), (small, cfp.PROTOCOL, "Protocol")):
        with zipfile.ZipFile(small.parent / target, "w") as archive:
            for path in sorted((source / inside).rglob("*.*")):
                archive.write(path, path.relative_to(source).as_posix())
    shutil.rmtree(small)
    return small.parent


def places(small):
    """Every way to say where it is."""
    yield small
    yield small / "Data" / "Images"
    yield packed(small)
    yield small.parent / cfp.ARCHIVE


def test_the_root_may_be_archive_or_folder(small):
    manifest = small.parent / "cfp.csv"
    expected = {name: (small / "Data" / "Images" / name).read_bytes() for name in NAMES}
    for root in places(small):
        cfp.check(root, manifest)
        kept = cfp.photographs(root)
        assert {name: kept.read(name) for name in NAMES} == expected
        assert make_manifest(everything(kept)) == manifest.read_bytes()
    assert read_manifest(manifest)["person"].tolist() == ["001"] * 4 + ["002"] * 4


def test_what_is_wrong_is_named(small):
    manifest, path = small.parent / "cfp.csv", small / "Protocol" / "Split" / "FP" / "03" / "same.txt"
    path.write_text("3,3\n")
    assert "Protocol: not the published lists (their sha256 differs)" in refusal(cfp.check, small, manifest)
    path.unlink()
    assert "same.txt: cannot be read" in refusal(cfp.check, small, manifest)
    photograph = small / "Data" / "Images" / NAMES[5]
    photograph.write_bytes(b"x")
    assert refusal(cfp.check, small, manifest).startswith(f"{NAMES[5]}: its bytes differ from the manifest")
    photograph.unlink()
    assert refusal(cfp.check, small, manifest).startswith(f"{NAMES[5]}: missing from CFP at")
    shutil.rmtree(small / "Protocol")
    assert "cfp-protocol.zip: no such file; put CFP's protocol beside" in refusal(cfp.check, small, manifest)
    assert "neither cfp-original.zip nor 001/frontal/01.jpg is there" in refusal(cfp.check, small.parent, manifest)


def test_the_real_one(monkeypatch):
    if not (REAL / cfp.ARCHIVE).is_file():
        pytest.skip("CFP is not on this machine")
    cfp.check(REAL)
    assert make_manifest(everything(cfp.photographs(REAL))) == (COMMITTED / "cfp.csv").read_bytes()
    monkeypatch.setenv("LRFR_CFP_ROOT", str(REAL))
    lists, table = cfp.lists(), read_manifest(COMMITTED / "cfp.csv")
    assert lists.groupby(["list", "fold", "same"]).size().tolist() == [350] * 40 and table["person"].nunique() == 500
    assert {*lists["name_a"], *lists["name_b"]} <= set(table["name"]) and len(table) == 7000
    assert (lists["name_a"].str[:3].eq(lists["name_b"].str[:3]) == lists["same"]).all()
