"""All files that determine what is prepared: described cheaply to tell whether any changed, hashed for the record."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ctrs.config import PrepareConfig
from ctrs.errors import RasterError
from ctrs.jobs import describe_file
from ctrs.progress import Progress, no_progress
from ctrs.raster.names import gdal_name, in_archive, is_remote, is_virtual, local_file, shown
from ctrs.tiles.findings import Findings
from ctrs.tiles.member_checks import shares
from ctrs.tiles.remote_files import Described, remote_name
from ctrs.tiles.scene_source import Layout

_CHUNK_BYTES = 2**20
_MIB = 2**20
_PROGRESS_SECONDS = 0.2
_VRT_DEPTH = 8
_VRT_SOURCES = ("SourceFilename", "SourceDataset")


def describe_source(layout: Layout, config: PrepareConfig, remote: Described | None = None) -> dict[str, Any]:
    """Describe scenes and files by path, size and time of change; equal descriptions mean that nothing changed.

    Args:
        layout: The scenes.
        config: Options, for the files that they name.
        remote: What is known of files on other machines, from ``describe_remote``; others count by their names alone.

    Returns:
        JSON values.
    """
    siblings = _Siblings()
    known = remote or {}
    described: dict[Path, dict[str, Any]] = {}

    def describe(path: Path) -> list[dict[str, Any]]:
        if local_file(path) is None:
            return [{"path": gdal_name(path), **known.get(remote_name(path) or "", {})}]
        entries: list[dict[str, Any]] = [
            {"path": url, **known.get(url, {})} for url in map(remote_name, _shown_by(path)) if url
        ]
        for file in _belonging(path, siblings):
            if file not in described:
                described[file] = describe_file(file)
            entries.append(described[file])
        # Members of one archive differ in their own names only.
        return [{"path": gdal_name(path)}, *entries] if is_virtual(path) else entries

    return {
        "scenes": [
            {
                "name": scene.name,
                "split": scene.split,
                "chips": repr(scene.chips),
                "files": [describe(path) for path in scene.files],
            }
            for scene in layout.scenes
        ],
        # Class tables and lists of scenes count by what they say, which others describe.
        "aoi": None if config.aoi is None else describe(config.aoi),
    }


def remote_files(layout: Layout, config: PrepareConfig) -> list[Path]:
    """Return all files on other machines that determine what is prepared, those that local VRTs show among them."""
    paths = [path for scene in layout.scenes for path in scene.files] + _further_files(layout, config)
    return [near for path in paths for near in (path, *_shown_by(path)) if is_remote(near)]


def source_files(layout: Layout, config: PrepareConfig) -> tuple[Path, ...]:
    """Return all local files that determine what is prepared, each once, in the order of the scenes."""
    siblings = _Siblings()
    paths = [path for scene in layout.scenes for path in scene.files] + _further_files(layout, config)
    return tuple(dict.fromkeys(file for path in paths for file in _belonging(path, siblings)))


def hash_sources(
    layout: Layout,
    config: PrepareConfig,
    findings: Findings,
    progress: Progress = no_progress,
    *,
    workers: int | None = None,
) -> dict[Path, str]:
    """Return the SHA-256 of all local files that determine what is prepared, and check what lies in archives.

    Args:
        layout: The scenes.
        config: Options, for the files that they name.
        findings: Takes a fault for each member of an archive that is damaged, where none tells of it yet.
        progress: Called with MiB read, from the calling thread.
        workers: Threads; None: one for each core.

    Raises:
        RasterError: A file cannot be read.
    """
    return _read(source_files(layout, config), _members(layout, config), findings, progress, workers)


def check_members(
    layout: Layout,
    config: PrepareConfig,
    findings: Findings,
    progress: Progress = no_progress,
    *,
    workers: int | None = None,
) -> None:
    """Check what is used of archives as ``hash_sources`` does, and hash nothing."""
    _read((), _members(layout, config), findings, progress, workers)


def hash_files(
    paths: Iterable[Path], progress: Progress = no_progress, *, workers: int | None = None
) -> dict[Path, str]:
    """Return the SHA-256 of files, as hexadecimal text.

    Args:
        paths: Local files; names of files on other machines are left out.
        progress: Called with MiB read, from the calling thread.
        workers: Threads; None: one for each core.

    Raises:
        RasterError: A file cannot be read.
    """
    return _read(paths, (), Findings(), progress, workers)


def _read(
    paths: Iterable[Path], members: Iterable[Path], findings: Findings, progress: Progress, workers: int | None
) -> dict[Path, str]:
    """Hash files and check members of archives, both at once."""
    threads = workers or os.cpu_count() or 1
    files = [path for path in dict.fromkeys(paths) if not is_virtual(path)]
    parts = shares(members, threads)
    if not files and not parts:
        return {}
    what = "hashing source files" if files else "checking archives"
    total = sum(path.stat().st_size for path in files if path.is_file()) + sum(part.size for part in parts)
    done = 0
    lock = threading.Lock()
    stop = threading.Event()

    def advance(size: int) -> None:
        nonlocal done
        with lock:
            done += size

    def digest(path: Path) -> str:
        found = hashlib.sha256()
        with path.open("rb") as stream:
            while (chunk := stream.read(_CHUNK_BYTES)) and not stop.is_set():
                found.update(chunk)
                advance(len(chunk))
        return found.hexdigest()

    with ThreadPoolExecutor(max_workers=max(1, min(threads, len(files) + len(parts)))) as pool:
        checks = [pool.submit(part.damaged, advance, stop) for part in parts]
        futures = {path: pool.submit(digest, path) for path in files}
        try:
            pending: list[Future[Any]] = [*checks, *futures.values()]
            while wait(pending, timeout=_PROGRESS_SECONDS).not_done:
                progress(done // _MIB, max(1, total // _MIB), what)
            hashes = {path: future.result() for path, future in futures.items()}
            damaged = [(path, error) for future in checks for path, error in future.result()]
        except OSError as error:
            raise RasterError(f"{error.filename}: not readable ({error.strerror}); check the file") from error
        finally:
            stop.set()
    known = " ".join(finding.message for finding in findings.entries if finding.level == "fault")
    for path, fault in sorted(damaged, key=lambda entry: entry[0]):
        if f"{shown(path)}:" not in known:
            findings.fault("files", fault)
    progress(max(1, total // _MIB), max(1, total // _MIB), what)
    return hashes


def vrt_sources(path: Path) -> list[Path]:
    """Return the local files that a VRT, and VRTs in it, show; none for what is no VRT or not readable."""
    named = _vrt_sources(path, _VRT_DEPTH)
    return list(dict.fromkeys(file for source in named if (file := local_file(source)) is not None))


def _shown_by(path: Path) -> list[Path]:
    """Return all that a VRT, and VRTs in it, show, on other machines too."""
    file = local_file(path)
    return [] if file is None or is_virtual(path) else list(dict.fromkeys(_vrt_sources(file, _VRT_DEPTH)))


def _vrt_sources(path: Path, depth: int) -> Iterator[Path]:
    if path.suffix.lower() != ".vrt" or is_virtual(path) or depth == 0:
        return
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError):
        return  # opening it says what is wrong
    for element in root.iter():
        if element.tag not in _VRT_SOURCES or not element.text:
            continue
        name = Path(element.text.strip())
        is_relative = element.get("relativeToVRT", "0") == "1" or element.get("relativetoVRT", "0") == "1"
        source = path.parent / name if is_relative and not is_virtual(name) else name
        file = local_file(source)
        if is_remote(source):
            yield source
        elif file is not None and file.is_file() and file != path:
            yield source
            yield from _vrt_sources(file, depth - 1)


def _belonging(path: Path, siblings: _Siblings) -> list[Path]:
    """Return the local files behind a path: the file, its siblings, the archive, the sources of a VRT."""
    file = local_file(path)
    if file is None or not file.is_file():
        return []
    if is_virtual(path):
        return [file]
    return [*siblings.of(file), *(near for source in vrt_sources(file) for near in siblings.of(source))]


def _members(layout: Layout, config: PrepareConfig) -> list[Path]:
    """Return the members of archives that are used, those that VRTs show among them."""
    paths = [path for scene in layout.scenes for path in scene.files] + _further_files(layout, config)
    return [near for path in paths for near in (path, *_shown_by(path)) if in_archive(near)]


def _further_files(layout: Layout, config: PrepareConfig) -> list[Path]:
    """Return the files that options name: class table, area of interest, lists of scenes."""
    named = [layout.class_file, config.aoi, *layout.list_files]
    return [path for path in named if path is not None]


class _Siblings:
    """Files that belong to a file: the same name up to the first dot (world files, .aux.xml, parts of a Shapefile)."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, list[Path]]] = {}

    def of(self, path: Path) -> list[Path]:
        """Return the file and its siblings, sorted."""
        if path.parent not in self._folders:
            table: dict[str, list[Path]] = {}
            for entry in sorted(path.parent.iterdir()):
                table.setdefault(entry.name.split(".")[0], []).append(entry)
            self._folders[path.parent] = table
        found = self._folders[path.parent].get(path.name.split(".")[0], [])
        return [entry for entry in found if entry.is_file()]
