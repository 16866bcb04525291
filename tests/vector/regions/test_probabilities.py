from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from ctrs.config import VectorizeConfig
from ctrs.errors import DataWarning, InputNotFoundError, LabelError, RasterError
from ctrs.raster.cog import MaskClass
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.vector.regions.probabilities import NO_BAND, ClassProbabilities, find_probabilities, open_probabilities

UTM = Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)
GROUND, HOUSE, TREE = (
    MaskClass(value=value, name=name, color=(value, 0, 0))
    for value, name in ((0, "background"), (1, "building"), (4, "tree"))
)


def write(
    path: Path,
    values: np.ndarray,
    names: tuple[str, ...] = (),
    *,
    transform: Affine = UTM,
    tags: dict[str, str] | None = None,
) -> Path:
    as_bytes = values.dtype == np.uint8
    kind = {} if as_bytes else {"NBITS": "16"}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(values),
        height=values.shape[1],
        width=values.shape[2],
        dtype=values.dtype,
        nodata=255 if as_bytes else np.nan,
        crs="EPSG:32633",
        transform=transform,
        **kind,
    ) as dataset:
        dataset.write(values)
        if names:
            dataset.descriptions = names
            dataset.update_tags(CTRS_PROBABILITIES="uint8" if as_bytes else "float16")
        dataset.update_tags(**(tags or {}))
    return path


def opened(
    path: Path, mask: Path, classes: tuple[MaskClass, ...] = (GROUND, HOUSE), *, named: bool = True
) -> ClassProbabilities:
    with open_raster(mask) as dataset:
        grid = Grid.of(dataset)
    found = open_probabilities(path, mask, grid, classes, named=named)
    assert found is not None
    return found


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return write(tmp_path / "scene_mask.tif", np.zeros((1, 6, 5), np.uint8), tags={"CTRS_JOB": "one"})


def stored(dtype: type, bands: int = 2) -> np.ndarray:
    shares = np.random.default_rng(0).dirichlet(np.ones(bands), size=(6, 5)).transpose(2, 0, 1)
    return (shares * 254).round().astype(np.uint8) if dtype == np.uint8 else shares.astype(np.float32)


@pytest.mark.parametrize(("dtype", "atol"), [(np.uint8, 1e-6), (np.float32, 1e-3)])
def test_both_number_formats_give_probabilities_and_nan_for_nodata(
    tmp_path: Path, mask: Path, dtype: type, atol: float
) -> None:
    values = stored(dtype)
    values[:, 2, 3] = 255 if dtype == np.uint8 else np.nan
    found = opened(write(tmp_path / "p.tif", values, ("building", "background")), mask)
    expected = values / (254.0 if dtype == np.uint8 else 1.0)
    expected[:, 2, 3] = np.nan
    np.testing.assert_allclose(found.read(0, 6), expected, atol=atol)
    # By the value of a class, not by the place of its band.
    np.testing.assert_allclose(found.read(1, 4, [1, 0]), expected[:, 1:4], atol=atol)
    np.testing.assert_allclose(found.read(1, 4, [0]), expected[1:, 1:4], atol=atol)
    assert found.complete


def test_blocks_of_rows_share_a_row_and_cover_the_part(tmp_path: Path, mask: Path) -> None:
    found = opened(write(tmp_path / "p.tif", stored(np.uint8), ("background", "building")), mask)
    blocks = list(found.blocks(1, 6, block_rows=2))
    assert [(row, values.shape) for row, values in blocks] == [(1, (2, 3, 5)), (3, (2, 3, 5)), (5, (2, 1, 5))]
    for row, values in blocks:
        np.testing.assert_array_equal(values, found.read(row, row + values.shape[1]))


def test_one_class_without_a_band_is_what_the_others_leave(tmp_path: Path, mask: Path) -> None:
    values = stored(np.uint8, 3)
    path = write(tmp_path / "p.tif", values[:2], ("background", "tree"))
    found = opened(path, mask, (GROUND, HOUSE, TREE))
    assert not found.complete
    np.testing.assert_allclose(found.read(0, 6, [1])[0], 1 - values[:2].sum(axis=0) / 254.0, atol=1e-6)
    # Of two such classes nobody knows which share is whose; nor where a band is of a class that the mask lacks.
    alone = opened(write(tmp_path / "q.tif", values[:1], ("tree",)), mask, (GROUND, HOUSE, TREE))
    assert alone.band_of_value[[0, 1, 4]].tolist() == [NO_BAND, NO_BAND, 0]
    assert np.isnan(alone.read(0, 6, [1])).all()
    foreign = opened(write(tmp_path / "r.tif", values[:2], ("building", "car")), mask)
    assert foreign.band_of_value[[0, 1]].tolist() == [NO_BAND, 0]


def test_the_raster_beside_the_mask_is_found_unless_told_otherwise(tmp_path: Path, mask: Path) -> None:
    assert find_probabilities(mask, VectorizeConfig()) is None
    beside = write(tmp_path / "scene_probabilities.tif", stored(np.uint8), ("background", "building"))
    other = write(tmp_path / "other.tif", stored(np.uint8), ("background", "building"))
    assert find_probabilities(mask, VectorizeConfig()) == beside
    assert find_probabilities(mask, VectorizeConfig(use_probabilities=False)) is None
    assert find_probabilities(mask, VectorizeConfig(probabilities=other)) == other
    with pytest.raises(InputNotFoundError, match=r"--probabilities .*lost\.tif: not found"):
        find_probabilities(mask, VectorizeConfig(probabilities=tmp_path / "lost.tif"))


def test_what_does_not_fit_is_refused_when_named_and_left_alone_when_beside(tmp_path: Path, mask: Path) -> None:
    names = ("background", "building")
    cases = {
        "corners up to 2 pixels": write(
            tmp_path / "a.tif", stored(np.uint8), names, transform=UTM @ Affine.translation(2, 0)
        ),
        "size 4 x 6": write(tmp_path / "b.tif", stored(np.uint8)[:, :, :4], names),
        "without tag CTRS_PROBABILITIES": write(tmp_path / "c.tif", stored(np.uint8)),
        "probabilities of tree found": write(tmp_path / "d.tif", stored(np.uint8)[:1], ("tree",)),
    }
    with open_raster(mask) as dataset:
        grid = Grid.of(dataset)
    for message, path in cases.items():
        with pytest.raises((RasterError, LabelError), match=message) as raised:
            open_probabilities(path, mask, grid, (GROUND, HOUSE), named=True)
        assert "\n" not in str(raised.value)
        with pytest.warns(DataWarning, match=message):
            assert open_probabilities(path, mask, grid, (GROUND, HOUSE), named=False) is None


def test_probabilities_of_another_prediction_are_left_alone_unless_named(tmp_path: Path, mask: Path) -> None:
    names = ("background", "building")
    path = write(tmp_path / "scene_probabilities.tif", stored(np.uint8), names, tags={"CTRS_JOB": "two"})
    with open_raster(mask) as dataset:
        grid = Grid.of(dataset)
    with pytest.warns(DataWarning, match="another prediction"):
        assert open_probabilities(path, mask, grid, (GROUND, HOUSE), named=False) is None
    assert opened(path, mask).names == names
    same = write(tmp_path / "scene_probabilities.tif", stored(np.uint8), names, tags={"CTRS_JOB": "one"})
    assert opened(same, mask, named=False).names == names
