"""How often a run looked at test scenes: figures of a test split that was opened often are no longer honest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctrs.config import SplitName
from ctrs.errors import DataError
from ctrs.jobs import write_text
from ctrs.tiles.manifest import Manifest

OPENINGS_FILE = "test_openings.json"
FORMAT_VERSION = 1


def ground_hash(manifest: Manifest, split: SplitName) -> str:
    """Return a hash of the ground of a split: the test's is the same whichever fold validates."""
    tiles = manifest.split(split)
    rows = sorted([tile.scene, *(int(number) for number in asdict(tile.window).values())] for tile in tiles)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def count_openings(folder: Path, manifest: Manifest) -> int:
    """Return how often the test split of some data was opened.

    Args:
        folder: The run's folder.
        manifest: The prepared data; openings of other test ground are not counted.

    Raises:
        DataError: The record is damaged.
    """
    ground, split_hash = ground_hash(manifest, "test"), manifest.split_hash
    # Records of earlier versions name the whole division only.
    return sum(
        row["test_hash"] == ground if "test_hash" in row else row.get("split_hash") == split_hash
        for row in _read(folder / OPENINGS_FILE)
    )


def record_opening(folder: Path, manifest: Manifest, *, weights: str) -> int:
    """Record one more opening and return how many there are of these data.

    Args:
        folder: The run's folder.
        manifest: The prepared data.
        weights: Hash of the weights that are scored.

    Raises:
        DataError: The record is damaged.
        OutputError: It cannot be written.
    """
    path = folder / OPENINGS_FILE
    row = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": str(manifest.root),
        "split_hash": manifest.split_hash,
        "test_hash": ground_hash(manifest, "test"),
        "weights": weights,
    }
    rows = [*_read(path), row]
    write_text(path, json.dumps({"format_version": FORMAT_VERSION, "openings": rows}, indent=1) + "\n")
    return count_openings(folder, manifest)


def times_before(openings: int) -> str:
    """Say how often the test split was opened before the last of some openings.

    >>> times_before(1), times_before(2), times_before(4)
    ('never before', 'once before', '3 times before')
    """
    return {1: "never before", 2: "once before"}.get(openings, f"{openings - 1} times before")


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = document["openings"]
        if document["format_version"] != FORMAT_VERSION or not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"format_version {document['format_version']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not readable as the record of test openings ({error}); mend the file, or move it away and say so "
            "where the scores are published"
        ) from error
    return list(rows)
