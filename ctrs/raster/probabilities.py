"""The probability of each class at each pixel of a mask: a raster beside it, one band a class."""

from __future__ import annotations

from pathlib import Path

UINT8_STEPS = 254
"""Stored value of probability 1 in uint8; 255 is nodata."""

_MASK_SUFFIX, _SUFFIX = "_mask", "_probabilities"


def probabilities_path(mask: Path) -> Path:
    """Return where the probabilities of a mask stand.

    >>> probabilities_path(Path("city/scene_mask.tif")).as_posix()
    'city/scene_probabilities.tif'
    """
    return mask.with_name(f"{mask.stem.removesuffix(_MASK_SUFFIX)}{_SUFFIX}{mask.suffix}")
