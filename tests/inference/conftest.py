"""Networks whose answer is known beforehand, and small scenes."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from torch import nn

from ctrs.classes import ClassMap, LandClass
from ctrs.inference import Predictor
from ctrs.raster.bands import Bands

UTM = Affine(0.2, 0, 5e5, 0, -0.2, 5.4e6)


class Identity(nn.Module):
    """Returns its input: each band is the logit of a class."""

    def forward(self, images):
        return images


class Edges(nn.Module):
    """A network whose logits depend on where a pixel lies in its window, as padding makes real ones do."""

    def __init__(self, in_channels=3, num_classes=3):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, num_classes, 5, padding=2)
        generator = np.random.default_rng(3)
        for parameter in self.parameters():
            parameter.data[:] = parameter.new_tensor(generator.normal(0, 1, tuple(parameter.shape)))

    def forward(self, images):
        return self.convolution(images)


def make_classes(count):
    return ClassMap(
        classes=tuple(LandClass(value=i, name=f"class {i}", color=(i, 100, 200)) for i in range(count)),
    )


def make_bands(count, dtype="uint8"):
    high = {"uint8": 255.0, "uint16": 4000.0, "int16": 4000.0}.get(dtype, 1.0)
    # One mean and deviation for all bands, so that standardizing keeps the order of a pixel's values.
    return Bands(
        names=tuple(f"band {i}" for i in range(count)),
        dtype=dtype,
        low=(0.0,) * count,
        high=(high,) * count,
        mean=(0.4 * high,) * count,
        std=(0.2 * high,) * count,
    )


@pytest.fixture(scope="session")
def make_predictor():
    """Return a function that makes a Predictor of three classes from three bands."""

    def make(network, count=3, dtype="uint8", **options):
        # In float32, whatever this machine's CPU computes fast: the same answers everywhere.
        options = {"window_px": 64, "overlap": 0.25, "device": "cpu", "precision": "fp32", **options}
        return Predictor(network, classes=make_classes(3), bands=make_bands(count, dtype), **options)

    return make


@pytest.fixture(scope="session")
def make_identity(make_predictor):
    """Return a function that makes a Predictor whose network returns its input."""

    def make(**options):
        return make_predictor(Identity(), **options)

    return make


@pytest.fixture(scope="session")
def edges(make_predictor):
    """A Predictor with position-dependent logits."""
    return make_predictor(Edges())


@pytest.fixture
def write_scene(tmp_path):
    """Return a function that writes (C, H, W) as a scene and returns its path."""

    def write(array, name="scene.tif", *, crs="EPSG:32633", transform=UTM, valid=None, **options):
        count, height, width = array.shape
        path = tmp_path / name
        profile = {"driver": "GTiff", "width": width, "height": height, "count": count, "dtype": array.dtype}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", **profile, crs=crs, transform=transform, **options) as file,
        ):
            file.write(array)
            if valid is not None:
                file.write_mask(valid)
        return path

    return write
