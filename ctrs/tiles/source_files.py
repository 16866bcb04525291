"""All files that determine what is prepared: described cheaply to tell whether any changed, hashed for the record."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ctrs.config import PrepareConfig
from ctrs.errors import RasterError
from ctrs.jobs import describe_file
from ctrs.progress import Progress, no_progress
from ctrs.raster.names import gdal_name, is_virtual, local_file
from ctrs.tiles.scene_source import Layout

_CHUNK_BYTES = 2**20
_MIB = 2**20
_PROGRESS_SECONDS = 0.2
_VRT_DEPTH = 8
_VRT_SOURCES = ("SourceFilename", "SourceDataset")


def describe_source(layout: Layout, config: PrepareConfig) -> dict[str, Any]:
    """Describe scenes and files by path, size and time of change; equal descriptions mean that nothing changed.

    Files on other machines are described by their names alone.

    Args:
        layout: The scenes.
        config: Options, for the files that they name.

    Returns:
        JSON values.
    """
    siblings = _Siblings()
    described: dict[Path, dict[str, Any]] = {}

    def describe(path: Path) -> list[dict[str, Any]]:
        if local_file(path) is None:
            return [{"path": gdal_name(path)}]
        entries = []
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


def source_files(layout: Layout, config: PrepareConfig) -> tuple[Path, ...]:
    """Return all local files that determine what is prepared, each once, in the order of the scenes."""
    siblings = _Siblings()
    paths = [path for scene in layout.scenes for path in scene.files] + _further_files(layout, config)
    return tuple(dict.fromkeys(file for path in paths for file in _belonging(path, siblings)))


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
    files = [path for path in dict.fromkeys(paths) if not is_virtual(path)]
    total = sum(path.stat().st_size for path in files if path.is_file())
    done = 0
    lock = threading.Lock()
    stop = threading.Event()

    def digest(path: Path) -> str:
        nonlocal done
        found = hashlib.sha256()
        with path.open("rb") as stream:
            while (chunk := stream.read(_CHUNK_BYTES)) and not stop.is_set():
                found.update(chunk)
                with lock:
                    done += len(chunk)
        return found.hexdigest()

    with ThreadPoolExecutor(max_workers=max(1, min(workers or os.cpu_count() or 1, len(files) or 1))) as pool:
        futures = {path: pool.submit(digest, path) for path in files}
        try:
            while wait(futures.values(), timeout=_PROGRESS_SECONDS).not_done:
                progress(done // _MIB, max(1, total // _MIB), "hashing source files")
            hashes = {path: future.result() for path, future in futures.items()}
        except OSError as error:
            raise RasterError(f"{error.filename}: not readable ({error.strerror}); check the file") from error
        finally:
            stop.set()
    progress(max(1, total // _MIB), max(1, total // _MIB), "hashing source files")
    return hashes


def vrt_sources(path: Path) -> list[Path]:
    """Return the local files that a VRT, and VRTs in it, show; none for what is no VRT or not readable."""
    return list(dict.fromkeys(_vrt_sources(path, _VRT_DEPTH)))


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
        file = local_file(path.parent / name if is_relative and not is_virtual(name) else name)
        if file is not None and file.is_file() and file != path:
            yield file
            yield from _vrt_sources(file, depth - 1)


def _belonging(path: Path, siblings: _Siblings) -> list[Path]:
    """Return the local files behind a path: the file, its siblings, the archive, the sources of a VRT."""
    file = local_file(path)
    if file is None or not file.is_file():
        return []
    if is_virtual(path):
        return [file]
    return [*siblings.of(file), *(near for source in vrt_sources(file) for near in siblings.of(source))]


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
