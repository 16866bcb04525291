"""Small sources in the layouts that prepare_tiles reads."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

ISPRS_COLORS = np.array(
    [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0), (0, 0, 0)], np.uint8
)


class Maker:
    """Writes rasters and whole sources."""

    @staticmethod
    def raster(path: Path, pixels: np.ndarray, *, transform: Affine | None = None, **profile: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        bands = pixels if pixels.ndim == 3 else pixels[None]
        mask, colormap = profile.pop("mask", None), profile.pop("colormap", None)
        driver = {".png": "PNG", ".jpg": "JPEG"}.get(path.suffix, "GTiff")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with (
                rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
                rasterio.open(
                    path, "w", driver=driver, width=bands.shape[2], height=bands.shape[1], count=len(bands),
                    dtype=bands.dtype.name, transform=transform, **profile,
                ) as dataset,
            ):  # fmt: skip
                if colormap:
                    dataset.write_colormap(1, colormap)
                dataset.write(bands)
                if mask is not None:
                    dataset.write_mask(mask)
        return path

    @staticmethod
    def noise(height: int, width: int, *, count: int = 3, seed: int = 0, dtype: str = "uint8") -> np.ndarray:
        top = 256 if dtype == "uint8" else 4000
        return np.random.default_rng(seed).integers(1, top, (count, height, width)).astype(dtype)

    @staticmethod
    def indices(height: int, width: int, *, num: int = 6, seed: int = 0) -> np.ndarray:
        """Blocky class indices."""
        coarse = np.random.default_rng(seed + 99).integers(0, num, (height // 8 + 1, width // 8 + 1))
        return coarse.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8)

    def potsdam(
        self, root: Path, ids: Sequence[str] = ("2_10", "2_13"), *, size: int = 200, crs: str | None = "EPSG:32633",
        flat: bool = False, eroded: bool = True, padded: bool = False,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """Write scenes in Potsdam layout; returns the class indices of each."""
        truth: dict[str, np.ndarray] = {}
        for number, name in enumerate(ids):
            row, col = (int(part) for part in name.split("_"))
            shown = f"{row}_{col:02d}" if padded else name
            transform = Affine(0.05, 0, 366000 + col * size * 0.05, 0, -0.05, 5808000 - row * size * 0.05)
            labels = self.indices(size, size, seed=number)
            border = labels != np.roll(labels, 1, axis=1)
            truth[name] = labels
            folders = ("", "", "") if flat else ("2_Ortho_RGB/", "5_Labels_all/", "5_Labels_all_noBoundary/")
            image = root / f"{folders[0]}top_potsdam_{shown}_RGB.tif"
            self.raster(image, self.noise(size, size, seed=number), transform=transform if crs else None, crs=crs)
            if not crs:
                world = (transform.a, 0, 0, transform.e, transform.c + transform.a / 2, transform.f + transform.e / 2)
                image.with_suffix(".tfw").write_text("\n".join(map(str, world)))
            colors = ISPRS_COLORS[labels].transpose(2, 0, 1)
            self.raster(root / f"{folders[1]}top_potsdam_{shown}_label.tif", colors)
            if eroded:
                colors = ISPRS_COLORS[np.where(border, 6, labels)].transpose(2, 0, 1)
                self.raster(root / f"{folders[2]}top_potsdam_{shown}_label_noBoundary.tif", colors)
        return truth


@pytest.fixture(scope="session")
def make() -> Maker:
    return Maker()
