"""Labels with eroded borders, made from full ones.

The ISPRS 2-D semantic labelling benchmark scores a second time with a reference whose class borders are eroded by a
circular disc of 3 px radius, so that the vagueness of hand-drawn borders does not count; the eroded pixels are ignored
(``noBoundary`` files). ISPRS gives the radius and the shape, no code. Read here as the erosion of each class by the
disc of pixels with x² + y² <= 3²: a pixel stays if all pixels whose centres lie within 3 px of its own have its class.
The band along a border between two classes is then 6 px wide, 3 on either side of a straight one.

Where the words leave it open: scene edges do not erode, since the ground goes on beyond them; ignored ground does not
erode its neighbours, since it is no class, and stays ignored.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ctrs.errors import UsageError
from ctrs.metrics.neighbourhoods import reduce_disc

ISPRS_RADIUS_PX = 3.0
"""Radius of the disc that ISPRS erodes with."""


def erode_labels(
    mask: npt.NDArray[np.uint8], radius_px: float = ISPRS_RADIUS_PX, *, ignore_index: int = 255
) -> npt.NDArray[np.uint8]:
    """Return the mask with the pixels along class borders ignored.

    A scene may be eroded piece by piece: with ``radius_px`` of what surrounds it, rounded down, a piece's own pixels
    are those of the whole scene.

    Args:
        mask: uint8 (H, W), class index or ``ignore_index``.
        radius_px: Pixels with another class within this distance, between centres, are ignored.
        ignore_index: Mask value of ignored pixels.

    Raises:
        UsageError: The radius is negative.

    >>> erode_labels(np.array([[0, 0, 0, 0, 1, 1, 1]], np.uint8), 2).tolist()
    [[0, 0, 255, 255, 255, 255, 1]]
    """
    if not (math.isfinite(radius_px) and radius_px >= 0):
        raise UsageError(f"eroded labels: radius_px {radius_px} found, expected 0 or more")
    # What is ignored, and what lies outside, is never the least nor the greatest. For that, values are looked at as
    # differences from the first value after ``ignore_index``, round the circle of bytes: it becomes 255.
    turned = mask + np.uint8(255 - ignore_index)
    reach = math.floor(radius_px)
    least = reduce_disc(np.pad(turned, reach, constant_values=255), radius_px, np.minimum)
    # One more turn makes it 0, and leaves the order of all others.
    most = reduce_disc(np.pad(turned + np.uint8(1), reach), radius_px, np.maximum) - np.uint8(1)
    eroded = mask.copy()
    eroded[(least != turned) | (most != turned)] = ignore_index
    return eroded
