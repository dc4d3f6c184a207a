import io
import random
import stat
import struct
import zipfile

import pytest

from lrfr.errors import UserError
from lrfr.gate.zips import unpack
from tests.data.refusals import refusal


def make(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


@pytest.fixture
def refused(tmp_path):
    """Unpacking must be refused in one sentence, and leave nothing behind."""

    def check(path, **limits):
        before = sorted(tmp_path.rglob("*"))
        text = refusal(unpack, path, tmp_path / "out", **limits)
        assert text.startswith(f"{path}: ") and sorted(tmp_path.rglob("*")) == before
        return text

    return check


def test_files_and_folders(tmp_path):
    path = make(tmp_path / "a.zip", [("b/", b""), ("b/c.jpg", b"one" * 1000), ("d/e/f.jpg", b"")])
    unpack(path, tmp_path / "out")
    found = {
        p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    assert found == {"b/c.jpg": b"one" * 1000, "d/e/f.jpg": b""}
    assert "already there" in refusal(unpack, path, tmp_path / "out")


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "C:/x", "a\\x", "./x", "a//x", "a\nb"])
def test_names_that_lead_elsewhere(tmp_path, refused, name):
    assert repr(name) in refused(make(tmp_path / "a.zip", [("good", b"1"), (name, b"2")]))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices(tmp_path, refused, kind):
    member = zipfile.ZipInfo("x")
    member.external_attr = (kind | 0o777) << 16
    assert "'x' is a link or a device" in refused(make(tmp_path / "a.zip", [(member, b"/etc/passwd")]))


@pytest.mark.parametrize("second", ["a/x", "A/X"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_collide(tmp_path, refused, second):
    assert "comes twice" in refused(make(tmp_path / "a.zip", [("a/x", b"1"), (second, b"2")]))


def test_a_file_in_the_place_of_a_folder(tmp_path, refused):
    refused(make(tmp_path / "a.zip", [("a", b"1"), ("a/x", b"2")]))


def test_limits(tmp_path, refused):
    path = make(tmp_path / "a.zip", [(f"{i}", bytes(1 << 20)) for i in range(8)])
    assert path.stat().st_size < 20_000
    assert "more than 7 members" in refused(path, members=7)
    assert "at member '0'" in refused(path, member_bytes=(1 << 20) - 1)
    assert "at member '4'" in refused(path, total_bytes=(1 << 22) + 1)
    unpack(path, tmp_path / "out", members=8, member_bytes=1 << 20, total_bytes=1 << 23)


def test_encrypted(tmp_path, refused):
    data = bytearray(make(tmp_path / "a.zip", [("x", b"1")]).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert "is encrypted" in refused(tmp_path / "a.zip")


def test_a_header_that_lies_about_its_size(tmp_path, refused):
    data = bytearray(make(tmp_path / "a.zip", [("x", bytes(100_000))]).read_bytes())
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<I", 10)  # 10 bytes, it says
    (tmp_path / "a.zip").write_bytes(data)
    refused(tmp_path / "a.zip")


def test_other_files(tmp_path, refused):
    for data in (b"", b"hello", b"PK\x03\x04" + bytes(100), b"PK\x05\x06" + b"\xff" * 18):
        (tmp_path / "x.zip").write_bytes(data)
        assert "not a complete zip" in refused(tmp_path / "x.zip")
    assert "no such file" in refused(tmp_path / "absent.zip")


def test_damage_is_found_or_harmless(tmp_path):
    data = make(tmp_path / "a.zip", [("a/1", b"one" * 50), ("a/2", b"two" * 50)]).read_bytes()
    rng = random.Random(0)
    for i in range(60):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / "d.zip").write_bytes(damaged if i % 2 else damaged[: rng.randrange(len(data))])
        try:
            unpack(tmp_path / "d.zip", tmp_path / f"out{i}")
        except UserError:
            assert not (tmp_path / f"out{i}").exists()
        else:
            found = {path.read_bytes() for path in (tmp_path / f"out{i}").rglob("*") if path.is_file()}
            assert found <= {b"one" * 50, b"two" * 50}  # a changed name, date or comment


def test_no_name_is_used_that_the_system_would_change(tmp_path, refused):
    """A zero byte ends a name for the library, not for us."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("good_name", b"1")
    (tmp_path / "a.zip").write_bytes(file.getvalue().replace(b"good_name", b"bad\0_name"))
    refused(tmp_path / "a.zip")
