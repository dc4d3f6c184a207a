"""Archives that nobody has checked: read into memory within limits, never unpacked.

A tar archive can name files outside of its folder, link to them, claim any size, expand a thousandfold and end anywhere. What is
not a plain file under a plain name is refused, not repaired: an archive with such members is not the one that we know.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import unicodedata
from pathlib import Path
from typing import BinaryIO

from lrfr.errors import UserError

# Our choices, from the largest archive that we read: LFW has 18,983 members, at most 15,884 bytes in one, 137 MB as a tar.
MEMBERS = 50_000
MEMBER_BYTES = 1 << 20
TOTAL_BYTES = 1 << 28
GZIP = b"\x1f\x8b"
PIECE = 1 << 16  # bytes at a time when the rest of a stream is read


class Counted:
    """A stream that may be read up to a limit: what decompresses to more is refused after the limit, whatever its headers say."""

    def __init__(self, stream: BinaryIO, limit: int, refusal: UserError) -> None:
        self.stream, self.left, self.refusal = stream, limit, refusal

    def read(self, size: int) -> bytes:
        data = self.stream.read(min(size, self.left + 1))
        self.left -= len(data)
        if self.left < 0:
            raise self.refusal
        return data


class Header(tarfile.TarInfo):
    """A member's header. `tarfile` takes a damaged header or a missing end for the end of the archive; here they are errors."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # the block of zeros that ends an archive
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def check_name(path: Path, name: str) -> None:
    """UserError for a name that would lead out of a folder, or means different files on different systems."""
    reason = None
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        reason = "an absolute name"
    elif "\\" in name or not name.isprintable():
        reason = "a backslash or control character in its name"
    elif {"", ".", ".."} & set(name.split("/")):
        reason = "a name with '..', '.' or an empty part"
    if reason:
        raise UserError(f"{path}: member {name!r} has {reason}; fetch the archive again from a source that you trust.")


def read_members(
    path: str | Path, members: int = MEMBERS, member_bytes: int = MEMBER_BYTES, total_bytes: int = TOTAL_BYTES
) -> dict[str, bytes]:
    """The regular files of a tar or gzipped tar archive, name -> bytes, in the archive's order.

    members, member_bytes, total_bytes: limits for the number of members, the bytes of one, and the bytes of the whole
    decompressed archive with its headers, which are counted while it is read.

    Raises
    ------
    UserError
        if the file is missing, is not a tar archive, is damaged or incomplete or exceeds a limit, or has a member that is neither
        a plain file nor a folder, or whose name is absolute, leads out of the archive, or is another's but for its case.
    """
    path = Path(path)
    again = "fetch the archive again from a source that you trust"
    too_large = UserError(f"{path}: more than {total_bytes} bytes when decompressed; {again}.")
    files: dict[str, bytes] = {}
    seen: dict[str, bool] = {}  # name without case -> is it a folder
    try:
        with open(path, "rb") as file:
            packed = file.read(len(GZIP)) == GZIP
            file.seek(0)
            stream = Counted(gzip.GzipFile(fileobj=file) if packed else file, total_bytes, too_large)
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=Header) as archive:
                for count, member in enumerate(archive, start=1):
                    if count > members:
                        raise UserError(f"{path}: more than {members} members; {again}.")
                    name = member.name
                    check_name(path, name)
                    if not (member.isdir() or member.isreg()) or member.issparse():
                        raise UserError(f"{path}: member {name!r} is a link, a device or a sparse file; {again}.")
                    # as file systems that ignore case compare names; a folder may come twice, which harms nobody
                    key = unicodedata.normalize("NFC", name).casefold()
                    if key in seen and not (seen[key] and member.isdir()):
                        raise UserError(
                            f"{path}: member {name!r} comes twice, or twice but for upper and lower case; {again}."
                        )
                    seen[key] = member.isdir()
                    if member.isreg():
                        if member.size > member_bytes:
                            raise UserError(f"{path}: member {name!r} has more than {member_bytes} bytes; {again}.")
                        files[name] = archive.extractfile(member).read()
            while stream.read(PIECE):  # to the end, where gzip keeps its checksum
                pass
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of the archive.") from None
    except Exception as error:  # decoders raise almost anything on hostile bytes
        raise UserError(f"{path}: not a complete tar archive ({type(error).__name__}); {again}.") from None
    return files
