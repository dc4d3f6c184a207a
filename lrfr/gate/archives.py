"""Archives that nobody has checked: a gzipped tar is read into memory, a zip is unpacked into a new folder.

An archive can name files outside of its folder, link to them, claim any size, expand a thousandfold and end anywhere.
What is not a plain file or folder under a plain name is refused, not repaired: an archive with such members is not the
one that we know, and two repaired names may become one file.
"""

import argparse
import gzip
import io
import stat
import tarfile
import unicodedata
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterable
from pathlib import Path

from lrfr.errors import UserError
from lrfr.files import atomic_folder
from lrfr.gate.images import Damaged, refusing
from lrfr.gate.trees import is_plain
from lrfr.progress import bar

ENCRYPTED = 1  # bit of a zip member's flags
# How many members an archive may have, and how many bytes, decompressed, one member and the whole.
Limits = namedtuple("Limits", "members member_bytes total_bytes")
# Our choices, from the largest that we read: LFW has 18,983 members, at most 15,884 bytes in one, 137 MB as a tar;
# QMUL-SurvFace has 473,558 images of about 1 kB and lists of a few MB, as a zip.
TAR = Limits(50_000, 1 << 20, 1 << 28)
ZIP = Limits(1_000_000, 1 << 26, 1 << 34)


def check_members(members: Iterable[tuple[str, int, bool, bool]], limits: Limits) -> None:
    """`Damaged` for one member too many, and for one that is not plain, is too large or has no name of its own.

    members: (name, bytes, whether it is a folder, whether it is a plain file or folder). A name comes once, as file
    systems that ignore case compare them; only a folder may come twice.
    """
    seen: dict[str, bool] = {}
    left = limits.total_bytes
    for name, size, folder, plain in members:
        key = unicodedata.normalize("NFC", name).casefold()
        left -= size
        reason = None
        if not plain:
            reason = "is a link, a device, a sparse or an encrypted file, or compressed in an unusual way"
        elif ":" in name or not all(map(is_plain, name.split("/"))):
            reason = "has a name that leads elsewhere, or means different files on different systems"
        elif key in seen and not (seen[key] and folder):
            reason = "comes twice, or twice but for upper and lower case"
        elif len(seen) == limits.members:
            reason = f"is one of more than {limits.members} members"
        elif size > limits.member_bytes or left < 0:
            reason = f"has more than {limits.member_bytes} bytes, or the whole more than {limits.total_bytes} bytes"
        if reason:
            raise Damaged(f"member {name!r} {reason}")
        seen[key] = folder


def read_members(path: Path, limits: Limits = TAR) -> dict[str, bytes]:
    """The regular files of a gzipped tar archive, name -> bytes, in the archive's order.

    Raises UserError if the file is missing, no such archive, damaged or incomplete, exceeds a limit, or has a member
    that `check_members` refuses.
    """
    with refusing(path, "a tar.gz archive"), gzip.open(path) as stream:
        data = stream.read(limits.total_bytes + 1)  # to the end, where gzip keeps its checksum
        if len(data) > limits.total_bytes:
            raise Damaged(f"the whole has more than {limits.total_bytes} bytes")
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            found = ((m.name, m.size, m.isdir(), (m.isdir() or m.isreg()) and not m.issparse()) for m in archive)
            check_members(found, limits)
            return {member.name: archive.extractfile(member).read() for member in archive if member.isreg()}


def is_plain_zip(member: zipfile.ZipInfo) -> bool:
    """Whether this is a plain file or folder, not encrypted, stored or deflated: others unpack gigabytes at once."""
    usual = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not member.flag_bits & ENCRYPTED
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where a system knows no kinds
    folder = member.is_dir() == member.orig_filename.endswith("/")
    return usual and folder and kind in (0, stat.S_IFREG, stat.S_IFDIR)


def checked_zip(archive: zipfile.ZipFile, limits: Limits) -> list[zipfile.ZipInfo]:
    """The members of a zip archive; `Damaged` if `check_members` refuses one."""
    members = archive.infolist()
    found = ((m.orig_filename.removesuffix("/"), m.file_size, m.is_dir(), is_plain_zip(m)) for m in members)
    check_members(found, limits)
    return members


def read_zip(path: Path, wanted: Callable[[str], bool], limits: Limits = ZIP) -> dict[str, bytes]:
    """The files of a zip archive whose names are wanted, name -> bytes; UserError as `read_members`."""
    with refusing(path, "a zip archive"), zipfile.ZipFile(path) as archive:
        names = (member.filename for member in checked_zip(archive, limits) if not member.is_dir())
        return {name: archive.read(name) for name in names if wanted(name)}


def unpack(path: Path, folder: Path, limits: Limits = ZIP) -> None:
    """Unpack a zip archive into a new folder, which appears only when everything is in it.

    Members are checked before anything is written, and not read further than they say. Raises UserError like
    `read_members`, and if the folder is there already or cannot be written.
    """
    if folder.exists():
        raise UserError(f"{folder}: is already there; choose a new folder.")
    with refusing(path, "a zip archive, or not unpacked there"), zipfile.ZipFile(path) as archive:
        members = checked_zip(archive, limits)
        with atomic_folder(folder) as new:
            for member in bar(members, path.name):
                archive.extract(member, new)


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments of the verb `unpack`."""
    parser.add_argument(
        "archive", type=Path, help="a .zip file; what leads out of the folder, links, bombs are refused"
    )
    parser.add_argument("folder", type=Path, help="a new folder, which appears only when everything is in it")


def run(arguments: argparse.Namespace) -> int:
    """The verb `unpack`."""
    unpack(arguments.archive, arguments.folder)
    print(f"{arguments.folder}: unpacked.")
    return 0
