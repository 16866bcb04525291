"""Confidence beside a mask: its values, and the same bytes however often the work was stopped."""

import hashlib

import numpy as np
import pytest
import rasterio
from rio_cogeo import cog_validate

from ctrs.classes import IGNORE_INDEX
from ctrs.config import PredictConfig
from ctrs.errors import OutputExistsError, RasterError
from ctrs.inference import row_files, scenes_in
from ctrs.inference.row_files import RowFiles
from ctrs.jobs import partial_dir
from ctrs.raster.confidence import check_confidence, confidence_path, read_confidence
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.raster.windows import PixelWindow

SURE = PredictConfig(confidence="probability")


def scene_of(write_scene, height=700, width=150):
    pixels = np.random.default_rng(2).integers(1, 256, (3, height, width)).astype(np.uint8)
    pixels[:, 40:90, :60] = 0
    return pixels, write_scene(pixels, nodata=0)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(path):
    with open_raster(path) as dataset:
        return read_confidence(dataset, PixelWindow(col_off=0, row_off=0, width=dataset.width, height=dataset.height))


def test_it_is_the_softmax_of_the_blended_mean_logits(edges, write_scene, tmp_path):
    pixels, scene = scene_of(write_scene)
    mask = edges.predict_raster(scene, tmp_path / "a_mask.tif", SURE)
    beside = tmp_path / "a_confidence.tif"
    assert beside == confidence_path(mask)
    valid = (pixels != 0).any(axis=0)
    logits = edges.array_logits(pixels, valid).astype(np.float64)
    with np.errstate(invalid="ignore"):
        share = np.exp(logits - logits.max(axis=0))
        expected = (share / share.sum(axis=0)).max(axis=0)
    found = read(beside)
    np.testing.assert_allclose(found[valid], expected[valid], atol=1 / 65535)
    assert len(np.unique(found[valid])) > 1000, "the network is always as sure: the test shows little"
    assert (found[~valid] == 0).all()
    with open_raster(beside) as dataset, open_raster(mask) as other:
        assert Grid.of(dataset) == Grid.of(other)
        assert (dataset.dtypes[0], dataset.nodata) == ("uint16", 0)
        assert dataset.scales[0] * 65535 == pytest.approx(1)
        assert dataset.tags()["CTRS_JOB"] == other.tags()["CTRS_JOB"]
        np.testing.assert_array_equal(other.read(1) == IGNORE_INDEX, ~valid)
        check_confidence(dataset)
        with pytest.raises(RasterError, match="expected the confidence that ctrs predict --confidence writes"):
            check_confidence(other)
    assert cog_validate(beside, strict=True) == (True, [], [])


def test_the_mask_is_the_same_bit_for_bit(edges, write_scene, tmp_path):
    _, scene = scene_of(write_scene)
    plain = edges.predict_raster(scene, tmp_path / "plain_mask.tif")
    sure = edges.predict_raster(scene, tmp_path / "sure_mask.tif", SURE)
    assert digest(plain) == digest(sure)
    assert not confidence_path(plain).exists()
    # Asked for later, it is made, and the mask stays as it was without --overwrite.
    edges.predict_raster(scene, plain, SURE)
    assert digest(plain) == digest(sure)
    assert digest(confidence_path(plain)) == digest(confidence_path(sure))
    before = confidence_path(plain).stat().st_mtime_ns
    edges.predict_raster(scene, plain, SURE)
    assert confidence_path(plain).stat().st_mtime_ns == before
    assert scenes_in([tmp_path]) == [scene]


@pytest.mark.parametrize("second", [True, False], ids=["confidence", "plain first"])
def test_stopped_work_ends_with_the_same_bytes(edges, write_scene, tmp_path, monkeypatch, second):
    _, scene = scene_of(write_scene)
    whole = edges.predict_raster(scene, tmp_path / "whole_mask.tif", SURE)
    monkeypatch.setattr(row_files, "MIN_ROWS", 64)
    monkeypatch.setattr("ctrs.inference.predictor.MIN_ROWS", 64)
    append, count = RowFiles.append, []

    def stop(self, rows):
        count.append(1)
        if len(count) == 5:  # between the confidence and the mask
            if self._confidence is not None:
                self._confidence.append(row_files.to_steps(rows.confidence, rows.mask != IGNORE_INDEX))
            raise KeyboardInterrupt
        append(self, rows)

    monkeypatch.setattr(RowFiles, "append", stop)
    out = tmp_path / "out_mask.tif"
    with pytest.raises(KeyboardInterrupt):
        edges.predict_raster(scene, out, PredictConfig(confidence="probability" if second else None))
    monkeypatch.setattr(RowFiles, "append", append)
    kept = sorted((partial_dir(out) / "rows").glob("*.tif"))
    assert len(kept) == 4
    edges.predict_raster(scene, out, SURE)
    assert digest(out) == digest(whole)
    np.testing.assert_array_equal(read(confidence_path(out)), read(confidence_path(whole)))
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == [
        "out_confidence.tif", "out_mask.tif", "out_mask.tif.aux.xml",
    ]  # fmt: skip


def test_a_confidence_of_another_job_is_not_replaced(edges, write_scene, tmp_path):
    _, scene = scene_of(write_scene, height=80)
    out = edges.predict_raster(scene, tmp_path / "a_mask.tif", SURE)
    out.unlink()
    other = PredictConfig(confidence="probability", blend="constant")
    with pytest.raises(OutputExistsError, match=r"a_confidence\.tif: exists and is the result of other inputs"):
        edges.predict_raster(scene, out, other)
    assert not partial_dir(out).exists()
    edges.predict_raster(scene, out, PredictConfig(confidence="probability", blend="constant", overwrite=True))
    with rasterio.open(confidence_path(out)) as first, rasterio.open(out) as second:
        assert first.tags()["CTRS_JOB"] == second.tags()["CTRS_JOB"]
