"""What stands beside a mask: its log, and on request a QGIS style and a STAC item.

They are written when the mask is whole but not yet in place: a mask that stands under its name has its records.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctrs.errors import CtrsError, OutputExistsError
from ctrs.inference.prediction_log import KIND, PredictionLog, log_path, mapped_at, write_log
from ctrs.raster.cog import read_class_tag
from ctrs.raster.confidence import confidence_path
from ctrs.raster.geotiff import open_raster
from ctrs.raster.probabilities import probabilities_path
from ctrs.report.mask_stac import MaskOrigin, acquired_at, write_mask_item
from ctrs.report.mask_stac import item_path as mask_item_path
from ctrs.report.qgis_style import qgis_style, style_path, write_style
from ctrs.report.stac_item import item_path as model_item_path


@dataclass(frozen=True, kw_only=True)
class WantedRecords:
    """What is to stand beside a mask, and what it was made from.

    Args:
        scene: The raster that was mapped, as ``open_raster`` takes it; None where it is no longer there.
        weights: Weight file of the model, beside which its own STAC item may stand; None for a network in memory.
        style: A QGIS style.
        stac: A STAC item.
    """

    scene: Path | str | None
    weights: Path | None
    style: bool = False
    stac: bool = False


def refuse_foreign_records(dst: Path, wanted: WantedRecords) -> None:
    """Refuse to replace files where records go that ctrs did not write for a mask, whatever the user allows.

    Args:
        dst: Where the mask stands, or will stand.
        wanted: What is to be written beside the log.

    Raises:
        OutputExistsError: Such a file stands there.
    """
    own = {log_path(dst): _is_own_log(log_path(dst))}
    if wanted.style:
        own[style_path(dst)] = _has_own_style(dst)
    if wanted.stac:
        own[mask_item_path(dst)] = is_own_item(mask_item_path(dst))
    for path, is_own in own.items():
        if path.exists() and not is_own:
            raise OutputExistsError(
                f"{path}: stands there and is not what ctrs predict wrote for this mask, so it is not replaced; choose "
                "another name with -o, or move it away"
            )


def write_records(staged: Path, dst: Path, log: PredictionLog, wanted: WantedRecords) -> tuple[Path, ...]:
    """Write the records of a mask that is about to be put in place.

    Args:
        staged: The mask, whole, under another name.
        dst: Where it will stand; the records are written beside it.
        log: What happened.
        wanted: What to write beside the log.

    Returns:
        The files that were written.

    Raises:
        OutputError: One cannot be written.
    """
    written = [write_log(dst, log)]
    if wanted.style or _has_own_style(dst):
        written.append(write_style(staged, final=dst))
    if wanted.stac or is_own_item(mask_item_path(dst)):  # an item of the mask before would tell of another file
        written.append(write_mask_item(staged, _origin(dst, wanted, datetime.now(UTC)), final=dst))
    return tuple(written)


def complete_records(dst: Path, wanted: WantedRecords) -> tuple[Path, ...]:
    """Write the style and the item of a finished mask, where they are wanted; the mask stays as it is.

    Args:
        dst: The mask.
        wanted: What to write.

    Returns:
        The files that were written.

    Raises:
        OutputError: One cannot be written.
    """
    written: list[Path] = []
    if wanted.style:
        written.append(write_style(dst))
    if wanted.stac:
        written.append(write_mask_item(dst, _origin(dst, wanted, mapped_at(dst))))
    return tuple(written)


def _is_own_log(path: Path) -> bool:
    return _read_object(path).get("kind") == KIND


def is_own_item(path: Path) -> bool:
    """Tell whether a file is a STAC item that ctrs wrote."""
    properties = _read_object(path).get("properties")
    return isinstance(properties, dict) and "ctrs" in (properties.get("processing:software") or {})


def _read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file, empty where it holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _has_own_style(dst: Path) -> bool:
    """Tell whether the style that stands there is what ctrs wrote for the mask that stands there: it goes with it."""
    try:
        return style_path(dst).read_text(encoding="utf-8") == qgis_style(read_class_tag(dst))
    except (OSError, CtrsError):
        return False


def _origin(dst: Path, wanted: WantedRecords, mapped: datetime) -> MaskOrigin:
    item = None if wanted.weights is None else model_item_path(wanted.weights)
    return MaskOrigin(
        scene=wanted.scene,
        model=item if item is not None and item.is_file() else None,
        mapped=mapped,
        acquired=None if wanted.scene is None else _acquired(wanted.scene),
        beside={
            "confidence": confidence_path(dst),
            "probabilities": probabilities_path(dst),
            "style": style_path(dst),
            "log": log_path(dst),
        },
    )


def _acquired(scene: Path | str) -> datetime | None:
    try:
        with open_raster(scene) as dataset:
            return acquired_at(dataset)
    except CtrsError:
        return None
