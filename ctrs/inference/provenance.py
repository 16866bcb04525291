"""What a mask was made from: identities of network, scene and grid, the options that count, and an existing mask's job.

The tag ``CTRS_INPUT`` says how it identifies the scene, before a colon:

- ``sha256:`` of the file's bytes, as ``sha256sum`` prints it (of an archive's, where the scene is in one);
- ``sha256-files:`` of the lines that ``sha256sum`` would print for several files (VRT, tiles), without their names;
- ``etag:`` of what a server tells of a file on the network (entity tag, size, time of change): it is not downloaded;
- ``name:`` of the name alone, where nothing else is known; ``etag-files:`` and ``name-files:`` where that is so of one
  of several files.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import rasterio
from torch import nn

from ctrs.config import PredictConfig
from ctrs.errors import RasterError
from ctrs.jobs import describe_file
from ctrs.models.checkpoint import hash_tensors
from ctrs.raster.cog import read_job_tag
from ctrs.raster.geotiff import Grid, crs_name, open_raster
from ctrs.raster.names import in_memory, is_remote, local_file, shown, without_secrets
from ctrs.tiles.remote_files import describe_remote, remote_name, unknown

log = logging.getLogger(__name__)

MODEL_TAG = "CTRS_MODEL"
SOURCE_TAG = "CTRS_SOURCE"
INPUT_TAG = "CTRS_INPUT"
OPTIONS_TAG = "CTRS_OPTIONS"

_SIDECARS = (".aux.xml", ".ovr")
_PLACES = (".tfw", ".tifw", ".jgw", ".jpgw", ".pgw", ".pngw", ".j2w", ".jp2w", ".wld", ".prj", ".points", ".tab")
"""Files that say where pixels lie; the mask holds that itself."""

_CHUNK_BYTES = 2**20
_STOP_SECONDS = 2.0
"""How long a thread that waits for a server is waited for; it holds nothing."""
_KINDS = ("sha256", "etag", "name")
"""How well a file is identified, from best to worst."""


def hash_weights(model: nn.Module) -> str:
    """Return the hash of a network's tensors that ``ctrs info`` shows; the same wherever the network lives."""
    return hash_tensors(model.state_dict())


def input_files(dataset: rasterio.DatasetReader) -> tuple[str, ...]:
    """Return the files that determine a scene's pixels, those behind virtual rasters included.

    Sidecars with statistics and overviews do not; a file is named once.
    """
    found: dict[str, None] = {}
    _collect(list(dataset.files) or [dataset.name], found)
    return tuple(found)


def _collect(names: Sequence[str], found: dict[str, None]) -> None:
    for number, name in enumerate(names):
        if name in found or name.endswith(_SIDECARS):
            continue
        found[name] = None
        if number and name.lower().endswith(".vrt"):  # the first is the raster that names the others
            try:
                with open_raster(name) as inner:
                    _collect(list(inner.files), found)
            except (RasterError, OSError):
                log.info("%s: not readable, its own sources are not known", shown(name))


def describe_inputs(dataset: rasterio.DatasetReader) -> list[dict[str, Any]]:
    """Identify the files of a scene by path, size and time of change."""
    return [describe_file(name) for name in input_files(dataset)]


class InputHash:
    """Identity of a scene's files for the tag ``CTRS_INPUT``, made in another thread while the network works.

    Used in a ``with`` block, whose end stops the thread.

    Args:
        files: From ``input_files``.
    """

    def __init__(self, files: Sequence[str]) -> None:
        holders: dict[object, str] = {}  # members of one archive are one file
        for name in files:
            if not in_memory(name) and not name.lower().endswith(_PLACES):
                holders.setdefault(local_file(Path(name)) or name, name)
        self._files = list(holders.values())
        self._names = list(files)
        self._stopped = threading.Event()
        self._found: str | None = None
        self._each: tuple[tuple[str, str], ...] = ()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="ctrs input hash", daemon=True)
        self._thread.start()

    def result(self) -> str:
        """Wait for the thread and return the tag's text."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        if self._found is None:
            raise RuntimeError("the hash was stopped")
        return self._found

    def files(self) -> list[dict[str, Any]]:
        """Wait for the thread and return each file: ``path``, ``size`` where it is a local one, and ``hash``."""
        self.result()
        found: list[dict[str, Any]] = []
        for name, (kind, digest) in zip(self._files, self._each, strict=True):
            local = local_file(Path(name))
            described = describe_file(local) if local is not None else {"path": without_secrets(shown(name))}
            size = {"size": described["size"]} if "size" in described else {}
            found.append({"path": described["path"], **size, "hash": f"{kind}:{digest}"})
        return found

    def __enter__(self) -> InputHash:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        try:
            self._found = self._identify()
        except BaseException as error:
            self._error = error

    def _identify(self) -> str | None:
        remote = describe_remote(Path(name) for name in self._files)
        strangers = set(unknown(remote))
        parts: list[tuple[str, str]] = []
        for name in self._files:
            url = remote_name(Path(name))
            if url is not None and url not in strangers:
                facts = json.dumps(remote[url], sort_keys=True)
                parts.append(("etag", hashlib.sha256(facts.encode()).hexdigest()))
                continue
            parts.append(self._hash_local(name))
            if self._stopped.is_set():
                return None
        self._each = tuple(parts)
        if not parts:
            parts = [_by_name(name) for name in self._names]
        if len(parts) == 1:
            return ":".join(parts[0])
        worst = max((kind for kind, _ in parts), key=_KINDS.index)
        lines = "".join(f"{digest}\n" for _, digest in parts)
        return f"{worst}-files:{hashlib.sha256(lines.encode()).hexdigest()}"

    def _hash_local(self, name: str) -> tuple[str, str]:
        path = local_file(Path(name))
        if path is None or not path.is_file():
            return _by_name(name)
        digest = hashlib.sha256()
        buffer = bytearray(_CHUNK_BYTES)
        view = memoryview(buffer)
        try:
            with path.open("rb", buffering=0) as stream:
                while not self._stopped.is_set() and (count := stream.readinto(buffer)):
                    digest.update(view[:count])
        except OSError as error:
            log.warning("%s: not readable to its end (%s); the mask names it without a hash of its bytes", path, error)
            return _by_name(name)
        return "sha256", digest.hexdigest()


def _by_name(name: str) -> tuple[str, str]:
    """Identify a file by its name, without a query, which may hold a signature that is another one each time."""
    known = shown(name).partition("?")[0] if is_remote(name) else Path(name).name
    return "name", hashlib.sha256(known.encode()).hexdigest()


def result_options(config: PredictConfig, settled: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that determine a mask, down to its rounding; those that change nothing are left out.

    What is written beside the mask, threads, memory and the like do not determine it.

    Args:
        config: What was asked for.
        settled: What was decided by the checkpoint, the scene and the machine: ``window_px``, ``overlap``,
            ``batch_size``, ``bidx``, ``resize_factor``, ``gsd_factor``, ``area`` (hash of the area of interest),
            ``precision``, ``device``.
    """
    asked = {
        "blend": config.blend,
        "tta": config.tta,
        "bounds": config.bounds,
        "classes": config.classes,
        "thresholds": config.thresholds,
        "compile": config.compile,
        "skip_unreadable": config.skip_unreadable,
    }
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in {**asked, **settled}.items()
        if not _changes_nothing(name, value)
    }


def _changes_nothing(name: str, value: object) -> bool:
    if name.endswith("_factor"):
        return value == 1.0
    return value is None or value is False or value in ((), "none")


def options_text(options: Mapping[str, Any]) -> str:
    """Return the text of the tag ``CTRS_OPTIONS``.

    >>> options_text({"window_px": 512, "blend": "hann"})
    '{"blend": "hann", "window_px": 512}'
    """
    return json.dumps(dict(options), sort_keys=True, allow_nan=False)


def what_differs(mask: Path, model_hash: str, options: Mapping[str, Any]) -> str:
    """Tell what a mask that ctrs wrote is the result of, other than of this network and these options.

    Args:
        mask: The mask.
        model_hash: From ``hash_weights``.
        options: From ``result_options``.

    Returns:
        The network, or each option with its value there and here; where all that is alike, what else it may be.
    """
    try:
        with open_raster(mask) as dataset:
            tags = dataset.tags()
        there = json.loads(tags.get(OPTIONS_TAG, "{}"))
    except (RasterError, ValueError):
        there, tags = {}, {}
    if not isinstance(there, dict) or not there:
        return "other inputs or options"
    here = json.loads(options_text(options))
    told = ["another network"] if tags.get(MODEL_TAG) != model_hash else []
    changed = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    if changed:
        values = (
            "another area of interest"
            if name == "area"  # a hash
            else f"{name} {_told(there.get(name))} (asked for: {_told(here.get(name))})"
            for name in changed
        )
        told.append(f"other options: {', '.join(values)}")
    return " and ".join(told) or "another scene, a changed one, or other creation options"


def _told(value: object) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def describe_grid(grid: Grid) -> dict[str, Any]:
    """Return the grid in JSON values."""
    control = grid.ground_control
    return {
        "crs": grid.crs.to_wkt() if grid.crs is not None else None,
        "transform": list(grid.transform)[:6],
        "size": [grid.width, grid.height],
        "ground_control": [crs_name(control.crs), control.points] if control is not None else None,
    }


def existing_job(dst: Path) -> str | None:
    """Return the fingerprint in an existing output; None where it is no mask of ctrs."""
    if not dst.is_file():
        return None
    try:
        return read_job_tag(dst)
    except RasterError:
        return None
