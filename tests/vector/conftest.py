"""Masks on disk for the tests of polygons."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

NAMES = ("background", "building", "tree", "water")
UTM = Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)

WriteMask = Callable[..., Path]


@pytest.fixture
def write_mask(tmp_path: Path) -> WriteMask:
    """Write labels as a mask that ctrs would write: nodata 255, class table in a tag."""

    def write(
        labels: npt.NDArray[np.uint8],
        *,
        name: str = "scene_mask.tif",
        crs: str | None = "EPSG:32633",
        transform: Affine = UTM,
        nodata: float | None = 255,
        classes: tuple[str, ...] | None = NAMES,
    ) -> Path:
        path = tmp_path / name
        bands = labels if labels.ndim == 3 else labels[None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                height=bands.shape[1],
                width=bands.shape[2],
                count=bands.shape[0],
                dtype=bands.dtype,
                crs=crs,
                transform=transform,
                nodata=nodata,
            ) as dataset:
                dataset.write(bands)
                if classes is not None:
                    rows = [{"value": i, "name": n, "color": [i, i, i]} for i, n in enumerate(classes)]
                    dataset.update_tags(CTRS_CLASSES=json.dumps(rows))
        return path

    return write
