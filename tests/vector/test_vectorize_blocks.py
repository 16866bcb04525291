"""The command in blocks: threads and names decide nothing, memory does not grow with the mask."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely

from ctrs.config import VectorizeConfig
from ctrs.errors import ConfigError, LayerWarning, OutputExistsError
from ctrs.vector import vectorize
from ctrs.vector.layers.part import LayerPart
from ctrs.vector.regions.class_mask import open_class_mask
from ctrs.vector.vectorize import choose_classes, draw_parts


def town(seed: int, height: int = 240) -> npt.NDArray[np.uint8]:
    """Houses with bites and pinholes, some that touch; trees between them, specks of both."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, 160), np.uint8)
    for _ in range(height // 5):
        top, left = rng.integers(0, height - 8), rng.integers(0, 150)
        tall, wide = rng.integers(6, 34, 2)
        labels[top : top + tall, left : left + wide] = rng.choice([1, 1, 1, 2])
    specks = rng.random(labels.shape) < 0.01
    labels[specks] = rng.integers(0, 3, int(specks.sum()))
    return labels


@pytest.mark.parametrize(
    "options",
    [
        {"classes": ("all",)},
        {"classes": ("building", "tree"), "smooth_m": 3.0},
        {"closing_m": 2.0},
        {"opening_m": 1.5},
        {"connectivity": 8},
        {"split": "erosion"},
        {"regularize": "full", "split": "watershed"},
    ],
    ids=["all classes", "smoothed", "closing", "opening", "8-connected", "split", "straight"],
)
def test_rows_read_at_a_time_leave_no_trace(write_mask, options) -> None:
    config = VectorizeConfig(jobs=1, **options)
    with open_class_mask(write_mask(town(1))) as file:
        wanted = choose_classes(file.classes, config.classes, file.path)
        whole, *cut = [
            LayerPart.joined(list(draw_parts(file, wanted, config, band_rows=rows))) for rows in (240, 7, 50)
        ]
    assert len(whole) > 5
    for found in cut:
        assert shapely.to_wkb(found.polygons).tolist() == shapely.to_wkb(whole.polygons).tolist()
        for name, values in whole.columns.items():
            np.testing.assert_array_equal(found.columns[name], values, err_msg=name)


@pytest.mark.parametrize("extension", [".gpkg", ".parquet", ".fgb", ".geojson"])
def test_the_number_of_threads_decides_nothing(write_mask, tmp_path: Path, extension: str) -> None:
    mask, out = write_mask(town(2)), tmp_path / f"a{extension}"
    vectorize(mask, out, VectorizeConfig(jobs=1))
    before = out.read_bytes()
    assert vectorize(mask, out, VectorizeConfig(jobs=3)).skipped
    vectorize(mask, out, VectorizeConfig(jobs=3, overwrite=True))
    assert out.read_bytes() == before


def test_an_unknown_class_is_named_although_a_layer_stands_there(write_mask, tmp_path: Path) -> None:
    mask, out = write_mask(town(3)), tmp_path / "a.gpkg"
    vectorize(mask, out)
    with pytest.raises(ConfigError, match="class 'roof' is unknown"):
        vectorize(mask, out, VectorizeConfig(classes=("roof",)))


def test_a_finished_shapefile_is_skipped(write_mask, tmp_path: Path) -> None:
    mask, out = write_mask(town(4)), tmp_path / "a.shp"
    with pytest.warns(LayerWarning, match="a Shapefile is 6 files"):
        first = vectorize(mask, out)
    again = vectorize(mask, out)
    assert again.skipped
    assert again.counts == first.counts
    assert {path.name for path in tmp_path.iterdir()} == {
        "scene_mask.tif", "a.shp", "a.shx", "a.dbf", "a.prj", "a.cpg", "a.shp.json"
    }  # fmt: skip


def test_a_shapefile_replaces_no_table_of_others(write_mask, tmp_path: Path) -> None:
    mask, out = write_mask(town(4)), tmp_path / "a.shp"
    table = tmp_path / "a.dbf"
    table.write_text("prices")
    with pytest.raises(OutputExistsError, match=r"a\.dbf: exists and is no part of a Shapefile of ctrs; pass --overw"):
        vectorize(mask, out)
    assert table.read_text() == "prices"
    with pytest.warns(LayerWarning, match="a Shapefile is 6 files"):
        vectorize(mask, out, VectorizeConfig(overwrite=True))
    # A Shapefile of which a part is left is drawn again.
    out.unlink()
    with pytest.warns(LayerWarning, match="a Shapefile is 6 files"):
        vectorize(mask, out)


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_log_of_another_program_is_not_read_into_a_new_geopackage(write_mask, tmp_path, suffix, overwrite) -> None:
    mask, out = write_mask(town(4)), tmp_path / "a.gpkg"
    log = tmp_path / f"a.gpkg{suffix}"
    log.write_bytes(b"edits")
    with pytest.raises(OutputExistsError, match=rf"a\.gpkg{suffix}: exists, so another program .* has a\.gpkg open"):
        vectorize(mask, out, VectorizeConfig(overwrite=overwrite))
    assert log.read_bytes() == b"edits"
    assert not out.exists()
    log.write_bytes(b"")
    vectorize(mask, out, VectorizeConfig(overwrite=overwrite))


EDITING = """
import sqlite3, sys
layer = sqlite3.connect(sys.argv[1])
layer.execute("PRAGMA journal_mode=WAL")
layer.execute("BEGIN IMMEDIATE")
layer.execute("UPDATE gpkg_contents SET description = 'mine'")
print("open", flush=True)
sys.stdin.readline()
layer.commit()
layer.close()
"""


def test_a_geopackage_that_another_program_has_open_is_not_replaced(write_mask, tmp_path) -> None:
    mask, out = write_mask(town(4)), tmp_path / "a.gpkg"
    vectorize(mask, out)
    again = VectorizeConfig(min_area_m2=30, overwrite=True)
    command = [sys.executable, "-c", EDITING, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as editor:
        assert editor.stdout is not None
        assert editor.stdout.readline() == "open\n"
        assert (tmp_path / "a.gpkg-wal").stat().st_size == 0  # nothing is committed yet
        with pytest.raises(OutputExistsError, match=r"a\.gpkg-wal: exists, so another program .* has a\.gpkg open"):
            vectorize(mask, out, again)
        editor.communicate("\n")
    with closing(sqlite3.connect(out)) as layer:
        assert layer.execute("SELECT description FROM gpkg_contents").fetchall() == [("mine",)]
    vectorize(mask, out, again)
    assert not (tmp_path / "a.gpkg-wal").exists()
    with closing(sqlite3.connect(out)) as layer:
        assert layer.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert layer.execute("SELECT description FROM gpkg_contents").fetchall() != [("mine",)]


MEASURE = """
import sys
from pathlib import Path
from ctrs.config import VectorizeConfig
from ctrs.memory import process_memory
from ctrs.vector import vectorize
result = vectorize(Path(sys.argv[1]), Path(sys.argv[2]), VectorizeConfig(jobs=2))
print(result.counts["building"], process_memory("VmHWM"))
"""


def test_torch_is_not_needed() -> None:
    code = "import sys, ctrs.vector.vectorize; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("extension", [".parquet", ".fgb"])
def test_memory_does_not_grow_with_the_height(write_mask, tmp_path: Path, extension: str) -> None:
    """4000 columns of noisy houses: 16,000 rows, which fill GDAL's cache, and twice as many."""
    rng = np.random.default_rng(0)
    houses = np.kron(rng.random((50, 100)) < 0.3, np.ones((40, 40))).astype(np.uint8)
    houses ^= rng.random(houses.shape) < 0.002
    peaks, counts = [], []
    for times in (8, 16):
        mask = write_mask(np.tile(houses, (times, 1)), name=f"mask{times}.tif")
        with rasterio.open(mask) as dataset:
            assert dataset.height == 2000 * times
        command = [sys.executable, "-c", MEASURE, str(mask), str(tmp_path / f"a{times}{extension}")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        count, peak = done.stdout.split()
        counts.append(int(count))
        peaks.append(int(peak) / 1e6)
    assert counts[1] > 1.9 * counts[0]
    # Outlines of the whole mask would take some 200 MB more; what threads hold at a time differs by some 30.
    assert peaks[1] - peaks[0] < 80, f"{peaks} MB"
