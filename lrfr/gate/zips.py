"""Zip archives that nobody has checked, unpacked into a new folder: TinyFace and QMUL-SurvFace come as such.

What is not a plain file or folder under a plain name is refused before anything is written. `ZipFile.extractall` would repair
such names silently, and two of them may then become one file.
"""

from __future__ import annotations

import stat
import unicodedata
import zipfile
from pathlib import Path

from lrfr.errors import UserError
from lrfr.files import atomic_folder
from lrfr.gate.archives import check_name
from lrfr.progress import bar

# Our choices, from the largest set that we know, QMUL-SurvFace: 473,558 images of about 1 kB, lists of a few MB.
MEMBERS, MEMBER_BYTES, TOTAL_BYTES = 1_000_000, 1 << 26, 1 << 34
PIECE = 1 << 20  # bytes at a time
ENCRYPTED = 1  # bit of a member's flags


def check_members(path: Path, members: list[zipfile.ZipInfo], limit: int, again: str) -> None:
    """UserError for more members than the limit, and for one that is no plain file or folder under a name of its own."""
    if len(members) > limit:
        raise UserError(f"{path}: more than {limit} members; {again}.")
    seen: set[str] = set()
    for member in members:
        name = member.orig_filename
        check_name(path, name.removesuffix("/"))
        kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the system that packed it knows no such kinds
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or member.is_dir() != name.endswith("/"):
            raise UserError(f"{path}: member {name!r} is a link or a device; {again}.")
        if member.flag_bits & ENCRYPTED:
            raise UserError(f"{path}: member {name!r} is encrypted; unpack the archive by hand, with its password.")
        key = unicodedata.normalize("NFC", name.removesuffix("/")).casefold()
        if key in seen:
            raise UserError(f"{path}: member {name!r} comes twice, or twice but for upper and lower case; {again}.")
        seen.add(key)


def unpack(
    path: Path, folder: Path, members: int = MEMBERS, member_bytes: int = MEMBER_BYTES, total_bytes: int = TOTAL_BYTES
) -> None:
    """Unpack a zip archive into a new folder, which appears only when everything is in it.

    members, member_bytes, total_bytes: limits for the number of members and for the decompressed bytes of one and of all, which
    are counted while they are written, whatever the headers say.

    Raises
    ------
    UserError
        if the folder is there already, the file is missing, damaged, encrypted, no zip archive or exceeds a limit, or a member
        is a link or a device, or has a name that is absolute, leads out of the archive, or is another's but for its case.
    """
    again = "fetch the archive again from a source that you trust"
    if folder.exists():
        raise UserError(f"{folder}: is already there; choose a new folder.")
    left = total_bytes
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(path, archive.infolist(), members, again)
            with atomic_folder(folder) as new:
                for member in bar(archive.infolist(), path.name):
                    target = new / member.orig_filename
                    (target if member.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
                    if member.is_dir():
                        continue
                    own = member_bytes
                    with archive.open(member) as stream, open(target, "xb") as file:
                        while piece := stream.read(PIECE):
                            own, left = own - len(piece), left - len(piece)
                            if own < 0 or left < 0:
                                raise UserError(
                                    f"{path}: more bytes than allowed at member {member.orig_filename!r}; {again}."
                                )
                            file.write(piece)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of the archive.") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{path}: cannot be unpacked into {folder} ({reason}); choose another folder.") from None
    except Exception as error:  # decoders raise almost anything on hostile bytes
        raise UserError(f"{path}: not a complete zip archive ({type(error).__name__}); {again}.") from None
