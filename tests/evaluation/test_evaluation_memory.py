"""A whole evaluation of a scene and of one eight times as tall: its memory is that of its blocks and rows."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# A child of its own, since memory that a process once had is in its peak; VmHWM begins anew there, ru_maxrss does not.
# GDAL's own stores are small there: its cache, and the files that it keeps open below a virtual raster (100, each with
# a block of its own), would fill up to their fixed sizes whatever is read.
MEASURE = """
import gc, re, sys
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from tests.evaluation.scored_ground import BANDS, CLASSES, CPU, UTM, Affine, make_run, write
from ctrs.config import EvalConfig
from ctrs.evaluation import evaluate
from ctrs.inference import Predictor
from ctrs.raster.geotiff import GDAL_OPTIONS
from ctrs.raster.windows import sliding_windows
from ctrs.tiles.manifest import Manifest, Scene, Tile

GDAL_OPTIONS["GDAL_CACHEMAX"] = 4 * 2**20
folder, height, width = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
TILE_PX = 512
origin, data = Affine(0.1, 0, 400_000, 0, -0.1, 5_800_000), folder / "data"
scene = Scene(
    name="town", split="test", width=width, height=height, crs_wkt=UTM.to_wkt(), transform=tuple(origin)[:6],
    source_image="town.tif", source_label="",
)
tiles, rng = [], np.random.default_rng(1)
for index, window in enumerate(sliding_windows(height, width, TILE_PX, TILE_PX)):
    rows, cols = np.mgrid[window.slices]
    truth = ((rows // 40 + cols // 40) % 5 == 0) & (rows % 40 > 3) & (cols % 40 > 3)
    seen = np.roll(truth, 2, 1) & (cols % 200 > 40)
    image = np.where(seen, 170, 70) + rng.integers(0, 60, (3, *truth.shape))
    paths = {kind: data / kind / "test" / f"town_{index:03}.tif" for kind in ("images", "masks")}
    place = origin @ Affine.translation(window.col_off, window.row_off)
    write(paths["images"], image.astype(np.uint8), place, UTM, 0)
    write(paths["masks"], truth[None].astype(np.uint8), place, UTM, 255)
    counts = (int((~truth).sum()), int(truth.sum()), 0)
    tiles.append(
        Tile(
            scene="town", split="test", window=window, image=paths["images"], mask=paths["masks"], mask_eroded=None,
            valid_fraction=1.0, class_counts=counts,
        )
    )
Manifest(
    root=data.absolute(), name="town", tiles=tuple(tiles), scenes=(scene,), classes=CLASSES, bands=BANDS,
    tile_px=TILE_PX, pixel_size_m=0.1, preset=None, fingerprint="town",
).save(data)


class Brightness(torch.nn.Module):
    def forward(self, images):
        bright = torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 5, 1, 2)
        return torch.cat([-bright, bright, torch.full_like(bright, -9.0)], 1)


def memory(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024


load, begun = Predictor.from_checkpoint, []


def from_checkpoint(*arguments, **options):
    predictor = load(*arguments, **options)
    predictor.network.module = Brightness()  # scenes of this size would take a real network minutes
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: that of loading a network would hide others
    begun.append(memory("VmRSS"))
    return predictor


Predictor.from_checkpoint = from_checkpoint
run = make_run(folder / "run")
report = evaluate(run, data, EvalConfig(predict=replace(CPU, window_px=256), eroded=True))
assert report.scenes[0].confusions["strict"].total == height * width
assert report.scenes[0].objects["building"].counts[2] > 0 and report.calibration is not None
written = run / "eval" / "test"
assert all((written / name).exists() for name in ("report.html", "errors/town_errors.tif", "masks/town_confidence.tif"))
print(memory("VmHWM") - begun[0])
"""

SMALL, TALL = (3072, 1024), (24576, 1024)
"""Rows and columns; both have several blocks on the way down."""

LARGER_MIB = (TALL[0] * TALL[1] - SMALL[0] * SMALL[1]) / 2**20
"""So much larger is the tall scene than the other, as bytes of a single band."""

# What is freed goes back to the system at once: else it depends on luck which of it stays in the process.
MALLOC = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def peak_mib(folder: Path, shape: tuple[int, int]) -> float:
    """Return what a whole evaluation of a scene takes at its peak, beside the network, in a process of its own."""
    folder.mkdir(parents=True)
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), *map(str, shape)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
        env={**os.environ, **MALLOC, "OMP_NUM_THREADS": "1", "GDAL_MAX_DATASET_POOL_SIZE": "8"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    shutil.rmtree(folder)
    return float(run.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_of_a_whole_evaluation_does_not_grow_with_the_height(tmp_path):
    # The tall scene's logits are 12 times LARGER_MIB; one float32 band, such as confidences, is 4 times. Over six pairs
    # of runs (to 18432 rows) peaks spread by 10 MiB and differed by 7 to 14 MiB, most of it the 60 tiles' more records.
    bound = 3 * LARGER_MIB
    peaks: dict[str, list[float]] = {"small": [], "tall": []}
    for attempt in range(2):
        for name, shape in (("small", SMALL), ("tall", TALL)):
            peaks[name].append(peak_mib(tmp_path / f"{name}-{attempt}", shape))
        if min(peaks["tall"]) - min(peaks["small"]) < bound:
            return  # a leak shows in every run, noise does not
    pytest.fail(f"peaks in MiB: {peaks}; a difference of less than {bound:.0f} expected")
