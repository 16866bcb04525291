"""Faults are planted in copies of sources, and must be found by the check alone and on the way to tiles."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from ctrs.config import PrepareConfig
from ctrs.errors import CtrsError, CtrsWarning
from ctrs.raster.geotiff import open_raster
from ctrs.tiles import Audit, Manifest, audit_source, prepare_tiles
from ctrs.tiles.findings import Check, Finding, Level

TILE_PX = 150
"""Edge of tiles, unless an option says otherwise."""


def options_of(**options: Any) -> PrepareConfig:
    return PrepareConfig(**{"tile_px": TILE_PX, **options})


def look(source: Path, **options: Any) -> Audit:
    """Check a source; nothing is left but the report, and no warning is issued twice over."""
    report = source.parent / "check.html"
    audit = audit_source(source, report, options_of(**options))
    page = report.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert sorted(path.name for path in source.parent.iterdir()) == sorted(["check.html", source.name])
    return audit


def matching(audit: Audit, level: Level, check: Check, pattern: str) -> Finding:
    """Return the finding that matches, and fail with all findings if there is none."""
    for finding in audit.findings:
        if (finding.level, finding.check) == (level, check) and re.search(pattern, finding.message):
            return finding
    listed = "\n".join(f"{finding.level} {finding.check}: {finding.message}" for finding in audit.findings)
    raise AssertionError(f"no {level} of {check} like {pattern!r} among:\n{listed or 'nothing'}")


def prepare(source: Path, **options: Any) -> Manifest:
    return prepare_tiles(source, source.parent / "out", options_of(**options))


def refused(source: Path, pattern: str, **options: Any) -> None:
    """Prepare must stop, say why, and leave nothing behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CtrsWarning)
        with pytest.raises(CtrsError, match=pattern):
            prepare(source, **options)
    assert not (source.parent / "out").exists()
    assert not (source.parent / ".out.partial").exists()


def warned(source: Path, pattern: str, **options: Any) -> Manifest:
    """Prepare must warn, write the warning down, and go on."""
    with pytest.warns(CtrsWarning) as caught:
        manifest = prepare(source, **options)
    assert any(re.search(pattern, str(entry.message)) for entry in caught), [str(entry.message) for entry in caught]
    assert any(re.search(pattern, note) for note in manifest.notes)
    assert "class=" in (manifest.root / "report.html").read_text(encoding="utf-8")
    return manifest


@dataclass(frozen=True, kw_only=True)
class Raster:
    """Pixels of a file with its profile, to be changed and written again."""

    path: Path
    pixels: np.ndarray
    profile: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Raster:
        with open_raster(path) as dataset:
            keys = ("crs", "transform", "nodata", "compress")
            return cls(path=path, pixels=dataset.read(), profile={key: dataset.profile.get(key) for key in keys})

    def write(self, pixels: np.ndarray | None = None, path: Path | None = None, **changes: Any) -> None:
        pixels = self.pixels if pixels is None else pixels
        profile = {**self.profile, **changes}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(
                path or self.path, "w", driver="GTiff", count=len(pixels), height=pixels.shape[1],
                width=pixels.shape[2], dtype=pixels.dtype.name, **profile,
            ) as dataset:  # fmt: skip
                dataset.write(pixels)
        (path or self.path).with_suffix(".tfw").unlink(missing_ok=True)


def cut_short(path: Path, share: float = 0.5) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
