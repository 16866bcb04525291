"""Pictures: size, places and colours of what is drawn, not taste."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from matplotlib.image import imread

from ctrs.classes import BUILDING_CLASSES, IGNORE_INDEX
from ctrs.errors import BandMismatchError, OutputError, UsageError
from ctrs.raster.bands import Bands
from ctrs.report.pictures import UNLABELLED_COLOR, comparison_picture, display_rgb

BUILDING = np.array(BUILDING_CLASSES.colors[1])


def pixels(path):
    return np.rint(imread(path)[..., :3] * 255).astype(int)


def near(picture, color):
    return (np.abs(picture - np.array(color)) <= 6).all(axis=-1)


@pytest.fixture
def scene():
    image = np.full((3, 200, 200), 60, np.uint8)
    truth, pred = np.zeros((2, 200, 200), np.uint8)
    truth[40:120, 40:120] = pred[50:130, 40:120] = 1
    truth[180:] = IGNORE_INDEX
    return image, truth, pred


def test_panels_stand_side_by_side(tmp_path, scene):
    image, truth, pred = scene
    house = shapely.Polygon([(40, 50), (120, 50), (120, 130), (40, 130)], [[(70, 80), (90, 80), (90, 100), (70, 100)]])
    path = comparison_picture(tmp_path / "sub" / "demo.png", image, truth, pred, [house], BUILDING_CLASSES)
    picture = pixels(path)
    height, width = picture.shape[:2]
    assert (width, height) == (2000, pytest.approx(565, abs=25))
    quarter = [picture[:, width * i // 4 : width * (i + 1) // 4] for i in range(4)]
    panel_px = (2000 - 5 * 14) / 4
    expected = (80 / 200 * panel_px) ** 2
    upper = slice(0, int(34 + panel_px))
    assert not near(quarter[0][upper], BUILDING).any()
    for panel in quarter[1:3]:
        assert near(panel[upper], BUILDING).sum() == pytest.approx(expected, rel=0.03)
    rows = [np.flatnonzero(near(panel[upper], BUILDING).any(axis=1))[0] for panel in quarter[1:3]]
    assert rows[1] - rows[0] == pytest.approx(10 / 200 * panel_px, abs=2)  # the prediction lies 10 px lower
    assert near(quarter[1][upper], UNLABELLED_COLOR).sum() == pytest.approx(0.1 * panel_px**2, rel=0.03)
    assert near(quarter[2][upper], UNLABELLED_COLOR).sum() < 100  # grey edges of letters
    yellow = near(quarter[3][upper], (255, 230, 0))
    assert yellow.any()
    assert not any(near(panel[upper], (255, 230, 0)).any() for panel in quarter[:3])
    cols = np.flatnonzero(yellow.any(axis=0))
    assert cols[-1] - cols[0] == pytest.approx(80 / 200 * panel_px, abs=4)
    middle = quarter[3][34 + int(90 / 200 * panel_px), int(80 / 200 * panel_px)]  # the hole is not filled
    np.testing.assert_allclose(middle, (60, 60, 60), atol=3)


def test_panels_may_be_left_out_and_geometries_mixed(tmp_path, scene):
    image, _, pred = scene
    mixed = [
        shapely.MultiPolygon([shapely.box(1, 1, 9, 9), shapely.box(20, 20, 60, 60)]),
        shapely.GeometryCollection([shapely.Point(3, 3), shapely.box(90, 90, 120, 120)]),
        shapely.Polygon(),
        shapely.LineString([(0, 0), (5, 5)]),
    ]
    assert pixels(comparison_picture(tmp_path / "a.png", image, None, pred, mixed, BUILDING_CLASSES)).shape[1] == 2000
    comparison_picture(tmp_path / "b.png", image, None, None, None, BUILDING_CLASSES)
    comparison_picture(tmp_path / "c.png", image, None, None, [], BUILDING_CLASSES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "c.png"]


def test_what_cannot_be_drawn_is_refused(tmp_path, scene):
    image, truth, pred = scene
    with pytest.raises(UsageError, match=r"mask \(200, 199\) and image \(200, 200\) differ in size"):
        comparison_picture(tmp_path / "a.png", image, truth, pred[:, 1:], None, BUILDING_CLASSES)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"a\.png: picture not written"):
        comparison_picture(tmp_path / "file" / "a.png", image, truth, pred, None, BUILDING_CLASSES)


def test_pictures_are_the_same_each_time(tmp_path, scene):
    image, truth, pred = scene
    first, second = (
        comparison_picture(tmp_path / name, image, truth, pred, [], BUILDING_CLASSES).read_bytes() for name in "ab"
    )
    assert first == second


def bands_of(names, dtype="uint16", low=100.0, high=1100.0):
    n = len(names)
    return Bands(names=names, dtype=dtype, low=(low,) * n, high=(high,) * n, mean=(500.0,) * n, std=(100.0,) * n)


def test_display_takes_red_green_blue_by_name_and_the_statistics():
    values = np.stack([np.full((2, 2), v, np.uint16) for v in (100, 350, 600, 2000)])
    image = display_rgb(values, bands_of(("nir", "blue", "green", "red")))
    assert image[:, 0, 0].tolist() == [255, 128, 64]
    image = display_rgb(values, bands_of(("nir", "a", "b", "c")))
    assert image[:, 0, 0].tolist() == [0, 64, 128]
    with pytest.raises(BandMismatchError):
        display_rgb(values[:3], bands_of(("nir", "a", "b", "c")))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_display_stretches_any_dtype_and_band_count(dtype, count):
    values = np.random.default_rng(0).normal(500, 100, (count, 40, 50)).astype(dtype)
    if dtype is np.float32:
        values[0, 0, 0] = np.nan
    valid = np.ones((40, 50), bool)
    valid[:, :5] = False
    values[:, ~valid] = 30_000
    image = display_rgb(values, valid=valid)
    assert image.shape == (3, 40, 50)
    assert image.dtype == np.uint8
    assert (image[:, ~valid] == 255).all()
    assert 100 < image[:, valid].mean() < 156
    if count < 3:
        assert (image[0] == image[1]).all()
    assert (values[:, ~valid] == 30_000).all()


def test_display_leaves_bytes_alone():
    values = np.random.default_rng(0).integers(0, 256, (3, 9, 9)).astype(np.uint8)
    np.testing.assert_array_equal(display_rgb(values), values)
    flat = np.zeros((1, 3, 3), np.float32)
    assert (display_rgb(flat) == 0).all()
    assert (display_rgb(np.full((1, 3, 3), np.nan, np.float32)) == 0).all()
