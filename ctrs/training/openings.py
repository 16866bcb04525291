"""How often a run looked at test scenes: figures of a test split that was opened often are no longer honest."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctrs.errors import DataError
from ctrs.jobs import write_text

OPENINGS_FILE = "test_openings.json"
FORMAT_VERSION = 1


def count_openings(folder: Path, split_hash: str) -> int:
    """Return how often the test split of some data was opened.

    Args:
        folder: The run's folder.
        split_hash: Of the prepared data; openings of other data are not counted.

    Raises:
        DataError: The record is damaged.
    """
    return sum(row.get("split_hash") == split_hash for row in _read(folder / OPENINGS_FILE))


def record_opening(folder: Path, split_hash: str, *, data: Path, weights: str) -> int:
    """Record one more opening and return how many there are of these data.

    Args:
        folder: The run's folder.
        split_hash: Of the prepared data.
        data: The prepared data.
        weights: Hash of the weights that are scored.

    Raises:
        DataError: The record is damaged.
        OutputError: It cannot be written.
    """
    path = folder / OPENINGS_FILE
    row = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": str(data),
        "split_hash": split_hash,
        "weights": weights,
    }
    rows = [*_read(path), row]
    write_text(path, json.dumps({"format_version": FORMAT_VERSION, "openings": rows}, indent=1) + "\n")
    return count_openings(folder, split_hash)


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
