from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter, label

from ctrs.config import VectorizeConfig
from ctrs.vector import vectorize
from ctrs.vector.regions.outlines import NO_REGION
from ctrs.vector.regions.runs import Runs
from ctrs.vector.regions.splitting import SplitRegions, split_regions

PIXEL = (0.5, 0.5)


def regions_of(mask: npt.NDArray[np.bool_]) -> Runs:
    runs = Runs.from_array(mask.astype(np.uint8))
    regions = runs.regions()
    drawn = runs.values > 0
    ids = np.full(len(regions), NO_REGION, np.int32)
    ids[drawn] = np.unique(regions[drawn], return_inverse=True)[1]
    return runs.with_values(ids)


def split(mask: npt.NDArray[np.bool_], **options: Any) -> SplitRegions:
    given_options = {"method": "erosion", "width_m": 3.0, "pixel_m": PIXEL, **options}
    return split_regions(regions_of(mask), **given_options)


def two_squares(neck_px: int, *, side_px: int = 20, length_px: int = 3) -> npt.NDArray[np.bool_]:
    mask = np.zeros((side_px + 4, 2 * side_px + length_px + 4), bool)
    mask[2 : 2 + side_px, 2 : 2 + side_px] = True
    mask[2 : 2 + side_px, 2 + side_px + length_px : 2 + 2 * side_px + length_px] = True
    top = 2 + (side_px - neck_px) // 2
    mask[top : top + neck_px, 2 : 2 + 2 * side_px + length_px] = True
    return mask


@pytest.mark.parametrize("method", ["erosion", "watershed"])
def test_a_narrow_neck_parts_two_buildings_at_its_narrowest(method: str) -> None:
    found = split(two_squares(4), method=method)
    labels = found.runs.to_array()
    assert found.sources.tolist() == [0, 0]
    left, right = (np.argwhere(labels == part)[:, 1] for part in (0, 1))
    assert left.max() < right.min()
    assert 21 <= left.max() <= 24


@pytest.mark.parametrize(("neck_px", "parts"), [(5, 2), (7, 1)])
def test_erosion_goes_by_the_necks_own_width(neck_px: int, parts: int) -> None:
    assert len(split(two_squares(neck_px)).sources) == parts


@pytest.mark.parametrize(("side_px", "parts"), [(24, 2), (16, 1)])
def test_watershed_goes_by_how_much_wider_the_building_is_on_both_sides(side_px: int, parts: int) -> None:
    found = split(two_squares(12, side_px=side_px), method="watershed")
    assert len(found.sources) == parts


def test_a_width_in_metres_means_the_same_at_any_pixel_size() -> None:
    fine = np.repeat(np.repeat(two_squares(5), 2, axis=0), 2, axis=1)
    assert len(split(fine, pixel_m=(0.25, 0.25)).sources) == 2
    wide = np.repeat(two_squares(5), 3, axis=1)
    assert len(split(wide, pixel_m=(0.5 / 3, 0.5)).sources) == 2
    assert len(split(fine).sources) == 1


@pytest.mark.parametrize("method", ["erosion", "watershed"])
def test_a_bite_and_a_hole_part_nothing(method: str) -> None:
    mask = np.zeros((30, 60), bool)
    mask[4:26, 4:56] = True
    rows, columns = np.mgrid[:30, :60]
    mask &= np.hypot(rows - 4, columns - 30) > 3.6
    mask &= np.hypot(rows - 15, columns - 45) > 2
    assert len(split(mask, method=method).sources) == 1


def test_what_would_be_too_small_stays_with_its_building() -> None:
    mask = two_squares(4)
    mask[:, 35:] = False
    assert len(split(mask).sources) == 2
    assert len(split(mask, min_area_m2=60.0).sources) == 1


def test_a_dip_of_probability_parts_a_building_without_a_neck() -> None:
    mask = np.zeros((30, 60), bool)
    mask[4:26, 4:56] = True
    probability = np.where(mask, 0.95, 0.05)
    assert len(split(mask, method="probability", probability=lambda window: probability[window.slices]).sources) == 1
    probability[:, 29:31] = 0.6
    found = split(mask, method="probability", probability=lambda window: probability[window.slices])
    labels = found.runs.to_array()
    assert len(found.sources) == 2
    assert 28 <= np.argwhere(labels == 0)[:, 1].max() <= 30
    assert len(split(mask).sources) == 1
    # A dip that does not reach across parts nothing, and where nothing is known there is no dip.
    for filler in (0.95, np.nan):
        probability[:12, 29:31] = filler
        assert len(split(mask, method="probability", probability=lambda w: probability[w.slices]).sources) == 1


def test_probability_without_probabilities_is_refused() -> None:
    with pytest.raises(ValueError, match="needs probabilities"):
        split(two_squares(4), method="probability")


def test_none_keeps_all_regions() -> None:
    found = split(two_squares(2), method="none")
    assert found.sources.tolist() == [0]


def blobs(noise: npt.NDArray[np.float64], level: float) -> npt.NDArray[np.bool_]:
    smooth = gaussian_filter(noise, 2.0)
    return np.asarray(smooth > np.quantile(smooth, level), bool)


noise_fields = hnp.arrays(np.float64, (32, 40), elements=st.floats(0, 1, width=16))


@pytest.mark.parametrize("method", ["erosion", "watershed", "probability"])
@settings(max_examples=25, deadline=None)
@given(noise=noise_fields, level=st.sampled_from([0.2, 0.4]), width_m=st.sampled_from([1.0, 3.0]))
def test_parts_cover_their_region_exactly_and_hang_together(
    method: str, noise: npt.NDArray[np.float64], level: float, width_m: float
) -> None:
    mask = blobs(noise, level)
    before = regions_of(mask)
    options: dict[str, Any] = {
        "method": method,
        "width_m": width_m,
        "probability": lambda window: noise[window.slices],
    }
    found = split(mask, **options)
    labels = found.runs.to_array()
    assert ((labels >= 0) == mask).all()
    assert (np.append(found.sources, NO_REGION)[labels] == before.to_array()).all()
    assert found.runs.count == Runs.from_array(labels).count
    for part, source in enumerate(found.sources.tolist()):
        assert label(labels == part)[1] == 1
        if (found.sources == source).sum() > 1:
            assert (labels == part).sum() * 0.25 >= 16.0
    # Parts are numbered by first pixel; no region's parts depend on what lies around it or where it lies.
    assert np.unique(labels[mask]).tolist() == list(range(len(found.sources)))
    moved = np.pad(mask, ((3, 5), (7, 2)))
    other = np.pad(noise, ((3, 5), (7, 2)))
    again = split(moved, **{**options, "probability": lambda window: other[window.slices]})
    assert (again.runs.to_array()[3:-5, 7:-2] == labels).all()
    for source in np.unique(found.sources).tolist():
        alone = split(before.to_array() == source, **options).runs.to_array()
        own = np.where(before.to_array() == source, labels, NO_REGION)
        assert (np.unique(own, return_inverse=True)[1] == np.unique(alone, return_inverse=True)[1]).all()


@pytest.mark.filterwarnings("ignore:.*no class names found")
def test_a_mask_is_parted_by_the_probabilities_beside_it(tmp_path: Path) -> None:
    def write(name: str, values: npt.NDArray[Any], **tags: str) -> Path:
        profile = {"width": values.shape[2], "height": values.shape[1], "count": len(values), "dtype": values.dtype}
        transform = Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)
        with rasterio.open(
            tmp_path / name, "w", driver="GTiff", crs="EPSG:32633", transform=transform, **profile
        ) as dataset:
            dataset.write(values)
            dataset.update_tags(**tags)
            if tags:
                dataset.nodata = 255
                dataset.descriptions = ("background", "building")
        return tmp_path / name

    building = np.full((400, 90), 10, np.uint8)
    # Two buildings far from each other, so that they are drawn in blocks of their own; each dips elsewhere.
    building[10:40, 5:65] = building[350:380, 20:80] = 240
    building[10:40, 24:26] = building[350:380, 54:56] = 160
    mask = write("town_mask.tif", (building > 127).astype(np.uint8)[None])
    write("town_probabilities.tif", np.stack([250 - building, building]), CTRS_PROBABILITIES="uint8")
    out = tmp_path / "parts.gpkg"
    vectorize(mask, out, VectorizeConfig(split="probability"))
    layer = geopandas.read_file(out)
    assert len(layer) == 4
    assert shapely.coverage_is_valid(layer.geometry.to_numpy())
    assert layer["area_m2"].to_numpy() == pytest.approx([150.0, 300.0, 262.5, 187.5], abs=10)
