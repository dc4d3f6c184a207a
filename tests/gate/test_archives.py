import contextlib
import gzip
import io
import random
import stat
import struct
import tarfile
import zipfile

import pytest

from lrfr.errors import UserError
from lrfr.gate.archives import TAR, ZIP, read_members, unpack
from tests.gate import refusals


def tar(path, members, form=tarfile.PAX_FORMAT):
    """An archive of (name, bytes) or ready headers."""
    with tarfile.open(path, "w:gz", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                name, data = member
                header = tarfile.TarInfo(name)
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
    return path


def header(name, kind, link=""):
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def refusal(path, **limits):
    text = refusals.refusal(read_members, path, TAR._replace(**limits))
    assert text.startswith(f"{path}: ")
    return text


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_files_in_their_order(tmp_path, form):
    folder, long = header("b", tarfile.DIRTYPE), "b/" + "n" * 90 + "/" + "m" * 60
    path = tar(tmp_path / "a.tar", [folder, ("b/2", b"two"), ("b/1", b""), folder, (long, bytes(2000))], form)
    assert list(read_members(path).items()) == [("b/2", b"two"), ("b/1", b""), (long, bytes(2000))]


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "C:/x", "c:x", "../x", "a/../x", "./x", "a//x", "..\\x", "a\nb", "a/\udcff"]
)
def test_names_that_lead_elsewhere(tmp_path, name):
    text = refusal(tar(tmp_path / "a.tgz", [("good", b"x"), (name, b"x")], form=tarfile.GNU_FORMAT))
    assert f"member {name!r} has a name that leads elsewhere" in text


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(tmp_path, kind):
    assert "'x' is a link, a device, " in refusal(tar(tmp_path / "a.tgz", [header("x", kind, "good")]))


def test_sparse_files(tmp_path):
    sparse = tarfile.TarInfo("x")
    sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 50)}
    sparse.size = 512
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        archive.addfile(sparse, io.BytesIO(b"1\n0\n512\n".ljust(512, b"\0")))
    assert "a sparse or" in refusal(tmp_path / "a.tgz")


@pytest.mark.parametrize("second", ["a/x", "A/X", "a/X"])
def test_names_that_collide(tmp_path, second):
    assert "comes twice" in refusal(tar(tmp_path / "a.tgz", [("a/x", b"1"), (second, b"2")]))


def test_a_file_in_the_place_of_a_folder(tmp_path):
    assert "comes twice" in refusal(tar(tmp_path / "a.tgz", [header("a", tarfile.DIRTYPE), ("a", b"1")]))


def test_too_many_members(tmp_path):
    path = tar(tmp_path / "a.tgz", [(f"{i}", b"") for i in range(4)])
    assert len(read_members(path, TAR._replace(members=4))) == 4
    assert "more than 3 members" in refusal(path, members=3)


def test_a_member_too_large(tmp_path):
    path = tar(tmp_path / "a.tgz", [("x", bytes(1000))])
    assert len(read_members(path, TAR._replace(member_bytes=1000))["x"]) == 1000
    assert "'x' has more than 999 bytes" in refusal(path, member_bytes=999)


def test_a_bomb_is_read_up_to_the_limit(tmp_path):
    path = tar(tmp_path / "a.tgz", [(f"{i}", bytes(1 << 20)) for i in range(64)])
    assert path.stat().st_size < 100_000
    assert "the whole has more than 1048576 bytes" in refusal(path, total_bytes=1 << 20)
    endless = tmp_path / "endless.tgz"  # nothing but zeros after the end of the archive
    endless.write_bytes(gzip.compress(bytes(1 << 24)))
    assert "the whole has more than 1048576 bytes" in refusal(endless, total_bytes=1 << 20)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_that_lies_about_its_size(tmp_path, kind):
    """A name or an extended header "of 8 GB" is read by the library itself, before we see the member."""
    lying = header("x", kind)
    lying.size = (1 << 33) - 1
    (tmp_path / "a.tgz").write_bytes(gzip.compress(lying.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 22)))
    assert "more than" in refusal(tmp_path / "a.tgz", total_bytes=1 << 20)
    refusal(tmp_path / "a.tgz")


def test_cut_anywhere(tmp_path):
    data = tar(tmp_path / "a.tgz", [("a", b"1" * 600), ("b", b"2" * 600)]).read_bytes()
    for length in range(0, len(data), 9):
        (tmp_path / "cut").write_bytes(data[:length])
        refusal(tmp_path / "cut")


def test_damage_is_refused_or_harmless(tmp_path):
    """Of a gzipped archive every changed byte that matters is found by its checksum."""
    members = {"a/1": b"one" * 300, "a/2": b"two" * 300}
    data = tar(tmp_path / "a.tgz", members.items()).read_bytes()
    rng = random.Random(0)
    for _ in range(150):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / "changed").write_bytes(changed)
        with contextlib.suppress(UserError):
            assert read_members(tmp_path / "changed") == members  # a bit of the gzip header: time, name, system


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04" + bytes(600), b"\x1f\x8b", b"<html>" * 200, gzip.compress(b"no tar", mtime=0)]
)
def test_not_an_archive(tmp_path, data):
    (tmp_path / "x.tgz").write_bytes(data)
    assert "cannot be read as a tar.gz archive" in refusal(tmp_path / "x.tgz")


def test_no_file(tmp_path):
    assert "No such file" in refusal(tmp_path / "absent.tgz")
    assert "Is a directory" in refusal(tmp_path)


def test_limits_leave_room_for_lfw():
    assert TAR.members > 13_233 + 5_750 and TAR.member_bytes > 15_884 and TAR.total_bytes > 140_000_000


def packed(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


@pytest.fixture
def refused(tmp_path):
    """Unpacking must be refused in one sentence, and leave nothing behind."""

    def check(path, **limits):
        before = sorted(tmp_path.rglob("*"))
        text = refusals.refusal(unpack, path, tmp_path / "out", ZIP._replace(**limits))
        assert text.startswith(f"{path}: ") and sorted(tmp_path.rglob("*")) == before
        return text

    return check


def test_files_and_folders(tmp_path):
    path = packed(tmp_path / "a.zip", [("b/", b""), ("b/c.jpg", b"one" * 1000), ("d/e/f.jpg", b"")])
    unpack(path, tmp_path / "out")
    found = {
        p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    assert found == {"b/c.jpg": b"one" * 1000, "d/e/f.jpg": b""}
    assert "already there" in refusals.refusal(unpack, path, tmp_path / "out")


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "C:/x", "a\\x", "./x", "a//x", "a\nb"])
def test_names_that_lead_elsewhere_in_a_zip(tmp_path, refused, name):
    assert repr(name) in refused(packed(tmp_path / "a.zip", [("good", b"1"), (name, b"2")]))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip(tmp_path, refused, kind):
    member = zipfile.ZipInfo("x")
    member.external_attr = (kind | 0o777) << 16
    assert "'x' is a link, a device, " in refused(packed(tmp_path / "a.zip", [(member, b"/etc/passwd")]))


@pytest.mark.parametrize("second", ["a/x", "A/X"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_collide_in_a_zip(tmp_path, refused, second):
    assert "comes twice" in refused(packed(tmp_path / "a.zip", [("a/x", b"1"), (second, b"2")]))


def test_a_file_in_the_place_of_a_folder_in_a_zip(tmp_path, refused):
    refused(packed(tmp_path / "a.zip", [("a", b"1"), ("a/x", b"2")]))


def test_limits(tmp_path, refused):
    path = packed(tmp_path / "a.zip", [(f"{i}", bytes(1 << 20)) for i in range(8)])
    assert path.stat().st_size < 20_000
    assert "more than 7 members" in refused(path, members=7)
    assert "member '0' has more than 1048575 bytes" in refused(path, member_bytes=(1 << 20) - 1)
    assert "member '4' has more than" in refused(path, total_bytes=(1 << 22) + 1)
    unpack(path, tmp_path / "out", ZIP._replace(members=8, member_bytes=1 << 20, total_bytes=1 << 23))


def test_encrypted(tmp_path, refused):
    data = bytearray(packed(tmp_path / "a.zip", [("x", b"1")]).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert "an encrypted file" in refused(tmp_path / "a.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression(tmp_path, refused, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("x", bytes(1000))
    assert "an unusual way" in refused(tmp_path / "a.zip")


def test_a_header_that_lies_about_its_size_in_a_zip(tmp_path, refused):
    data = bytearray(packed(tmp_path / "a.zip", [("x", bytes(100_000))]).read_bytes())
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<I", 10)  # 10 bytes, it says
    (tmp_path / "a.zip").write_bytes(data)
    refused(tmp_path / "a.zip")


def test_other_files(tmp_path, refused):
    for data in (b"", b"hello", b"PK\x03\x04" + bytes(100), b"PK\x05\x06" + b"\xff" * 18):
        (tmp_path / "x.zip").write_bytes(data)
        assert "cannot be read as a zip archive" in refused(tmp_path / "x.zip")
    assert "No such file" in refused(tmp_path / "absent.zip")


def test_damage_is_found_or_harmless(tmp_path):
    data = packed(tmp_path / "a.zip", [("a/1", b"one" * 50), ("a/2", b"two" * 50)]).read_bytes()
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
