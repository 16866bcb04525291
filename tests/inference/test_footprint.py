"""The bound on memory: what it grows with, what it does not, and that a limit is kept."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ctrs.classes import ClassMap, LandClass
from ctrs.config import PredictConfig
from ctrs.errors import UsageError
from ctrs.inference.footprint import fitting_blocks, footprint
from ctrs.inference.pixels import FileBlocks
from ctrs.inference.products import Products
from ctrs.inference.window_plan import WindowPlan

SCRIPT = Path(__file__).with_name("predict_and_measure.py")
MIB = 2**20


def products_for(count=6, **options):
    classes = ClassMap(classes=tuple(LandClass(value=i, name=f"c{i}", color=(i, 0, 0)) for i in range(count)))
    return Products.for_config(classes, PredictConfig(**options))


def fitted(width=6000, height=6000, *, products=None, overlap=0.25, **options):
    plan = WindowPlan(height=height, width=width, window_px=512, overlap=overlap, batch_size=2)
    options = {"count": 3, "dtype": "uint8", "blocks": FileBlocks(height=256), **options}
    return fitting_blocks(plan, products or products_for(), **options)


def total(*args, **options):
    """Return the bound without what lies idle in memory that is kept."""
    return replace(fitted(*args, **options)[1], gaps=0).total


def test_it_grows_with_what_is_held_and_not_with_the_height():
    usual = total()
    assert total(height=60_000) <= usual * 1.02  # other heights spread their windows a little differently
    assert total(width=12_000) > 1.4 * usual
    assert total(overlap=0.5) > usual
    assert total(count=8) > usual
    assert total(dtype="float32") > usual
    assert total(products=products_for(20)) > usual
    for wanted in ({"confidence": "margin"}, {"probabilities": "uint8"}, {"probabilities": "float16"}):
        assert total(products=products_for(**wanted)) > usual


def test_it_counts_the_cache_that_is_set():
    small, usual = (fitted(cache_bytes=size * MIB)[1] for size in (16, 64))
    assert usual.total - small.total == 48 * MIB
    assert "GDAL 67 MB" in str(usual)
    assert "GDAL 17 MB" in str(small)


def test_it_holds_what_test_time_augmentation_takes():
    usual, flip, d4 = (total(tta=tta) for tta in ("none", "flip", "d4"))
    assert usual < flip < d4
    # Sums of logits for each window of a batch: as many as are added pair by pair, the newest, the mean, a turned one.
    assert d4 - usual == 2 * 512**2 * 4 * (2 * 3 + 6 * (3 + 2 + 1))
    assert total(tta="multiscale:0.5,1,2") > total(tta="multiscale:0.5,1")
    assert "augmentation 88 MB" in str(fitted(tta="d4")[1])


def test_gaps_in_kept_memory_count_and_a_limit_keeps_none():
    kept = fitted()[1]
    held = kept.scene + kept.batches + kept.strips + kept.rows
    assert kept.gaps * 4 == pytest.approx(held, abs=4)
    assert kept.total == held + kept.gaps + kept.gdal
    assert "GDAL 67 MB, gaps 3" in str(kept)
    limited = fitted(max_memory=10**9)[1]
    assert limited == replace(kept, gaps=0)
    assert "gaps" not in str(limited)


def test_it_holds_what_finishing_takes():
    plan = WindowPlan(height=6000, width=60_000, window_px=512, overlap=0.25, batch_size=2).in_blocks(100)[3]
    bound = footprint(plan, products_for(), count=3, dtype="uint8", blocks=FileBlocks(height=256))
    assert bound.total == bound.finishing > 200_000_000
    assert "when the files are finished" in str(bound)
    with pytest.raises(UsageError, match=r"the finished files of a scene of 60000 px width takes 224 MB.*--bounds"):
        fitted(width=60_000, max_memory=220_000_000)
    assert "finished" not in str(fitted()[1])


def test_wide_scenes_fall_into_as_few_blocks_of_columns_as_fit():
    parts, bound = fitted(width=60_000, max_memory=10**10)
    assert (len(parts), bound.blocks) == (1, 1)
    assert "blocks" not in str(bound)
    limit = bound.total // 3
    parts, bound = fitted(width=60_000, max_memory=limit)
    assert 3 <= len(parts) <= 8
    assert bound.blocks == len(parts)
    assert bound.total <= limit
    assert f"in {len(parts)} blocks of columns" in str(bound)
    assert parts[0].columns.start == 0
    assert parts[-1].columns.stop == 60_000
    assert fitted(width=60_000, max_memory=bound.total - 1)[1].total < bound.total


def test_a_limit_below_one_column_of_windows_is_refused():
    with pytest.raises(UsageError, match=r"max_memory 50 MB found, but one column of windows of 512 px takes \d+ MB"):
        fitted(max_memory=50_000_000)


GIVES_BACK = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""Freed memory goes back at once, so that there are no gaps."""


def measured(folder, *arguments, malloc=GIVES_BACK, **options):
    """Map a tall scene in a process of its own."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    env = {**known, **malloc, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    folder.mkdir()
    command = [sys.executable, "-W", "error", SCRIPT, folder, *map(str, arguments), json.dumps(options)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


needs_proc = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")


@pytest.mark.slow
@needs_proc
def test_memory_at_6000_columns(tmp_path):
    low, high = (measured(tmp_path / str(height), 6000, height, 512) for height in (6000, 60_000))
    for found in (low, high):
        assert found["loop"] - found["before"] < 200 + found["logits"]
        assert found["loop"] - found["before"] < found["bound"] - found["gaps"] + found["logits"]
    assert high["whole"] - high["before"] < low["whole"] - low["before"] + 50


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tta": "d4"},
        {"tta": "multiscale:0.75,1,1.5"},
        {"confidence": "margin", "probabilities": "uint8"},
        {"probabilities": "float16"},
    ],
    ids=["plain", "d4", "multiscale", "all", "float16"],
)
def test_the_bound_holds_to_the_end(tmp_path, options):
    found = measured(tmp_path / "work", 3000, 1500, 512, **options)
    assert found["whole"] - found["before"] < found["bound"] - found["gaps"] + found["logits"]


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(
    "options", [{}, {"tta": "d4"}, {"tta": "multiscale:0.75,1,1.5"}], ids=["plain", "d4", "scales"]
)
def test_the_bound_holds_where_memory_is_kept(tmp_path, options):
    found = measured(tmp_path / "work", 3000, 1500, 512, malloc={}, **options)
    assert found["gaps"] > 0
    assert found["whole"] - found["before"] < found["bound"] + found["logits"]
