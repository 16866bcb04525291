"""The estimate of how far a label lies from its image: on real imagery, and on noise, of which nothing may be said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.features import rasterize
from scipy.ndimage import gaussian_filter

from ctrs.classes import IGNORE_INDEX, Mask
from ctrs.raster.geotiff import open_raster
from ctrs.tiles.alignment import MAX_SHIFT_PX, border_px, correlate, estimate_shift, no_correlation, shift_of
from ctrs.tiles.audit import Shift
from ctrs.tiles.displacement import MIN_SCORE, is_displaced

SHIFTS = [(0, 0), (3, 5), (8, -6), (12, 0)]

Windows = list[tuple[np.ndarray, np.ndarray, Mask]]


def moved(mask: Mask, cols: int, rows: int) -> Mask:
    """Move a mask to the right and down; what comes in is ignored."""
    out = np.full_like(mask, IGNORE_INDEX)
    height, width = mask.shape
    out[max(0, rows) : height + min(0, rows), max(0, cols) : width + min(0, cols)] = mask[
        max(0, -rows) : height - max(0, rows), max(0, -cols) : width - max(0, cols)
    ]
    return out


def windows(pixels: np.ndarray, valid: np.ndarray, mask: Mask, *, edge: int = 512, number: int = 6) -> Windows:
    """Return the windows with most border."""
    places = [
        np.s_[row : row + edge, col : col + edge]
        for row in range(0, max(1, mask.shape[0] - edge + 1), edge)
        for col in range(0, max(1, mask.shape[1] - edge + 1), edge)
    ]
    places.sort(key=lambda place: -border_px(mask[place]))
    return [(pixels[(slice(None), *place)], valid[place], mask[place]) for place in places[:number]]


def with_polygons(image: Path, label: Path) -> tuple[np.ndarray, np.ndarray, Mask]:
    import geopandas

    with open_raster(image) as dataset:
        frame = geopandas.read_file(label).to_crs(dataset.crs.to_wkt())
        mask = rasterize(frame.geometry, out_shape=dataset.shape, transform=dataset.transform, dtype="uint8")
        return dataset.read([1, 2, 3]), dataset.dataset_mask() > 0, mask


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("oam_fair_buildings/scenes/kampala_a_z20.tif", "oam_fair_buildings/labels/kampala_a.geojson"),
        ("oam_fair_buildings/scenes/zanzibar_b_z20.tif", "oam_fair_buildings/labels/zanzibar_b.geojson"),
        ("oam_banepa_urban/scene/banepa_urban.tif", "oam_banepa_urban/labels/buildings.geojson"),
        (
            "nrcan_gdl_fixtures/massachusetts_1m/22978945_15.tif",
            "nrcan_gdl_fixtures/massachusetts_1m/22978945_15.gpkg",
        ),
    ],
)
def test_real_labels_fit_and_moved_ones_are_found(real_data: Path, image: str, label: str) -> None:
    pixels, valid, mask = with_polygons(real_data / image, real_data / label)
    for cols, rows in SHIFTS:
        shift = estimate_shift(windows(pixels, valid, moved(mask, cols, rows)))
        assert shift is not None
        assert shift.score > MIN_SCORE
        assert (shift.cols, shift.rows) == pytest.approx((-cols, -rows), abs=1.5)
        assert is_displaced(shift) == ((cols, rows) != (0, 0))


@pytest.mark.slow
def test_no_real_chip_is_called_displaced(real_data: Path) -> None:
    label = real_data / "oam_banepa_urban/labels/buildings.geojson"
    total, number = no_correlation(), 0
    for image in sorted((real_data / "oam_banepa_urban/chips").glob("*.tif")):
        content = with_polygons(image, label)
        shift = estimate_shift([content])
        assert shift is None or not is_displaced(shift), image
        total += correlate(content[0], content[1], moved(content[2], 8, -6))
        number += shift is not None
    assert number == 48
    together = shift_of(total)
    assert together is not None
    assert is_displaced(together)
    assert (together.cols, together.rows) == pytest.approx((-8, 6), abs=1)


def test_sixteen_bit_and_holes_are_no_matter(real_data: Path) -> None:
    pixels, valid, mask = with_polygons(
        real_data / "oam_fair_buildings/scenes/kampala_a_z20.tif",
        real_data / "oam_fair_buildings/labels/kampala_a.geojson",
    )
    plain = estimate_shift(windows(pixels, valid, moved(mask, 3, 5)))
    valid = valid.copy()
    valid[100:160, 200:500] = False
    noisy = pixels.astype(np.uint16) * 200
    noisy[:, ~valid] = 65535
    holed = estimate_shift(windows(noisy, valid, moved(mask, 3, 5)))
    assert plain is not None
    assert holed is not None
    assert (holed.cols, holed.rows) == pytest.approx((plain.cols, plain.rows), abs=0.5)


def test_nothing_is_said_of_noise() -> None:
    rng = np.random.default_rng(5)
    for size in (64, 128, 256, 512) * 6:
        pixels = rng.integers(0, 256, (3, size, size)).astype(np.uint8)
        coarse = rng.integers(0, 3, (size // 8, size // 8)).astype(np.uint8)
        shift = estimate_shift([(pixels, np.ones((size, size), bool), coarse.repeat(8, 0).repeat(8, 1))])
        assert shift is None or shift.score < MIN_SCORE


def test_nothing_is_said_where_there_is_nothing_to_compare() -> None:
    pixels, valid = np.zeros((1, 80, 80), np.uint8), np.ones((80, 80), bool)
    mask = np.zeros((80, 80), np.uint8)
    assert estimate_shift([(pixels, valid, mask)]) is None, "no border"
    mask[:, 40:] = IGNORE_INDEX
    assert border_px(mask) == 0, "the end of what is labelled is no border"
    mask[:, 40:] = 1
    assert border_px(mask) == 160
    flat = estimate_shift([(pixels, valid, np.tile(mask, (1, 1)))])
    assert flat is None, "too little border"
    assert estimate_shift([(pixels, ~valid, mask)]) is None, "no imagery"
    assert estimate_shift([]) is None


def test_strength_is_the_sum_over_border_pixels() -> None:
    """Compare the Fourier transforms with plain sums."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(2, 50, 70)).astype(np.float32)
    valid = rng.random((50, 70)) > 0.05
    mask = rng.integers(0, 2, (5, 7)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
    found = correlate(pixels, valid, mask)
    grey = np.where(valid, pixels.mean(axis=0), 0)
    down, across = np.zeros_like(grey), np.zeros_like(grey)
    down[1:-1], across[:, 1:-1] = grey[2:] - grey[:-2], grey[:, 2:] - grey[:, :-2]
    usable = np.zeros_like(valid)
    usable[1:-1, 1:-1] = valid[1:-1, 1:-1] & valid[:-2, 1:-1] & valid[2:, 1:-1] & valid[1:-1, :-2] & valid[1:-1, 2:]
    is_border = np.zeros(mask.shape, bool)
    for row in range(50):
        for col in range(70):
            for near_row, near_col in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
                if 0 <= near_row < 50 and 0 <= near_col < 70:
                    is_border[row, col] |= mask[row, col] != mask[near_row, near_col]
    for shift_rows, shift_cols in ((0, 0), (2, -3), (-16, 16)):
        expected = sum(
            usable[row + shift_rows, col + shift_cols]
            for row, col in np.argwhere(is_border).tolist()
            if 0 <= row + shift_rows < 50 and 0 <= col + shift_cols < 70
        )
        place = MAX_SHIFT_PX + shift_rows, MAX_SHIFT_PX + shift_cols
        assert found.border.sum(axis=0)[place] == pytest.approx(expected, abs=0.01)
    assert (found.strength.sum(axis=0) <= 2 * found.border.sum(axis=0) + 0.01).all()


def test_shifts_of_more_than_two_pixels_are_called_displaced() -> None:
    assert not is_displaced(Shift(cols=1.2, rows=-1.5, score=9))
    assert is_displaced(Shift(cols=1.2, rows=-1.7, score=9))
    assert not is_displaced(Shift(cols=8, rows=0, score=MIN_SCORE - 0.1))


def test_fractions_of_a_pixel_are_told() -> None:
    """Move labels by tenths of a pixel, on a drawing of them ten times as fine."""
    rng = np.random.default_rng(3)
    fine = gaussian_filter(rng.normal(size=(3000, 3000)).astype(np.float32), 100) > 0
    drawn = fine[200:2800, 200:2800].reshape(260, 10, 260, 10).mean(axis=(1, 3)) * 120 + 60
    pixels = (drawn + rng.normal(0, 8, drawn.shape)).clip(0, 255).astype(np.uint8)[None]
    for distance in (0.5, 1.8, 2.3):
        for angle in np.deg2rad(range(0, 360, 45)):
            cols, rows = round(10 * distance * np.cos(angle)), round(10 * distance * np.sin(angle))
            label = fine[205 - rows : 2805 - rows : 10, 205 - cols : 2805 - cols : 10].astype(np.uint8)
            shift = estimate_shift([(pixels, np.ones(drawn.shape, bool), label)])
            assert shift is not None
            assert (shift.cols, shift.rows) == pytest.approx((-cols / 10, -rows / 10), abs=0.3)
            assert is_displaced(shift) == (distance > 2)


def test_a_few_barns_give_no_estimate_to_be_trusted(real_data: Path) -> None:
    """The label that its origin calls shifted has too few barns for an estimate that could be trusted."""
    folder = real_data / "nrcan_gdl_fixtures/quebec_aerial_chips"
    with rasterio.open(folder / "image_30cm.tif") as image, rasterio.open(folder / "label_30cm.tif") as label:
        shift = estimate_shift([(image.read(), image.dataset_mask() > 0, label.read(1))])
    assert shift is not None
    assert not is_displaced(shift)
