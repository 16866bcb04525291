"""Which files lie in a source: a folder, the zip archives in it, or a zip archive alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ctrs.errors import DataError, DataWarning, InputNotFoundError
from ctrs.raster.names import archive_member, file_name, is_virtual, shown
from ctrs.tiles.archives import Member, is_zip, list_archive, other_archive
from ctrs.tiles.findings import Findings
from ctrs.vector.rasterize import VECTOR_SUFFIXES

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".vrt", ".img", ".webp", ".bmp"})
"""File name endings that are read as images or raster labels."""

_OF_THE_SYSTEM = frozenset({"lost+found", "System Volume Information", "$RECYCLE.BIN"})
"""Folders at the top of a disk that nobody else may look into, and that hold no data."""

SHOWN = 20
"""Names that a message shows."""


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """A file of a source.

    Args:
        path: Name by which it is opened.
        place: Path below the source, in which an archive counts as a folder of its name without ``.zip``.
    """

    path: Path
    place: PurePosixPath

    @property
    def is_raster(self) -> bool:
        """Its name is that of an image or raster label."""
        return is_raster(self.path)

    @property
    def is_vector(self) -> bool:
        """Its name is that of a vector file."""
        return is_vector(self.path)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What lies in a source.

    Args:
        root: The folder or the archive.
        files: In natural order of their places.
        folders: Places of all folders and archives.
        archives: Archives that were looked into.
        packed: Archives of other kinds, which have to be unpacked.
    """

    root: Path
    files: tuple[FoundFile, ...]
    folders: frozenset[PurePosixPath]
    archives: tuple[Path, ...] = ()
    packed: tuple[Path, ...] = ()

    def folder(self, place: PurePosixPath) -> str:
        """Return a folder of the source as its user knows it."""
        for archive in self.archives:
            own = _place_of(archive, self.root)
            if place.is_relative_to(own):
                return shown(archive_member(archive, place.relative_to(own).as_posix()).as_posix().removesuffix("/."))
        return str(self.root / place)

    def subfolders(self, place: PurePosixPath) -> dict[str, PurePosixPath]:
        """Return the folders right below a folder, by their names in lower case."""
        return {folder.name.lower(): folder for folder in sorted(self.folders) if folder.parent == place != folder}

    def nothing_found(self, where: str) -> InputNotFoundError:
        """Return the error that says that there are no images, and what to do about it."""
        if self.packed:
            return InputNotFoundError(f"{where}: no images found; unpack {self.packed[0].name} and name the folder")
        if self.archives == (self.root,):
            return InputNotFoundError(f"{where}: no images found in the archive; name one that holds images")
        number = "zip archive" if len(self.archives) == 1 else f"{len(self.archives)} zip archives"
        looked = f", neither there nor in its {number}" if self.archives else ""
        return InputNotFoundError(
            f"{where}: no images found{looked}; put them into images/ and their labels into labels/, or name them "
            "with --images and --labels"
        )


def list_source(source: Path, findings: Findings, *, exclude: Path | None = None) -> Listing:
    """Look for files in a source.

    Args:
        source: A folder or a zip archive.
        findings: Takes what is wrong with archives in the folder.
        exclude: A folder below the source to leave alone.

    Raises:
        InputNotFoundError: There is no such folder or file.
        DataError: It is a file of another kind, or a damaged archive.
    """
    require_source(source)
    if source.is_dir():
        return _list_folder(source, findings, exclude)
    files = _usable(source, list_archive(source), PurePosixPath(source.stem), findings)
    return Listing(root=source, files=_sorted(files), folders=_parents(files), archives=(source,))


def require_source(source: Path) -> None:
    """Refuse a source that is not there, or a file that holds no others.

    Raises:
        InputNotFoundError: There is none.
        DataError: It is a file of another kind, or may not be looked at.
    """
    try:
        source.stat()
    except PermissionError as error:
        raise unreadable([source], error) from error
    except OSError:
        pass
    else:
        if source.is_dir() or is_zip(source):
            return
        if other_archive(source):
            raise DataError(f"{source}: only zip archives are read in place; unpack it and name the folder")
        raise DataError(
            f"{source}: is a file, expected a folder or zip archive with images and labels; name the folder that "
            "holds it, or name images with --images; quote patterns ('*.tif') so that the shell leaves them alone"
        )
    if re.match(r"[a-z][a-z0-9]+:/", source.as_posix(), re.IGNORECASE) or is_virtual(source):
        raise InputNotFoundError(
            f"{source}: is no folder here; download archives first, name single rasters of a server with --images "
            "and --labels"
        )
    raise InputNotFoundError(f"{source}: not found; name a folder or zip archive with images and labels")


def _list_folder(source: Path, findings: Findings, exclude: Path | None) -> Listing:
    folders: list[Path] = []
    paths = list_files(source, exclude=exclude, folders=folders)
    files = [FoundFile(path=path, place=_relative(path, source)) for path in paths]
    # Sizes of what has one place, by the archive that holds it; None for a file on its own.
    sizes: dict[PurePosixPath, dict[Path | None, int]] = {}
    for file in files:
        if not is_zip(file.path) and (size := _size(file.path)) is not None:
            sizes[file.place] = {None: size}
    members: dict[Path, list[Member]] = {}
    for path in paths:
        if is_zip(path):
            with findings.gathering("files"):
                members[path] = list_archive(path)
    for path, entries in members.items():
        for entry in entries:
            sizes.setdefault(_place_of(path, source) / entry.place, {})[path] = entry.size
    kept: list[Path] = []
    for path, entries in members.items():
        if _is_unpacked(path, entries, _place_of(path, source), sizes):
            findings.note("files", f"{path}: left out, what it holds lies unpacked beside it")
            continue
        kept.append(path)
        files += _new_ones(_usable(path, entries, _place_of(path, source), findings), sizes, path, source, findings)
    return Listing(
        root=source,
        files=_sorted([file for file in files if not is_zip(file.path)]),
        folders=_parents(files)
        | {_relative(folder, source) for folder in folders}
        | {_place_of(path, source) for path in kept},
        archives=tuple(kept),
        packed=tuple(path for path in paths if other_archive(path)),
    )


def _usable(archive: Path, members: Sequence[Member], place: PurePosixPath, findings: Findings) -> list[FoundFile]:
    """Return the members that can be read; those that cannot are a fault, those that are slow a warning."""
    wanted = [entry for entry in members if is_raster(entry.path) or is_vector(entry.path)]
    bad = [entry for entry in wanted if entry.problem is not None]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        error = DataError(f"{shown(bad[0].path)}{more}: {bad[0].problem}; unpack {archive} and name the folder")
        findings.fault("files", error, items=[shown(entry.path) for entry in bad])
    if any(entry.slow for entry in wanted):
        findings.warn(
            "files",
            f"{archive}: holds large archives that are compressed once more, which are slow to read in place; "
            "unpack it once if this takes too long",
            DataWarning,
        )
    return [FoundFile(path=entry.path, place=place / entry.place) for entry in members if entry.problem is None]


def _new_ones(
    members: Sequence[FoundFile],
    sizes: Mapping[PurePosixPath, Mapping[Path | None, int]],
    archive: Path,
    source: Path,
    findings: Findings,
) -> list[FoundFile]:
    """Return members that do not also lie unpacked in the same place; where these differ it is a fault."""
    new: list[FoundFile] = []
    for file in members:
        known = sizes[file.place]
        if None not in known:
            new.append(file)
        elif known[None] != known[archive] and (file.is_raster or file.is_vector):
            error = DataError(
                f"{source / file.place}: another file than {shown(file.path)} in the archive beside it; keep one of "
                "the two"
            )
            findings.fault("files", error)
    return new


def _is_unpacked(
    archive: Path,
    members: Sequence[Member],
    place: PurePosixPath,
    sizes: Mapping[PurePosixPath, Mapping[Path | None, int]],
) -> bool:
    """Tell whether all images and vector files of an archive also lie beside it or in a folder of its name."""

    def stands(entry: Member, folder: PurePosixPath) -> bool:
        found = sizes.get(folder / entry.place, {})
        return any(owner != archive and size == entry.size for owner, size in found.items())

    wanted = [entry for entry in members if is_raster(entry.path) or is_vector(entry.path)]
    return bool(wanted) and any(all(stands(entry, folder) for entry in wanted) for folder in (place, place.parent))


def list_files(source: Path, *, exclude: Path | None = None, folders: list[Path] | None = None) -> list[Path]:
    """Return the files below a folder in natural order; links are followed, hidden and prepared folders left out.

    Args:
        source: The folder.
        exclude: A folder below it to leave alone.
        folders: Takes the folders that were looked into, without the first.

    Raises:
        DataError: A folder may not be looked into: what it holds would be missing.
    """
    found: list[Path] = []
    closed: list[OSError] = []
    seen: set[str] = set()
    excluded = None if exclude is None else os.path.realpath(exclude)
    for folder, subfolders, names in os.walk(source, followlinks=True, onerror=closed.append):
        real = os.path.realpath(folder)
        if real in seen or real == excluded or "prepared.json" in names:
            subfolders.clear()
            continue
        seen.add(real)
        # A folder reached in two ways counts where it really stands, so links come last.
        subfolders[:] = sorted(
            (name for name in subfolders if not name.startswith(".") and name not in _OF_THE_SYSTEM),
            key=lambda name: (Path(folder, name).is_symlink(), name),
        )
        if folders is not None and Path(folder) != source:
            folders.append(Path(folder))
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    if closed:
        raise unreadable([Path(error.filename or source) for error in closed], closed[0])
    return sorted(found, key=lambda path: natural_key(path.as_posix()))


def list_entries(folder: Path) -> list[Path]:
    """Return what lies right in a folder, in natural order.

    Raises:
        DataError: It may not be looked into.
    """
    try:
        return sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    except PermissionError as error:
        raise unreadable([folder], error) from error


def unreadable(folders: Sequence[Path], error: OSError) -> DataError:
    """Return the error that says that folders cannot be looked into, and what to do about it.

    Args:
        folders: All of them, at least one.
        error: What the system says of the first.
    """
    more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
    reason = (error.strerror or str(error)).lower()
    return DataError(
        f"{folders[0]}{more}: {reason}, so what lies there would be missing; allow reading it (chmod -R u+rX), or move "
        "it elsewhere"
    )


def natural_key(text: str) -> list[tuple[int, str]]:
    """Return a sort key by which ``area2`` comes before ``area10``.

    >>> sorted(["area10", "area2"], key=natural_key)
    ['area2', 'area10']
    """
    parts = re.split(r"(\d+)", text)
    return [(int(part), "") if number % 2 else (-1, part) for number, part in enumerate(parts)]


def is_raster(path: Path) -> bool:
    """Tell whether a path's name is that of an image or raster label."""
    return file_name(path).suffix.lower() in RASTER_SUFFIXES


def is_vector(path: Path) -> bool:
    """Tell whether a path's name is that of a vector file."""
    return file_name(path).suffix.lower() in VECTOR_SUFFIXES


def named(paths: Iterable[Path | str]) -> str:
    """Return some names of files for a message, and how many there are more.

    >>> named([Path("images/a.tif"), "b"])
    'a.tif, b'
    """
    names = [file_name(path).name if isinstance(path, Path) else path for path in paths]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _size(path: Path) -> int | None:
    """Return the bytes of a file, None for what is none (a broken link).

    Raises:
        DataError: Its folder may be listed, but not entered.
    """
    try:
        return path.stat().st_size if path.is_file() else None
    except PermissionError as error:
        raise unreadable([path.parent], error) from error


def _relative(path: Path, source: Path) -> PurePosixPath:
    return PurePosixPath(path.relative_to(source).as_posix())


def _place_of(archive: Path, source: Path) -> PurePosixPath:
    if archive == source:
        return PurePosixPath(source.stem)
    return _relative(archive, source).with_suffix("")


def _parents(files: Iterable[FoundFile]) -> frozenset[PurePosixPath]:
    return frozenset(parent for file in files for parent in file.place.parents if parent.parts)


def _sorted(files: Iterable[FoundFile]) -> tuple[FoundFile, ...]:
    return tuple(sorted(files, key=lambda file: natural_key(file.place.as_posix())))
