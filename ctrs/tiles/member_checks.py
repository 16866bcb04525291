"""Whether what is taken from zip archives is as it was packed: GDAL does not look at their checksums."""

from __future__ import annotations

import logging
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from ctrs.errors import DataError
from ctrs.raster.names import archive_member, in_archive, local_file, shown
from ctrs.tiles.archives import open_stored

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 2**20


@dataclass(kw_only=True)
class _Wanted:
    """What is taken from an archive: files, by folder and name up to the first dot, and archives in it."""

    files: set[str] = field(default_factory=set)
    archives: dict[str, _Wanted] = field(default_factory=dict)

    def add(self, members: list[str]) -> None:
        """Add a file, given by its name and before it those of the archives that it lies in."""
        if len(members) == 1:
            self.files.add(_family(members[0]))
        else:
            self.archives.setdefault(members[0], _Wanted()).add(members[1:])


@dataclass(frozen=True, kw_only=True)
class Share:
    """Some of the members of an archive, to be read by one thread.

    Args:
        archive: File on a local disk.
        members: Their names in it.
        size: Bytes of them in the archive.
    """

    archive: Path
    members: frozenset[str]
    size: int
    wanted: _Wanted = field(repr=False)

    def damaged(self, advance: Callable[[int], None], stop: threading.Event) -> list[tuple[Path, DataError]]:
        """Read the members to their ends; return those that are not as they were packed, each with its fault.

        Args:
            advance: Takes the bytes that were read, as in the archive.
            stop: Set: nothing more is read.

        Raises:
            OSError: The archive cannot be read.
        """
        with self.archive.open("rb") as stream:
            return list(_damaged(stream, self.archive, self.wanted, self.members, advance, stop))


def shares(paths: Iterable[Path], parts: int) -> list[Share]:
    """Divide the members of local archives, and all that belongs to them, among threads.

    Args:
        paths: Files; those that lie in no archive are left out.
        parts: Shares of each archive at most.
    """
    archives: dict[Path, _Wanted] = {}
    for path in paths:
        archive = local_file(path)
        if archive is not None and in_archive(path):
            # "/vsizip/{/vsizip/{a.zip}/b.zip}/c.tif" names a.zip, b.zip and c.tif.
            _, *members = path.as_posix().replace("/vsizip/{", "").split("}/")
            archives.setdefault(archive, _Wanted()).add(members)
    found: list[Share] = []
    for archive, wanted in archives.items():
        found += _divide(archive, wanted, parts)
    return found


def _divide(archive: Path, wanted: _Wanted, parts: int) -> Iterator[Share]:
    """Yield shares of about the same size; none of an archive whose list of files is not readable, as others say."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if _is_wanted(entry, wanted)]
    except (OSError, zipfile.BadZipFile):
        return
    bins: list[tuple[int, list[str]]] = [(0, []) for _ in range(parts)]
    for entry in sorted(entries, key=lambda entry: entry.compress_size, reverse=True):
        size, names = bins[0]
        bins[0] = size + entry.compress_size, [*names, entry.filename]
        bins.sort(key=lambda share: share[0])
    for size, names in bins:
        if names:
            yield Share(archive=archive, members=frozenset(names), size=size, wanted=wanted)


def _damaged(
    stream: IO[bytes],
    archive: Path,
    wanted: _Wanted,
    members: frozenset[str] | None,
    advance: Callable[[int], None],
    stop: threading.Event,
) -> Iterator[tuple[Path, DataError]]:
    """Yield the faults of an open archive, members in the order in which they lie there."""
    with zipfile.ZipFile(stream) as opened:
        entries = [entry for entry in opened.infolist() if _is_wanted(entry, wanted)]
        for entry in sorted(entries, key=lambda entry: entry.header_offset):
            name = _name(entry)
            path = archive_member(archive, name)
            if stop.is_set():
                return
            if members is not None and entry.filename not in members:
                continue
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                logger.info(
                    "%s: not compared with its checksum, as its compression is known to GDAL alone", shown(path)
                )
                continue
            step = _scaled(advance, entry)
            try:
                if name not in wanted.archives:
                    with opened.open(entry) as member:
                        while not stop.is_set() and (chunk := member.read(_CHUNK_BYTES)):
                            step(len(chunk))
                elif entry.compress_type == zipfile.ZIP_STORED:
                    yield from _damaged(open_stored(stream, entry), path, wanted.archives[name], None, step, stop)
                else:  # its list of files is at its end, so that its own checksum is compared too
                    with opened.open(entry) as inner:
                        yield from _damaged(inner, path, wanted.archives[name], None, step, stop)
            except (zipfile.BadZipFile, zlib.error, EOFError, struct.error) as error:
                reason = "its checksum differs" if "CRC" in str(error) else str(error) or type(error).__name__
                outermost = local_file(path) or archive
                yield path, DataError(f"{shown(path)}: archive member is damaged ({reason}); get {outermost} again")


def _scaled(advance: Callable[[int], None], entry: zipfile.ZipInfo) -> Callable[[int], None]:
    """Return what takes bytes of an unpacked member, and gives on those that they take in the archive."""
    return lambda size: advance(size * entry.compress_size // max(1, entry.file_size))


def _is_wanted(entry: zipfile.ZipInfo, wanted: _Wanted) -> bool:
    name = _name(entry)
    return not entry.is_dir() and (name in wanted.archives or _family(name) in wanted.files)


def _name(entry: zipfile.ZipInfo) -> str:
    """Return a member's name as GDAL has it."""
    return entry.filename.replace("\\", "/")


def _family(name: str) -> str:
    """Return the folder and the name up to the first dot, which a raster shares with what belongs to it."""
    place = PurePosixPath(name)
    return (place.parent / place.name.split(".")[0]).as_posix()
