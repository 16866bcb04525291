"""What an audit found, as JSON beside the tiles: for programs, and for the command that prints it again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ctrs.jobs import write_text
from ctrs.tiles.audit import Audit, SceneAudit, is_resampled, resampled_to_m, source_m2, source_px, tile_m2
from ctrs.tiles.documents import read_document

RECORD_FILE = "audit.json"
FORMAT_VERSION = 1


def audit_record(audit: Audit) -> dict[str, Any]:
    """Return what was found as plain values: findings, classes before and after, counts of each scene."""
    names = audit.classes.names
    facts = [scene.facts for scene in audit.scenes]
    nothing = [None] * len(names)
    source: Sequence[int | None] = nothing
    before: Sequence[float | None] = nothing
    after: Sequence[float | None] = nothing
    if is_resampled(audit.scenes):
        source = source_px(audit.scenes)
        before, after = source_m2(audit.scenes) or nothing, tile_m2(audit.scenes) or nothing
    return {
        "format_version": FORMAT_VERSION,
        "name": audit.name,
        "source": audit.source,
        "preset": audit.preset,
        "num_faults": audit.num_faults,
        "findings": [asdict(finding) for finding in audit.findings],
        "resampled_to_m": resampled_to_m(audit.scenes),
        "classes": {
            name: {
                "source_px": source[index],
                "source_m2": before[index],
                "label_px": sum(fact.label_counts[index] for fact in facts),
                "tiled_px": sum(fact.tiled_counts[index] for fact in facts),
                "left_out_px": sum(fact.left_out_counts[index] for fact in facts),
                "label_m2": after[index],
            }
            for index, name in enumerate(names)
        },
        "splits": {split: dict(zip(names, counts, strict=True)) for split, counts in audit.class_px.items()},
        "num_tiles": sum(tile.split is not None for tile in audit.tiles),
        "scenes": [_scene(scene, names) for scene in audit.scenes],
    }


def write_record(folder: Path, audit: Audit) -> None:
    """Write ``audit.json`` into a folder.

    Raises:
        OutputError: It cannot be written.
    """
    write_text(folder / RECORD_FILE, json.dumps(audit_record(audit), indent=1) + "\n")


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the contents of ``audit.json``, None where a data set has none (one prepared by an older version).

    Raises:
        DataError: It is not readable or of another format version.
    """
    path = folder / RECORD_FILE
    if not path.exists():
        return None
    return read_document(path, FORMAT_VERSION)


def _scene(scene: SceneAudit, names: tuple[str, ...]) -> dict[str, Any]:
    facts = scene.facts
    return {
        "name": scene.name,
        "split": scene.split,
        "image": scene.source_image,
        "label": scene.source_label,
        "pixel_size_m": scene.pixel_size_m,
        "num_tiles": scene.num_tiles,
        "known_bad": scene.known_bad,
        "num_px": facts.num_px,
        "valid_px": facts.valid_px,
        "ignored_px": facts.ignored_px,
        "label_px": dict(zip(names, facts.label_counts, strict=True)),
        "source_px": None if facts.source_counts is None else dict(zip(names, facts.source_counts, strict=True)),
        "coverage_px": list(facts.coverage),
        "num_changed": facts.num_changed,
        "unknown": dict(facts.unknown),
        "shift": None if scene.shift is None else asdict(scene.shift),
    }
