"""What whoever waits is told: one count over all windows, which goes on where an earlier attempt ended."""

import contextlib
import json

import numpy as np
import pytest
import rasterio

from ctrs.config import PredictConfig
from ctrs.inference.footprint import fitting_blocks
from ctrs.inference.products import Products
from ctrs.inference.scene_source import open_scene
from ctrs.jobs import partial_dir


def read(path):
    with rasterio.open(path) as file:
        return file.read(1), json.loads(file.tags()["CTRS_OPTIONS"])


@pytest.fixture
def in_blocks(edges, write_scene, monkeypatch):
    """A scene, options by which it is mapped in several blocks of columns, and the number of windows of each."""
    # Finishing the files of a scene so narrow takes more than mapping it.
    for name in ("GDAL_CACHE_BYTES", "_WRITER_BYTES"):
        monkeypatch.setattr(f"ctrs.inference.footprint.{name}", 0)
    pixels = np.random.default_rng(4).integers(0, 256, (3, 700, 1500)).astype(np.uint8)
    config = PredictConfig(overlap=0.25)
    plan, products = edges.plan(700, 1500, config), Products.for_config(edges.classes, config)
    scene = write_scene(pixels)
    with open_scene(scene, edges.bands) as source:
        known = {"count": 3, "dtype": "uint8", "blocks": source.blocks(), "cache_bytes": source.cache_bytes}
    whole = fitting_blocks(plan, products, **known, max_memory=10**10)[1]
    config = PredictConfig(overlap=0.25, max_memory=whole.total - 10**5)
    parts, _ = fitting_blocks(plan, products, **known, max_memory=config.max_memory)
    assert len(parts) > 1
    return scene, config, [part.num_windows for part in parts]


def test_blocks_of_columns_are_one_count(edges, in_blocks, tmp_path):
    scene, config, windows = in_blocks
    told = []
    edges.predict_raster(scene, tmp_path / "m.tif", config, progress=lambda *args: told.append(args))
    assert {(total, what) for _, total, what in told} == {(sum(windows), "predicting scene.tif")}
    done = [number for number, _, _ in told]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, sum(windows))


def test_blocks_of_columns_leave_no_trace_in_the_mask(edges, in_blocks, tmp_path):
    scene, config, _ = in_blocks
    masks = [
        edges.predict_raster(scene, tmp_path / "blocks.tif", config),
        edges.predict_raster(scene, tmp_path / "whole.tif", PredictConfig(overlap=0.25)),
    ]
    (found, options), (expected, whole) = (read(path) for path in masks)
    assert options["column_blocks"] > 1
    assert "column_blocks" not in whole
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("limit", "expected"), [(None, 1), (10**9, 0)])
def test_memory_is_kept_where_no_limit_is_asked_for(edges, write_scene, tmp_path, monkeypatch, limit, expected):
    begun = []

    def keep():
        begun.append(True)
        return contextlib.nullcontext()

    monkeypatch.setattr("ctrs.inference.scene_map.kept_memory", keep)
    scene = write_scene(np.zeros((3, 70, 90), np.uint8))
    edges.predict_raster(scene, tmp_path / "m.tif", PredictConfig(max_memory=limit))
    assert len(begun) == expected


def test_it_goes_on_where_an_earlier_attempt_ended(edges, in_blocks, tmp_path):
    scene, config, windows = in_blocks
    out = tmp_path / "m.tif"

    def stop(done, total, what):
        if done > windows[0] + 0.8 * windows[1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edges.predict_raster(scene, out, config, progress=stop)
    told = []
    edges.predict_raster(scene, out, config, progress=lambda done, *_: told.append(done))
    assert told[0] >= windows[0]
    assert next(done for done in told if done > windows[0]) > windows[0] + 0.2 * windows[1]
    assert told[-1] == sum(windows)
    assert not partial_dir(out).exists()
