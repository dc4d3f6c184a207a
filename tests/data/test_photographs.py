import hashlib

import pandas as pd
import pytest

from lrfr.data.photographs import COMMITTED, make_manifest, read_bytes, read_manifest
from lrfr.errors import UserError


def test_written_and_read(tmp_path):
    photographs = [("b/1", "b", b"x"), ("a/1", "a", b"y"), ("a/2", "NA", b"")]  # a person may be called anything
    (tmp_path / "m.csv").write_bytes(make_manifest(photographs))
    table = read_manifest(tmp_path / "m.csv")
    assert table[["image", "name", "person"]].values.tolist() == [[0, "b/1", "b"], [1, "a/1", "a"], [2, "a/2", "NA"]]
    assert table["sha256"][2] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of nothing


def test_first_people(manifest):
    assert read_manifest(manifest, people=3)["person"].unique().tolist() == ["s1", "s2", "s3"]
    with pytest.raises(UserError, match="has 40 people, 41 are asked for"):
        read_manifest(manifest, people=41)


def test_names_and_hashes_of_lfw():
    table = read_manifest(COMMITTED / "lfw.csv")
    assert len(table) == 13_233 and table["person"].nunique() == 5_749
    assert table["name"].tolist() == sorted(table["name"]) and table["name"][0] == "AJ_Cook/AJ_Cook_0001.jpg"
    assert (table["name"].str.split("/").str[0] == table["person"]).all() and table["sha256"].str.fullmatch(
        "[0-9a-f]{64}"
    ).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.drop(columns="sha256"),
        lambda t: t.iloc[1:],
        lambda t: t.assign(person=[None, *t["person"][1:]]),
        lambda t: t.iloc[:, ::-1],
    ],
)
def test_malformed_manifest(manifest, tmp_path, change):
    change(pd.read_csv(manifest)).to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(UserError, match=r"m\.csv: not a manifest"):
        read_manifest(tmp_path / "m.csv")


def test_missing_or_empty_manifest(tmp_path):
    (tmp_path / "empty.csv").touch()
    for name in ("empty.csv", "absent.csv"):
        with pytest.raises(UserError, match=f"{name}: cannot be read"):
            read_manifest(tmp_path / name)


class Held(dict):
    read = dict.__getitem__


def test_bytes_are_checked():
    photographs, sha256 = Held({"a.jpg": b"x", "b.jpg": b"y"}), hashlib.sha256(b"x").hexdigest()
    assert read_bytes(photographs, "a.jpg", sha256) == b"x"
    with pytest.raises(UserError, match=r"^b\.jpg: its bytes differ from the manifest \(sha256\); [^.]*\.$"):
        read_bytes(photographs, "b.jpg", sha256)
