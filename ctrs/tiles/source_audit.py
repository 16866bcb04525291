"""``audit_source``: a source is looked at as ``prepare_tiles`` does, and a report is written instead of tiles."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ctrs.classes import BUILDING_CLASSES
from ctrs.config import PrepareConfig
from ctrs.errors import OutputExistsError
from ctrs.progress import Progress, no_progress
from ctrs.tiles.assembly import pixel_size_m, warn_about
from ctrs.tiles.audit import Audit
from ctrs.tiles.audit_page import write_page
from ctrs.tiles.auditing import Pass, audit_tiles, check_counted
from ctrs.tiles.call_checks import check_call
from ctrs.tiles.findings import FAULTS, Findings
from ctrs.tiles.layout import Layout, find_layout
from ctrs.tiles.misplacement import check_places
from ctrs.tiles.placement import Placed, deal_folds, place_tiles, scene_splits
from ctrs.tiles.samples import source_tiles
from ctrs.tiles.scan import scan
from ctrs.tiles.scenes import check_source
from ctrs.tiles.source_files import check_members
from ctrs.tiles.tiling import georeference_quietly

_OWN_MARK = b'content="ctrs'
_HEAD_BYTES = 4096


def audit_source(
    source: Path,
    report: Path,
    config: PrepareConfig | None = None,
    *,
    progress: Progress = no_progress,
) -> Audit:
    """Look for all that ``prepare_tiles`` would stop at or warn of, and write a report with pictures instead of tiles.

    Args:
        source: As for ``prepare_tiles``.
        report: HTML file to write; an older report is replaced.
        config: Options; None for the defaults.
        progress: Called after each row of tiles.

    Returns:
        What was found, faults included.

    Raises:
        CtrsError: The source cannot be looked at as a whole (no images, a wrong class table), the call is wrong, or
            the report cannot be written.
    """
    config = config or PrepareConfig()
    check_call(config)
    _check_replaceable(report, overwrite=config.overwrite)
    findings = Findings(issues_warnings=False)
    with georeference_quietly(), tempfile.TemporaryDirectory(prefix="ctrs-check-") as scratch:
        layout = find_layout(source, config, findings)
        audit = _look(layout, config, findings, Path(scratch), progress)
    report.parent.mkdir(parents=True, exist_ok=True)
    write_page(report, audit)
    return audit


def _look(layout: Layout, config: PrepareConfig, findings: Findings, scratch: Path, progress: Progress) -> Audit:
    """Check everything and write nothing; scenes with faults are left out, and the faults listed."""
    name = layout.root.absolute().name
    try:
        ready = check_source(layout, config, findings)
    except FAULTS as error:
        if not findings.faults:
            raise
        if error not in findings.faults and error.__cause__ not in findings.faults:
            findings.fault("files", error)
        check_members(layout, config, findings, progress, workers=config.workers)
        return _audit_of_nothing(name, layout, findings)
    check_places(ready.scenes, findings)
    workers = config.workers or os.cpu_count() or 1
    if not ready.scenes:
        check_members(layout, config, findings, progress, workers=workers)
        return _audit_of_nothing(name, layout, findings)
    found = scan(
        ready,
        scratch,
        write=False,
        min_valid=config.min_valid,
        workers=workers,
        progress=progress,
        findings=findings,
    )
    check_members(layout, config, findings, progress, workers=workers)
    ready = check_counted(ready, found.facts, config, findings)
    if not ready.scenes:
        return _audit_of_nothing(name, layout, findings)
    splits = scene_splits(ready, config, findings)
    placed: list[Placed] = []
    with findings.gathering("coverage"):
        placed = place_tiles(found.tiles, ready, splits, config, findings)
        deal_folds(placed, ready, config, findings)
        pixel_size_m(ready.scenes, findings)
        warn_about(found.tiles, ready, findings)
    facts = found.facts_of(tile for tile, _ in placed)
    return audit_tiles(
        name,
        layout,
        ready,
        Pass(cut=found.tiles, facts=facts, placed=placed, splits=splits),
        findings,
        source_tiles,
        written=False,
        workers=workers,
        progress=progress,
    )


def _audit_of_nothing(name: str, layout: Layout, findings: Findings) -> Audit:
    """Return the audit of a source without a single scene that can be read."""
    return Audit(
        name=name,
        source=str(layout.root),
        preset=None if layout.preset is None else layout.preset.name,
        classes=BUILDING_CLASSES if layout.preset is None else layout.preset.classes,
        band_names=(),
        dtype="uint8",
        findings=tuple(findings.entries),
        scenes=(),
        class_px={},
        tiles=(),
        samples=(),
        tile_px=0,
        stride_px=0,
        written=False,
    )


def _check_replaceable(report: Path, *, overwrite: bool) -> None:
    """Refuse to write a report over anything that is none."""
    if report.is_dir():
        raise OutputExistsError(f"{report}: is a folder, expected the name of an HTML file; choose one with -o")
    if report.exists() and not overwrite:
        with report.open("rb") as stream:
            if _OWN_MARK not in stream.read(_HEAD_BYTES):
                raise OutputExistsError(
                    f"{report}: exists and is no report of ctrs; pass --overwrite to replace it, or choose with -o"
                )
