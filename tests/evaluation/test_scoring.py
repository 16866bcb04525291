"""One pass over a scene: every count is that of the whole arrays, whatever the blocks, in fixed memory."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import Affine
from scipy import ndimage

from ctrs.classes import ClassMap, LandClass
from ctrs.config import EvalConfig
from ctrs.errors import LabelError
from ctrs.evaluation.scene_score import SceneScore
from ctrs.evaluation.scoring import ERODED_HERE, SceneMasks, score_scene
from ctrs.metrics import (
    AreaCounts,
    BoundaryCounts,
    CalibrationCounts,
    ConfusionMatrix,
    ObjectCounts,
    erode_labels,
    scored_blocks,
)
from ctrs.raster.geotiff import Grid

CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="ground", color=(255, 255, 255)),
        LandClass(value=1, name="building", color=(0, 0, 255)),
        LandClass(value=5, name="clutter", color=(255, 0, 0), scored=False),
    )
)
SHAPE = (150, 131)
WEB = CRS.from_epsg(3857)
TRANSFORM = Affine(0.5, 0, 4_000_000, 0, -0.5, 5_800_000)
OPTIONS = EvalConfig(objects=("building", "clutter", "lake"), min_object_px=4)


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(5)
    blobs = ndimage.gaussian_filter(rng.normal(size=(3, *SHAPE)), (0, 5, 5))
    truth = np.argmax(blobs, axis=0).astype(np.uint8)
    pred = np.argmax(blobs + ndimage.gaussian_filter(rng.normal(size=blobs.shape), (0, 3, 3)) * 0.4, axis=0)
    pred = pred.astype(np.uint8)
    truth[:9], pred[:, :5] = 255, 255
    return truth, pred, rng.random(SHAPE, np.float32)


def masks_of(truth, pred, confidence=None, *, crs=WEB, **options):
    return SceneMasks(
        name="town",
        grid=Grid(crs=crs, transform=TRANSFORM, width=SHAPE[1], height=SHAPE[0]),
        truths={"strict": lambda window: truth[window.slices].copy(), **options.pop("truths", {})},
        pred=lambda window: pred[window.slices].copy(),
        confidence=None if confidence is None else lambda window: confidence[window.slices],
        **options,
    )


@pytest.mark.parametrize("block_px", [31, 64, 1024])
def test_counts_are_those_of_the_whole_arrays(scene, block_px):
    truth, pred, confidence = scene
    inner = np.where(truth == 1, 255, truth).astype(np.uint8)
    masks = masks_of(
        truth, pred, confidence, eroded_here=True, truths={"isprs": lambda window: inner[window.slices].copy()}
    )
    calls = []
    score = score_scene(
        masks, CLASSES, OPTIONS, mask="m.tif", block_px=block_px, progress=lambda *call: calls.append(call)
    )
    blocks = -(-SHAPE[0] // block_px) * -(-SHAPE[1] // block_px)
    assert calls == [(number, blocks, "scoring town") for number in range(1, blocks + 1)]
    expected = {"strict": truth, "isprs": inner, ERODED_HERE: erode_labels(truth)}
    assert list(score.confusions) == list(expected)
    for kind, labels in expected.items():
        matrix = ConfusionMatrix(3)
        matrix.update(labels, pred)
        assert score.confusions[kind] == matrix, kind
    assert len({matrix.total for matrix in score.confusions.values()}) == 3
    scale = np.cos(np.radians(46.14)) ** 2  # EPSG:3857 there
    counts = {
        "outlines": BoundaryCounts(3, boundary_px=3, distances_px=(1, 3, 5)),
        "calibration": CalibrationCounts(15),
    }
    objects = ObjectCounts(1, iou=0.5, min_px=4)
    for block in scored_blocks(truth, pred, confidence=confidence, halo_px=counts["outlines"].halo_px):
        for each in (*counts.values(), objects):
            each.update(block)
    assert score.outlines == counts["outlines"]
    assert score.calibration == counts["calibration"]
    assert score.objects == {"building": objects}, "clutter is not scored, and there is no lake"
    assert score.area.pixel_area_m2 == pytest.approx(0.25 * scale, rel=0.01)
    area = AreaCounts(3, pixel_area_m2=score.area.pixel_area_m2)
    area.update(next(scored_blocks(truth, pred)))
    assert score.area == area
    again = SceneScore.from_json(json.loads(json.dumps(score.to_json(), allow_nan=False)))
    assert again == score


def test_what_is_not_known_is_not_counted(scene):
    truth, pred, _ = scene
    score = score_scene(masks_of(truth, pred, crs=None), CLASSES, OPTIONS, mask="m.tif")
    assert (score.area, score.calibration) == (None, None)
    assert score.objects["building"].average_precision is None
    only = score_scene(masks_of(truth, pred), CLASSES, EvalConfig(pixels_only=True), mask="m.tif")
    assert (only.outlines, only.objects, only.area, only.calibration) == (None, {}, None, None)
    assert only.confusions == score.confusions


def test_values_outside_the_class_table_are_refused_and_threads_end(scene):
    truth, pred, _ = scene
    strange = truth.copy()
    strange[-1, -1] = 7
    for options in (OPTIONS, EvalConfig(pixels_only=True)):
        with pytest.raises(LabelError, match=r"label\.tif: truth: value 7 found"):
            score_scene(masks_of(strange, pred, label="label.tif"), CLASSES, options, mask="m.tif", block_px=64)


# A child of its own, since memory that a process once had is in its peak; VmHWM begins anew there, ru_maxrss does not.
MEASURE = """
import re, sys
import numpy as np, rasterio
from pathlib import Path
from ctrs.classes import ClassMap, LandClass
from ctrs.config import EvalConfig
from ctrs.raster.confidence import STEPS, confidence_path
from ctrs.evaluation.mask_reading import confidence_reader, index_reader
from ctrs.raster.geotiff import GDAL_OPTIONS
from ctrs.evaluation.scoring import SceneMasks, score_scene
GDAL_OPTIONS["GDAL_CACHEMAX"] = 4 * 2**20  # else GDAL's cache fills up to its 64 MiB, whatever is read
folder, height, width = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
classes = ClassMap(classes=tuple(LandClass(value=i, name=n, color=(i, i, i)) for i, n in enumerate(("g", "building"))))
paths = {name: folder / f"{name}.tif" for name in ("truth", "a_mask", "a_confidence")}
for number, (name, path) in enumerate(paths.items()):
    sure = name == "a_confidence"
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint16" if sure else "uint8", "tiled": True, "blockxsize": 256,
               "blockysize": 256, "compress": "deflate", "crs": "EPSG:32633", "nodata": 0 if sure else 255,
               "transform": rasterio.Affine(0.1, 0, 5e5, 0, -0.1, 5e6)}
    with rasterio.open(path, "w", height=height, width=width, **profile) as file:
        for row in range(0, height, 256):
            for col in range(0, width, 256):
                rows, cols = np.mgrid[row : min(row + 256, height), col : min(col + 256, width)]
                boxes = ((rows // 40 + cols // 40 + number) % 5 == 0) & (rows % 40 > 3) & (cols % 40 > 3)
                block = np.where(boxes, 60000, 40000).astype(np.uint16) if sure else boxes.astype(np.uint8)
                file.write(block, 1, window=rasterio.windows.Window(col, row, block.shape[1], block.shape[0]))
        if sure:
            file.update_tags(CTRS_CONFIDENCE="probability of the predicted class")
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
with index_reader(paths["truth"]) as (truth, grid), index_reader(paths["a_mask"]) as (pred, _):
    with confidence_reader(paths["a_confidence"]) as sure:
        masks = SceneMasks(name="s", grid=grid, truths={"strict": truth}, pred=pred, confidence=sure, eroded_here=True)
        score = score_scene(masks, classes, EvalConfig(), mask="m", block_px=256)
assert score.confusions["strict"].total == height * width and score.objects["building"].counts[2] > 0
print(peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_scene(tmp_path):
    peaks = []
    for name, height, width in (("small", 1024, 1024), ("tall", 7168, 1024), ("wide", 1024, 7168)):
        folder = tmp_path / name
        folder.mkdir()
        run = subprocess.run(
            [sys.executable, "-c", MEASURE, str(folder), str(height), str(width)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        peaks.append(float(run.stdout))
    # 6 million pixels more: as bytes of truth, mask and confidence alone they would be 36 MiB.
    assert peaks[1] - peaks[0] < 18, peaks
    assert peaks[2] - peaks[0] < 18, peaks
