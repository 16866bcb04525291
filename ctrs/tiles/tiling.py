"""``prepare_tiles``: a folder with images and labels becomes tiles, masks, splits, a manifest and a report."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rasterio.errors import NotGeoreferencedWarning

from ctrs.config import PrepareConfig, to_plain
from ctrs.errors import DataError, OutputExistsError
from ctrs.jobs import PartialWork, check_existing, fingerprint, partial_work, recover
from ctrs.progress import Progress, no_progress
from ctrs.tiles.assembly import (
    arrange_tiles,
    describe_scenes,
    measure_bands,
    pixel_size_m,
    warn_about,
)
from ctrs.tiles.audit_page import write_page
from ctrs.tiles.audit_record import write_record
from ctrs.tiles.auditing import Pass, audit_tiles, check_counted
from ctrs.tiles.call_checks import check_against, check_call
from ctrs.tiles.cutting import KINDS
from ctrs.tiles.findings import FAULTS, Findings
from ctrs.tiles.layout import Layout, find_layout
from ctrs.tiles.manifest import FORMAT_VERSION, PREPARED_FILE, Manifest, plain_facts, read_prepared
from ctrs.tiles.misplacement import check_places
from ctrs.tiles.placement import check_folds, deal_folds, place_tiles, scene_splits
from ctrs.tiles.remote_files import Described, describe_remote, unknown
from ctrs.tiles.samples import written_tiles
from ctrs.tiles.scan import JOURNAL_FILE, RESULT_DIR, scan
from ctrs.tiles.scenes import check_source
from ctrs.tiles.source_files import describe_source, hash_sources, remote_files
from ctrs.tiles.training_imagery import profile_training
from ctrs.workspace import mark_as_newest

logger = logging.getLogger(__name__)

REPORT_FILE = "report.html"
"""The report on a data set, in its folder."""


def prepare_tiles(
    source: Path,
    out_dir: Path,
    config: PrepareConfig | None = None,
    *,
    progress: Progress = no_progress,
) -> Manifest:
    """Cut scenes and labels into tiles with a manifest of their footprints, classes, splits and band statistics.

    Everything is checked on the way: beside the manifest stand ``report.html``, with pictures, and ``audit.json``.

    Where ``out_dir`` stands already as the result of the same source and options, nothing is cut; its ``prepared.json``
    gets a new time of change, so that the next command, which takes the newest prepared data, takes these.

    Args:
        source: Folder or zip archive in a known layout, or any folder with images and labels; where ``config.images``
            says where the images are, the folder that relative patterns start from.
        out_dir: Folder to write; it appears when everything in it is complete.
        config: Options; None for the defaults.
        progress: Called after each row of tiles.

    Returns:
        The manifest of what stands in ``out_dir``.

    Raises:
        CtrsError: The source cannot be used as it is, or the output cannot be written; the message says what to do.
    """
    config = config or PrepareConfig()
    check_call(config)
    findings = Findings()
    with georeference_quietly():
        layout = find_layout(source, config, findings, exclude=out_dir)
        check_against(layout, config)
    remote = describe_remote(remote_files(layout, config))
    job = fingerprint(_job(layout, config, remote))
    if not findings.faults and _is_finished(out_dir, job, overwrite=config.overwrite):
        _warn_of_unknown(remote)
        logger.info("%s: already prepared from the same files with the same options", out_dir)
        mark_as_newest(out_dir / PREPARED_FILE)
        return _with_licence(Manifest.open(out_dir), config)
    with partial_work(out_dir, job, overwrite=config.overwrite) as work:
        if work.resumed:
            logger.info("%s: going on with interrupted work", work.folder)
            _warn_of_unknown(remote)
        try:
            manifest = _prepare(layout, config, job, work, findings, progress)
            manifest = replace(manifest, remote_sources=remote)
        except FAULTS:
            # The data must change before this can succeed, and then it is another job: nothing here is worth keeping.
            _discard(work.folder)
            raise
        manifest.save(manifest.root)
        work.publish(manifest.root)
    return Manifest.open(out_dir)


def _prepare(
    layout: Layout, config: PrepareConfig, job: str, work: PartialWork, findings: Findings, progress: Progress
) -> Manifest:
    """Check, cut, arrange and measure; returns the manifest of the finished, unpublished folder."""
    with georeference_quietly():
        ready = check_source(layout, config, findings)
        check_places(ready.scenes, findings)
        splits = scene_splits(ready, config, findings)
        findings.raise_faults()
        check_folds(ready, splits, config)
    workers = config.workers or os.cpu_count() or 1
    found = scan(
        ready,
        work.folder,
        write=True,
        min_valid=config.min_valid,
        workers=workers,
        progress=progress,
        findings=findings,
    )
    ready = check_counted(ready, found.facts, config, findings)
    findings.raise_faults()
    staged = work.folder / RESULT_DIR
    name = work.final.absolute().name
    with georeference_quietly():
        placed = place_tiles(found.tiles, ready, splits, config, findings)
        facts = found.facts_of(tile for tile, _ in placed)
        folds = deal_folds(placed, ready, config, findings)
        tiles = arrange_tiles(
            placed, folds, work.folder, staged, has_eroded=all(scene.eroded for scene in ready.scenes)
        )
        ground_pixel_m = pixel_size_m(ready.scenes, findings)
        warn_about(found.tiles, ready, findings)
        audit = audit_tiles(
            name,
            layout,
            ready,
            Pass(cut=found.tiles, facts=facts, placed=placed, splits=splits),
            findings,
            written_tiles(tiles),
            written=True,
            workers=workers,
            progress=progress,
        )
        findings.raise_faults()
        bands = measure_bands(ready, placed, tiles, progress)
        imagery = profile_training(ready.scenes, placed, facts)
    hashes = hash_sources(layout, config, findings, progress, workers=workers)
    findings.raise_faults()
    write_page(staged / REPORT_FILE, audit)
    write_record(staged, audit)
    return Manifest(
        root=staged,
        name=name,
        tiles=tuple(tiles),
        scenes=describe_scenes(ready, placed, splits),
        classes=ready.classes,
        bands=bands,
        imagery=imagery,
        tile_px=max(scene.tile_px for scene in ready.scenes),
        pixel_size_m=ground_pixel_m,
        preset=layout.preset.name if layout.preset else None,
        licence=config.licence or (layout.preset.licence if layout.preset else None),
        fingerprint=job,
        config=replace(config, overwrite=False, workers=None),
        notes=tuple(finding.message for finding in findings.entries if finding.level != "fault"),
        findings=tuple(findings.entries),
        facts={scene: plain_facts(fact) for scene, fact in facts.items()},
        source_hashes={str(path): digest for path, digest in hashes.items()},
    )


def _with_licence(manifest: Manifest, config: PrepareConfig) -> Manifest:
    """Write down another licence for data that need not be prepared again."""
    if config.licence in (None, manifest.licence):
        return manifest
    manifest = replace(manifest, licence=config.licence, config=replace(manifest.config, licence=config.licence))
    manifest.save_description(manifest.root)
    logger.info("%s: licence %s", manifest.root, config.licence)
    return manifest


def _discard(folder: Path) -> None:
    """Remove what this module writes into the folder of unfinished work."""
    for name in (*KINDS, RESULT_DIR):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / JOURNAL_FILE).unlink(missing_ok=True)


@contextmanager
def georeference_quietly() -> Iterator[None]:
    """Keep rasterio from warning of what we say in our own words; threads may not enter it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _warn_of_unknown(remote: Described) -> None:
    """Say that files on other machines are taken as they were, where nothing tells whether they changed."""
    if urls := unknown(remote):
        more = f" and {len(urls) - 1} more" if len(urls) > 1 else ""
        logger.warning(
            "remote sources cannot be compared (%s%s: neither entity tag nor time of change is known), and are taken "
            "as unchanged; prepared again only with --overwrite",
            urls[0],
            more,
        )


def _job(layout: Layout, config: PrepareConfig, remote: Described) -> dict[str, Any]:
    """Return everything that determines the result."""
    options = to_plain(replace(config, overwrite=False, workers=None, classes=None, licence=None))
    return {
        "format": FORMAT_VERSION,
        "options": options,
        "preset": None if layout.preset is None else repr(layout.preset),
        "classes": layout.class_file.read_text(encoding="utf-8") if layout.class_file else None,
        **describe_source(layout, config, remote),
    }


def _is_finished(out_dir: Path, job: str, *, overwrite: bool) -> bool:
    """Tell whether the output stands already; refuse to replace anything that is not prepared data."""
    recover(out_dir)
    if out_dir.is_dir() and not any(out_dir.iterdir()):
        return False
    if out_dir.exists() and not (out_dir / PREPARED_FILE).is_file():
        raise OutputExistsError(f"{out_dir}: exists and is not prepared data; choose another place with -o")
    found: str | None = None
    if out_dir.exists() and not overwrite:
        try:
            found = read_prepared(out_dir).get("fingerprint")
        except DataError:
            found = None
    return check_existing(out_dir, found, job, overwrite=overwrite)
