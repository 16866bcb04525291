"""An area of interest cuts the map and not what the network sees: inside, all is as on the map of the whole scene."""

import json

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrs.classes import IGNORE_INDEX
from ctrs.config import PredictConfig
from ctrs.inference.pixels import FileBlocks
from ctrs.inference.products import Products
from ctrs.inference.scene_source import open_scene
from ctrs.raster.damage import DamageReader

UTM = Affine(0.2, 0, 5e5, 0, -0.2, 5.4e6)
TRIANGLE = shapely.Polygon([(70.31, 190.73), (250.17, 230.29), (160.93, 400.61)])
"""In columns and rows; no centre of a pixel lies on its edges."""


@pytest.fixture
def scene(write_scene):
    """A scene of 600 x 330 px with a strip that is not valid."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 600, 330)).astype(np.uint8)
    valid = np.ones((600, 330), bool)
    valid[:, 120:124] = False
    return write_scene(pixels, valid=valid, blockysize=16)


@pytest.fixture
def area(tmp_path):
    """The triangle as a file, and its pixels."""
    path = tmp_path / "area.gpkg"
    shape = shapely.transform(TRIANGLE, lambda xy: np.stack(UTM @ tuple(xy.T), axis=1))
    geopandas.GeoDataFrame(geometry=[shape], crs="EPSG:32633").to_file(path)
    rows, cols = np.mgrid[:600, :330] + 0.5
    return path, shapely.contains_xy(TRIANGLE, cols, rows)


def products_of(mask):
    """Pixels and nodata value of the mask, probabilities and confidence."""
    found = {}
    for name in ("mask", "probabilities", "confidence"):
        with rasterio.open(mask.with_name(f"{mask.stem.removesuffix('_mask')}_{name}.tif")) as file:
            found[name] = file.read(), file.nodata
    return found


def test_inside_the_area_all_products_are_as_on_the_whole_map(edges, scene, area, tmp_path):
    aoi, inside = area
    # A batch's other windows are in its last digits: one at a time.
    wanted = {"batch_size": 1, "confidence": "margin", "probabilities": "uint8"}
    whole = products_of(edges.predict_raster(scene, tmp_path / "whole_mask.tif", PredictConfig(**wanted)))
    out = edges.predict_raster(scene, tmp_path / "part_mask.tif", PredictConfig(**wanted, aoi=aoi))
    with rasterio.open(scene) as file:
        valid = file.dataset_mask() > 0
    for name, (found, nodata) in products_of(out).items():
        np.testing.assert_array_equal(found[:, inside], whole[name][0][:, inside])
        assert (found[:, ~inside] == nodata).all()
        assert (found[:, inside & ~valid] == nodata).all()


def test_windows_that_touch_no_pixel_of_the_area_are_neither_run_nor_read(edges, scene, area, tmp_path, monkeypatch):
    aoi, inside = area
    read, columns = [], []
    monkeypatch.setattr(
        "ctrs.inference.scene_source.SceneSource.sample", lambda *_: pytest.fail("there is nothing to compare with")
    )
    usual = DamageReader.read

    def noted(reader, window):
        read.append((window.row_off, window.row_off + window.height))
        columns.append((window.col_off, window.col_off + window.width))
        return usual(reader, window)

    monkeypatch.setattr(DamageReader, "read", noted)
    config = PredictConfig(aoi=aoi, batch_size=1)
    edges.predict_raster(scene, tmp_path / "part_mask.tif", config)
    plan = edges.plan(600, 330, config)
    touched = [
        (row, col) for row in plan.row_starts for col in plan.col_starts if inside[row : row + 64, col : col + 64].any()
    ]
    told = json.loads((tmp_path / "part_mask.json").read_text())
    assert (told["windows"]["seen"], told["windows"]["total"]) == (len(touched), plan.num_windows)
    assert len(touched) < plan.num_windows / 3
    top, bottom = touched[0][0], touched[-1][0] + 64
    assert min(first for first, _ in read) > top - 64  # the rows that a row of windows adds
    assert max(last for _, last in read) < bottom + 64
    covered = np.zeros(600, bool)
    for first, last in read:
        assert not covered[first:last].any()
        covered[first:last] = True
    assert covered[top:bottom].all()
    for (first, last), (left, right) in zip(read, columns, strict=True):
        beside = [col for row, col in touched if row < last and first < row + 64]
        assert (left, right) == (min(beside), min(max(beside) + 64, 330))
    assert max(right - left for left, right in columns) < 330
    assert min(right - left for left, right in columns) < 160


def test_stopped_work_on_an_area_ends_with_the_same_bytes(edges, write_scene, area, tmp_path):
    scene = write_scene(np.random.default_rng(1).integers(0, 256, (3, 1200, 330)).astype(np.uint8))
    config = PredictConfig(aoi=area[0], batch_size=3)
    whole = edges.predict_raster(scene, tmp_path / "whole_mask.tif", config)

    def stop(done, total, what):
        if done > 0.3 * total:
            raise KeyboardInterrupt

    out = tmp_path / "part_mask.tif"
    with pytest.raises(KeyboardInterrupt):
        edges.predict_raster(scene, out, config, progress=stop)
    assert edges.predict_raster(scene, out, config).read_bytes() == whole.read_bytes()


def test_work_of_versions_that_hid_what_lies_around_the_area_is_another_job(scene, area, make_identity):
    with open_scene(scene, make_identity().bands, PredictConfig(aoi=area[0])) as source:
        assert source.describe()["area_cuts"] == "mask"
    with open_scene(scene, make_identity().bands) as source:
        assert "area_cuts" not in source.describe()


sizes = st.integers(1, 140)
configs = st.builds(
    PredictConfig,
    window_px=st.integers(32, 90),
    overlap=st.floats(0, 0.9),
    blend=st.sampled_from(["hann", "constant"]),
    batch_size=st.just(1),
)


@settings(max_examples=40)
@given(sizes, sizes, configs, st.integers(0, 9), st.integers(1, 3), st.integers(1, 70), st.data())
def test_any_area_of_any_scene(edges, height, width, config, seed, count, block_px, data):
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (3, height, width)).astype(np.uint8)
    valid = generator.random((height, width)) > 0.2
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    inside = np.zeros((height, width), bool)
    inside[top:bottom, left:right] = True
    products = Products.for_config(edges.classes, config, logits=True)

    def mapped(number, wanted):
        parts, seen = [], []
        for part in edges.plan(height, width, config).in_blocks(number):
            rows = list(
                edges.finished_rows(
                    lambda window: (pixels[:, *window.slices], valid[window.slices]),
                    part,
                    config,
                    products=products,
                    wanted=wanted,
                    blocks=FileBlocks(height=block_px),
                    report=lambda batch: seen.extend(batch.places),
                )
            )
            parts.append([np.concatenate([getattr(one, name) for one in rows], -2) for name in ("mask", "logits")])
        return *(np.concatenate(arrays, -1) for arrays in zip(*parts, strict=True)), seen

    mask, logits, seen = mapped(count, lambda window: inside[window.slices])
    whole_mask, whole_logits, _ = mapped(1, None)
    np.testing.assert_array_equal(mask, np.where(inside, whole_mask, IGNORE_INDEX))
    kept = inside & valid
    np.testing.assert_array_equal(logits[:, kept], whole_logits[:, kept])
    if count == 1:
        plan = edges.plan(height, width, config)
        assert seen == [
            (row, col)
            for row, first in enumerate(plan.row_starts)
            for col, start in enumerate(plan.col_starts)
            if kept[first : first + plan.window_px, start : start + plan.window_px].any()
        ]
