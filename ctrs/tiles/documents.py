"""JSON files of prepared data, which say of which format they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ctrs.errors import DataError


def read_document(path: Path, format_version: int) -> dict[str, Any]:
    """Return the contents of a file that ``ctrs prepare`` wrote.

    Args:
        path: The file.
        format_version: The version that can be read.

    Raises:
        DataError: It is not readable or of another format version.
    """
    again = "run `ctrs prepare` again with --overwrite"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable ({error}); {again}") from error
    version = document.get("format_version") if isinstance(document, Mapping) else None
    if version != format_version:
        raise DataError(f"{path}: format_version {version!r} found, expected {format_version}; {again}")
    return cast(dict[str, Any], document)
