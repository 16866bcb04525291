"""What a run began from: ``init.json`` keeps it, so that nothing of the source is needed to go on with the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ctrs.errors import DataError
from ctrs.jobs import write_text

ORIGIN_FILE = "init.json"


def write_origin(run_dir: Path, origin: Mapping[str, Any]) -> None:
    """Keep what ``Transfer.origin`` says in a run's folder."""
    write_text(run_dir / ORIGIN_FILE, json.dumps(dict(origin), indent=1) + "\n")


def read_origin(run_dir: Path) -> dict[str, Any]:
    """Return what a run began from, empty where it began from no model of ctrs.

    Raises:
        DataError: The file is damaged.
    """
    path = run_dir / ORIGIN_FILE
    if not path.exists():
        return {}
    try:
        origin = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable ({error}); move it away, and say what the run began from") from error
    return cast(dict[str, Any], origin) if isinstance(origin, dict) else {}
