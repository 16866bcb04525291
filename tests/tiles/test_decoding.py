"""Decoding through look-up tables against one pixel after the other, and the words for what is unknown."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrs.classes import IGNORE_INDEX, ClassMap, LandClass
from ctrs.errors import ConfigError, LabelError
from ctrs.raster.geotiff import open_raster
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.color_table import color_table, nearest_rows
from ctrs.tiles.decoding import (
    MAX_UNKNOWN_KINDS,
    decode_colors,
    decode_values,
    unknown_message,
    unknown_noun,
)
from ctrs.tiles.labels import DecodedLabel
from ctrs.tiles.raster_labels import RasterLabel

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

TOWN = ClassMap(
    classes=(
        LandClass(value=0, name="impervious surface", color=(255, 255, 255)),
        LandClass(value=3, name="building", color=(0, 0, 255)),
        LandClass(value=7, name="boundary", color=(0, 0, 0), ignored=True),
        LandClass(value=9, name="clutter", color=(255, 0, 0), scored=False),
    )
)
DTYPES = (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64)

channel = st.integers(0, 255)
some = st.integers(-300, 70_000)


@st.composite
def class_maps(draw: st.DrawFn, value: st.SearchStrategy[int] = some) -> ClassMap:
    count = draw(st.integers(1, 8))
    values = draw(st.lists(value, min_size=count, max_size=count, unique=True))
    colors = draw(st.lists(st.tuples(channel, channel, channel), min_size=count, max_size=count, unique=True))
    ignored = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    ignored[draw(st.integers(0, count - 1))] = False
    return ClassMap(
        classes=tuple(
            LandClass(value=v, name=f"class {i}", color=c, ignored=g)
            for i, (v, c, g) in enumerate(zip(values, colors, ignored, strict=True))
        )
    )


def naive_colors(
    rgb: np.ndarray, classes: ClassMap, tolerance: int, nearest: bool, valid: np.ndarray
) -> tuple[list[int], int, Counter[str], int | None]:
    """Decode one pixel after the other: mask, changed, unknown by text, first unknown."""
    mask: list[int] = []
    changed, unknown, first = 0, Counter[str](), None
    for number, color in enumerate(rgb.reshape(3, -1).T.tolist()):
        if not valid.ravel()[number]:
            mask.append(IGNORE_INDEX)
            continue
        for entry, index in zip(classes.classes, classes.row_indices, strict=True):
            if list(entry.color) == color:
                mask.append(index)
                break
        else:
            rows = [
                (sum((a - b) ** 2 for a, b in zip(entry.color, color, strict=True)), place)
                for place, entry in enumerate(classes.classes)
                if nearest or max(abs(a - b) for a, b in zip(entry.color, color, strict=True)) <= tolerance
            ]
            if rows:
                changed += 1
                mask.append(classes.row_indices[min(rows)[1]])
            else:
                unknown[str(tuple(color))] += 1
                first = number if first is None else first
                mask.append(IGNORE_INDEX)
    return mask, changed, unknown, first


def check_colors(seed: int, classes: ClassMap, tolerance: int, nearest: bool) -> None:
    rng = np.random.default_rng(seed)
    legend = np.array([entry.color for entry in classes.classes])
    pixels = legend[rng.integers(0, len(legend), 60)] + rng.integers(-6, 7, (60, 3)) * rng.integers(0, 2, (60, 1))
    rgb = np.concatenate([pixels.clip(0, 255), rng.integers(0, 256, (10, 3))]).astype(np.uint8).T.reshape(3, 7, 10)
    valid = rng.random((7, 10)) < 0.9
    mask, changed, unknown, first = naive_colors(rgb, classes, tolerance, nearest, valid)
    found = decode_colors(rgb, classes, valid=valid, tolerance=tolerance, nearest=nearest)
    assert found.mask.dtype == np.uint8
    assert found.mask.ravel().tolist() == mask
    assert found.num_changed == changed
    assert found.unknown == unknown
    assert found.first_unknown == (None if first is None else divmod(first, 10))


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), class_maps(), st.integers(0, 6))
def test_colors_decode_as_pixel_by_pixel(seed: int, classes: ClassMap, tolerance: int) -> None:
    colors = [entry.color for entry in classes.classes]
    gaps = [max(abs(a - b) for a, b in zip(p, q, strict=True)) for p in colors for q in colors if p != q]
    check_colors(seed, classes, min([tolerance, *((gap - 1) // 2 for gap in gaps)]), nearest=False)


@settings(max_examples=6)
@given(st.integers(0, 2**32 - 1), class_maps())
def test_nearest_colors_decode_as_pixel_by_pixel(seed: int, classes: ClassMap) -> None:
    check_colors(seed, classes, 0, nearest=True)


@pytest.mark.parametrize("num", [126, 127, 250])
@pytest.mark.parametrize("nearest", [False, True])
def test_large_tables(num: int, nearest: bool) -> None:
    colors = np.random.default_rng(num).permutation(32**3)[: num + 2]
    classes = ClassMap(
        classes=tuple(
            LandClass(value=i, name=str(i), color=(c % 32 * 8, c // 32 % 32 * 8, c // 1024 * 8), ignored=i in (5, 90))
            for i, c in enumerate(colors.tolist())
        )
    )
    check_colors(num, classes, 3, nearest)


def test_ties_go_to_the_first_row_and_every_color_to_its_nearest() -> None:
    colors = np.array([(10, 0, 0), (0, 10, 0), (255, 255, 255), (0, 0, 10), (12, 0, 0)])
    rows = nearest_rows(colors)
    assert [rows[0, 0, 0], rows[5, 5, 0], rows[0, 5, 5], rows[11, 0, 0]] == [0, 0, 1, 0]
    samples = np.random.default_rng(0).integers(0, 256, (3000, 3))
    distances = ((samples[:, None] - colors) ** 2).sum(axis=-1)
    assert rows[tuple(samples.T)].tolist() == distances.argmin(axis=1).tolist()


def test_tables_are_made_once() -> None:
    same = ClassMap(classes=tuple(TOWN.classes))
    assert color_table(TOWN, tolerance=2) is color_table(same, tolerance=2)
    assert color_table(TOWN, tolerance=2) is not color_table(TOWN, tolerance=3)


@given(class_maps(), st.data())
@settings(max_examples=20)
def test_colors_go_round(classes: ClassMap, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(classes.classes) - 1), min_size=1, max_size=30))
    rgb = np.array([classes.classes[row].color for row in rows], np.uint8).T[:, None]
    mask = decode_colors(rgb, classes).mask
    assert mask.tolist() == [[classes.row_indices[row] for row in rows]]
    painted = classes.encode_colors(mask, ignored_color=(1, 2, 3))
    learnt = mask != IGNORE_INDEX
    np.testing.assert_array_equal(painted[:, learnt], rgb[:, learnt])
    assert (painted[:, ~learnt] == np.array([[1], [2], [3]])).all()


def test_windows_larger_than_a_chunk() -> None:
    indices = np.random.default_rng(1).integers(0, 4, (301, 500))
    rgb = np.array([entry.color for entry in TOWN.classes], np.uint8)[indices].transpose(2, 0, 1)
    assert np.array_equal(decode_colors(rgb, TOWN).mask, np.array(TOWN.row_indices, np.uint8)[indices])


def test_colors_too_near_for_the_tolerance() -> None:
    near = ClassMap(
        classes=(LandClass(value=0, name="a", color=(10, 10, 10)), LandClass(value=1, name="b", color=(10, 14, 10)))
    )
    with pytest.raises(ConfigError, match="colour tolerance 2: 'a'"):
        decode_colors(np.full((3, 1, 1), 11, np.uint8), near, tolerance=2)


@pytest.mark.parametrize(
    "label", [np.zeros((4, 2, 2), np.uint8), np.zeros((2, 2), np.uint8), np.zeros((3, 2, 2), np.uint16)]
)
def test_labels_that_are_no_rgb_image_are_refused(label: np.ndarray) -> None:
    with pytest.raises(LabelError, match=r"scene\.tif: label of shape .* expected three bands of uint8"):
        decode_colors(label, TOWN, where="scene.tif")


wide = st.one_of(st.integers(-9999, 300), st.integers(60_000, 80_000))
widest = st.one_of(st.integers(0, 10), st.integers(-(2**53) + 1, 2**53 - 1))


@given(st.one_of(class_maps(), class_maps(wide), class_maps(widest)), st.sampled_from(DTYPES), st.data())
def test_values_decode_as_pixel_by_pixel(classes: ClassMap, dtype: Any, data: st.DataObject) -> None:
    if np.dtype(dtype).kind == "f":
        pixel = st.one_of(
            st.sampled_from([entry.value for entry in classes.classes]), st.integers(-(2**24), 2**24),
            st.sampled_from([0.5, math.nan, math.inf, -math.inf, 1e30]),
        )  # fmt: skip
    else:
        limits = np.iinfo(dtype)
        named = [entry.value for entry in classes.classes if limits.min <= entry.value <= limits.max]
        pixel = st.one_of(*([st.sampled_from(named)] if named else []), st.integers(limits.min, limits.max))
    values = np.array(data.draw(st.lists(pixel, min_size=4, max_size=4))).astype(dtype).reshape(2, 2)
    valid = np.array(data.draw(st.lists(st.booleans(), min_size=4, max_size=4))).reshape(2, 2)
    nodata = data.draw(st.sampled_from([None, math.nan, 0.0, 255.0]))
    table = dict(zip([entry.value for entry in classes.classes], classes.row_indices, strict=True))
    mask, unknown, first = [], Counter[str](), None
    for number, value in enumerate(values.ravel().tolist()):
        index = table.get(value)
        empty = nodata is not None and (value != value if math.isnan(nodata) else value == nodata)
        if valid.ravel()[number] and index is None and not empty:
            whole = isinstance(value, float) and math.isfinite(value) and abs(value) < 2**53 and value.is_integer()
            unknown[str(int(value)) if whole else str(values.ravel()[number])] += 1
            first = number if first is None else first
        mask.append(index if index is not None and valid.ravel()[number] else IGNORE_INDEX)
    found = decode_values(values, classes, valid=valid, nodata=nodata)
    assert found.mask.dtype == np.uint8
    assert found.mask.ravel().tolist() == mask
    assert found.unknown == unknown
    assert found.first_unknown == (None if first is None else divmod(first, 2))


def test_unknown_values_are_counted_by_text() -> None:
    values = np.array([[0, 3, 9], [4, 4, 5]], np.uint8)
    found = decode_values(values, TOWN)
    assert (found.unknown, found.first_unknown) == ({"4": 2, "5": 1}, (1, 0))
    assert found.mask.tolist() == [[0, 1, 2], [255, 255, 255]]
    assert decode_values(np.array([[np.nan, np.nan, 3.0, 0.5, 17.0]]), TOWN).unknown == {"nan": 2, "0.5": 1, "17": 1}
    assert decode_values(np.array([[0.1]], np.float32), TOWN).unknown == {"0.1": 1}


def test_too_many_kinds_are_counted_together() -> None:
    values = np.arange(10, 1010, dtype=np.int32).reshape(10, 100)
    values[0] = 10
    unknown = decode_values(values, TOWN).unknown
    assert len(unknown) == MAX_UNKNOWN_KINDS + 1
    assert sum(unknown.values()) == values.size
    assert (unknown["10"], unknown["others"]) == (100, 1000 - 100 - MAX_UNKNOWN_KINDS + 1)


@pytest.mark.parametrize(
    ("values", "nodata"),
    [
        (np.array([[0, 255]], np.uint8), 255),
        (np.array([[0, -1]], np.int16), -1.0),
        (np.array([[0, -9999]], np.int32), -9999.0),
        (np.array([[0.0, np.nan]]), float("nan")),
        (np.array([[0.0, -3.4028234663852886e38]]), -3.4028234663852886e38),
        (np.array([[0.0, 0.5]], np.float32), 0.5),
        (np.array([[0, 255]], np.uint16), 255),
    ],
)
def test_nodata_is_ignored(values: np.ndarray, nodata: float) -> None:
    found = decode_values(values, TOWN, nodata=nodata)
    assert (found.mask.tolist(), found.unknown) == ([[0, IGNORE_INDEX]], {})
    assert sum(decode_values(values, TOWN).unknown.values()) == 1


def test_nodata_that_is_a_class_stays_the_class() -> None:
    assert decode_values(np.array([[0, 3]], np.uint8), TOWN, nodata=0).mask.tolist() == [[0, 1]]
    assert decode_values(np.array([[0, 3]], np.uint8), TOWN, nodata=float("nan")).mask.tolist() == [[0, 1]]


def read_label(path: Path, classes: ClassMap = TOWN, **options: Any) -> DecodedLabel:
    with open_raster(path) as dataset:
        window = PixelWindow(col_off=0, row_off=0, width=dataset.width, height=dataset.height)
    with RasterLabel(path=path, classes=classes, **options).reader() as read:
        return read(window)


def test_palettes_decode_as_their_colors(make: Maker, tmp_path: Path) -> None:
    palette = {4: (0, 0, 255, 255), 5: (255, 3, 0, 255), 9: (9, 8, 7, 255), 12: (9, 8, 7, 255), 6: (90, 90, 90, 255)}
    pixels = np.array([[4, 5, 9, 12], [6, 4, 4, 5]], np.uint8)
    path = make.raster(tmp_path / "a.tif", pixels, colormap=palette)
    found = read_label(path, coding="palette", tolerance=3)
    assert found.mask.tolist() == [[1, 2, 255, 255], [255, 1, 1, 2]]
    assert (found.num_changed, found.first_unknown) == (2, (0, 2))
    assert found.unknown == {"(9, 8, 7)": 2, "(90, 90, 90)": 1}
    found = read_label(path, coding="palette", nearest=True)
    assert found.mask.tolist() == [[1, 2, 255, 255], [255, 1, 1, 2]]
    assert (found.num_changed, found.unknown) == (5, {})


def test_nodata_of_a_palette_is_ignored_and_not_counted(make: Maker, tmp_path: Path) -> None:
    palette = {4: (0, 0, 255, 255), 6: (90, 90, 90, 255)}
    pixels = np.array([[4, 6], [6, 4]], np.uint8)
    path = make.raster(tmp_path / "a.tif", pixels, colormap=palette, nodata=6)
    for nearest in (False, True):
        found = read_label(path, coding="palette", nearest=nearest)
        assert found.mask.tolist() == [[1, 255], [255, 1]]
        assert (found.num_changed, found.unknown) == (0, {})


def test_lossy_labels_come_back(make: Maker, tmp_path: Path) -> None:
    truth = make.indices(160, 160, num=4)
    rgb = np.array([entry.color for entry in TOWN.classes], np.uint8)[truth].transpose(2, 0, 1)
    path = make.raster(tmp_path / "a.jpg", rgb, quality=90)
    strict, nearest = read_label(path, coding="colors"), read_label(path, coding="colors", nearest=True)
    assert nearest.unknown == {}
    assert nearest.num_changed == sum(strict.unknown.values()) > 1000
    expected = np.array(TOWN.row_indices, np.uint8)[truth]
    assert (nearest.mask == expected).mean() > 0.97


def test_the_words_for_unknown_colors_and_values() -> None:
    counts = {"(7, 7, 7)": 1, "(252, 255, 10)": 2}
    message = unknown_message("label.tif", unknown_noun(counts), counts, (0, 2), TOWN)
    assert message == (
        "label.tif: unknown label colour (252, 255, 10) in 2 px, (7, 7, 7) in 1 px, first at row 0, column 2; expected "
        "impervious surface (255, 255, 255), building (0, 0, 255), boundary (0, 0, 0), clutter (255, 0, 0); add the "
        "colour to the class table (classes.toml) or mark it ignored = true there, or read lossy or anti-aliased "
        "colours as the nearest of the legend with --nearest-color, or ignore such pixels up to a share of the label "
        "with --max-unknown SHARE"
    )
    counts = {"others": 99, **{str(value): 1 for value in range(10, 17)}}
    message = unknown_message("a.tif", unknown_noun(counts), counts, None, TOWN, options=False)
    assert re.search(r"unknown label value 10 in 1 px, .*14 in 1 px and 3 more; expected .*clutter 9; add", message)
    assert "--" not in message
