"""What lies in zip archives, and in zip archives inside these; nothing is unpacked."""

from __future__ import annotations

import io
import logging
import struct
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from ctrs.errors import DataError, RasterError
from ctrs.raster.names import archive_member, file_name, in_archive, shown

logger = logging.getLogger(__name__)

ZIP = ".zip"

OTHER_ARCHIVES = (".rar", ".7z", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".z01")
"""Endings of archives that have to be unpacked."""

MAX_DEPTH = 3
"""Archives within archives that are looked into."""

SLOW_BYTES = 256 * 2**20
"""Size above which a compressed archive within an archive is slow to read: each opening starts from its beginning."""

_STORED, _DEFLATED, _DEFLATED64 = 0, 8, 9
_READABLE = frozenset({_STORED, _DEFLATED, _DEFLATED64})
_METHODS = {6: "implode", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ"}
_ENCRYPTED = 0x1
_LOCAL_HEADER_BYTES = 30
_TAIL_BYTES = 16 * 2**20
_CHUNK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file in an archive.

    Args:
        path: Name by which it is opened, from ``archive_member``.
        place: Path below the archive, without the only folder at its top where that is named like the archive; an
            archive in it counts as a folder of its name without ``.zip``.
        size: Bytes when unpacked.
        problem: Why it cannot be read where it is, None where it can.
        slow: It lies in a large compressed archive within the archive.
    """

    path: Path
    place: PurePosixPath
    size: int
    problem: str | None = None
    slow: bool = False


def is_zip(path: Path | PurePosixPath) -> bool:
    """Tell whether a file's name is that of a zip archive."""
    return path.suffix.lower() == ZIP


def other_archive(path: Path) -> bool:
    """Tell whether a file's name is that of an archive that is not looked into.

    >>> other_archive(Path("a.tar.gz")), other_archive(Path("a.zip")), other_archive(Path("a.7Z"))
    (True, False, True)
    """
    return path.name.lower().endswith(OTHER_ARCHIVES)


def list_archive(archive: Path) -> list[Member]:
    """Return the files of an archive and of the archives in it; hidden ones are left out.

    Raises:
        DataError: It is damaged, or an archive in it is, or needs a password.
        RasterError: It is not readable.
    """
    try:
        with archive.open("rb") as stream:
            return list(_members(stream, archive, 1, slow=False))
    except OSError as error:
        raise RasterError(f"{archive}: not readable ({error.strerror or error}); check the file") from error


def read_text(path: Path) -> str:
    """Return the text of a file, which may be a member of an archive.

    Raises:
        DataError: It is not readable, or not UTF-8.
    """
    try:
        with _open(path.as_posix()) as stream:
            return stream.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{shown(path)}: not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise DataError(f"{shown(path)}: not readable ({error}); check the file") from error


@contextmanager
def _open(name: str) -> Iterator[IO[bytes]]:
    """Open a file, or a member of an archive, which may lie in another one."""
    if not in_archive(name):
        with Path(name).open("rb") as stream:
            yield stream
        return
    archive, _, member = name.removeprefix("/vsizip/{").rpartition("}/")
    with _open(archive) as outer, zipfile.ZipFile(outer) as opened, opened.open(member) as inner:
        yield inner


def _members(stream: IO[bytes], archive: Path, depth: int, *, slow: bool) -> Iterator[Member]:
    try:
        with zipfile.ZipFile(stream) as opened:
            seen: set[str] = set()
            own = _own_folder(opened, archive)
            for entry in opened.infolist():
                name = entry.filename.replace("\\", "/")
                place = PurePosixPath(name)
                if name.endswith("/") or name in seen or _is_hidden(place):
                    continue
                seen.add(name)
                inside = place.relative_to(own)
                path = archive_member(archive, name)
                problem = _problem(entry)
                if not is_zip(place):
                    yield Member(path=path, place=inside, size=entry.file_size, problem=problem, slow=slow)
                    continue
                if problem is not None or depth == MAX_DEPTH:
                    problem = problem or f"lies {depth} archives deep"
                    raise DataError(f"{shown(path)}: {problem}; unpack {shown(archive)} and name the folder")
                inner_slow = slow or (entry.compress_type != _STORED and entry.file_size > SLOW_BYTES)
                inner = _open_inner(stream, opened, entry, path)
                for member in _members(inner, path, depth + 1, slow=inner_slow):
                    yield Member(
                        path=member.path,
                        place=inside.with_suffix("") / member.place,
                        size=member.size,
                        problem=member.problem,
                        slow=member.slow,
                    )
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{shown(archive)}: not readable as a zip archive ({error}); it is damaged, cut short or one part of "
            "several: get it again"
        ) from error


def _own_folder(opened: zipfile.ZipFile, archive: Path) -> PurePosixPath:
    """Return the only folder at the top where it is named like the archive: the two count as one."""
    places = [PurePosixPath(entry.filename.replace("\\", "/")) for entry in opened.infolist() if not entry.is_dir()]
    tops = {place.parts[0] if len(place.parts) > 1 else "" for place in places if not _is_hidden(place)}
    only = tops.pop() if len(tops) == 1 else ""
    return PurePosixPath(only if only.lower() == file_name(archive).stem.lower() else "")


def _is_hidden(place: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in place.parts)


def _problem(entry: zipfile.ZipInfo) -> str | None:
    if entry.flag_bits & _ENCRYPTED:
        return "needs a password"
    if entry.compress_type not in _READABLE:
        return f"is compressed by method {_METHODS.get(entry.compress_type, entry.compress_type)}, unreadable in place"
    return None


def open_stored(stream: IO[bytes], entry: zipfile.ZipInfo) -> IO[bytes]:
    """Open a member that is not compressed in place, so that it can be read from anywhere.

    Args:
        stream: The archive that it lies in.
        entry: The member.
    """
    stream.seek(entry.header_offset)
    name_bytes, extra_bytes = struct.unpack("<26xHH", stream.read(_LOCAL_HEADER_BYTES))
    start = entry.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
    return io.BufferedReader(_Slice(stream, start, entry.file_size))


def _open_inner(stream: IO[bytes], opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> IO[bytes]:
    """Open an archive in an archive: in place where it is stored, else by its end, where its list of files is."""
    if entry.compress_type == _STORED:
        return open_stored(stream, entry)
    if entry.compress_type == _DEFLATED64:
        raise DataError(f"{shown(path)}: is compressed in a way that cannot be listed; unpack the outer archive")
    logger.info("%s: looking for its list of files", shown(path))
    chunks: deque[bytes] = deque(maxlen=_TAIL_BYTES // _CHUNK_BYTES)
    with opened.open(entry) as inner:
        while chunk := inner.read(_CHUNK_BYTES):
            chunks.append(chunk)
    return io.BufferedReader(_Tail(b"".join(chunks), entry.file_size))


class _Part(io.RawIOBase):
    """Read-only bytes with a position."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(22, "position before the beginning")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        length = max(0, min(len(buffer), self._size - self._position))
        data = self._get(self._position, length) if length else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _get(self, start: int, length: int) -> bytes:
        raise NotImplementedError


class _Slice(_Part):
    """A part of another stream."""

    def __init__(self, stream: IO[bytes], start: int, size: int) -> None:
        super().__init__(size)
        self._stream = stream
        self._start = start

    def _get(self, start: int, length: int) -> bytes:
        self._stream.seek(self._start + start)
        return self._stream.read(length)


class _Tail(_Part):
    """The end of a stream of which the rest is not kept."""

    def __init__(self, tail: bytes, size: int) -> None:
        super().__init__(size)
        self._tail = tail
        self._begin = size - len(tail)

    def _get(self, start: int, length: int) -> bytes:
        if start < self._begin:
            raise zipfile.BadZipFile("its list of files is too long to be read without unpacking")
        return self._tail[start - self._begin : start - self._begin + length]
