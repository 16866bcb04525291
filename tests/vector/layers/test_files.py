"""Layers that are written as a stream: the same file however the parts come in, and what each format has to hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from ctrs.errors import LayerWarning, OutputError, RasterError
from ctrs.jobs import partial_work
from ctrs.vector.layers import files as layers
from ctrs.vector.layers import stream as layer_stream
from ctrs.vector.layers.files import read_columns, read_job, write_layer
from ctrs.vector.layers.part import LayerPart
from ctrs.vector.layers.shapefile import shapefile_names
from ctrs.vector.layers.stream import LayerFacts

EXTENSIONS = [".gpkg", ".parquet", ".fgb", ".geojson", ".shp"]
JOB = "0123456789abcdef"

pytestmark = pytest.mark.filterwarnings("ignore:.*a Shapefile is 6 files:ctrs.errors.LayerWarning")


def squares(count: int) -> LayerPart:
    """Squares of 5 m in a row, 10 m apart."""
    left = 400_000 + 10.0 * np.arange(count)
    return LayerPart(
        polygons=np.asarray(shapely.box(left, 5_000_000, left + 5, 5_000_005, ccw=True), object),
        columns={
            "class": np.full(count, "building", object),
            "area_m2": np.full(count, 25.0),
            "regularization_iou": np.linspace(0.5, 1, count),
        },
        firsts=np.arange(count, dtype=np.int64),
    )


def write(part: LayerPart, out: Path, sizes: list[int], crs: str | None = "EPSG:32633") -> None:
    facts = LayerFacts(crs=crs, empty=part.take(slice(0, 0)), job=JOB, date=datetime(2026, 1, 2, tzinfo=UTC))

    def parts() -> Iterator[LayerPart]:
        done = 0
        while done < len(part):
            yield part.take(slice(done, done + sizes[0]))
            done += sizes[0]
            sizes.append(sizes.pop(0))

    with partial_work(out, JOB, overwrite=True) as work:
        write_layer(parts(), work, facts)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_how_parts_come_in_leaves_no_trace(tmp_path: Path, extension: str) -> None:
    part, out = squares(9000), tmp_path / f"a{extension}"
    write(part, out, [9000])
    expected = {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    write(part, out, [1, 700, 4096, 5000])
    assert {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())} == expected
    assert read_job(out) == JOB
    columns = read_columns(out, ["class", "area_m2"])
    assert (len(columns["class"]), float(columns["area_m2"].sum())) == (9000, 225_000.0)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_an_empty_layer_is_one(tmp_path: Path, extension: str) -> None:
    out = tmp_path / f"a{extension}"
    write(squares(0), out, [1])
    assert read_job(out) == JOB
    assert [len(values) for values in read_columns(out, ["class", "area_m2"]).values()] == [0, 0]


def test_rows_of_a_parquet_file_are_found_by_their_boxes(tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    write(squares(9000), out, [500])
    file = pq.ParquetFile(out)
    assert [file.metadata.row_group(group).num_rows for group in range(3)] == [4096, 4096, 808]
    geo = json.loads(file.metadata.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["bbox"] == [400_000, 5_000_000, 489_995, 5_000_005]
    found = geopandas.read_parquet(out, bbox=(400_101, 5_000_001, 400_122, 5_000_002))
    assert found["id"].tolist() == [11, 12, 13]
    whole = geopandas.read_parquet(out)
    assert whole.crs.to_epsg() == 32633
    assert list(whole.columns) == ["id", "class", "area_m2", "regularization_iou", "geometry"]


def test_a_shapefile_says_what_it_loses(tmp_path: Path) -> None:
    out = tmp_path / "a.shp"
    with pytest.warns(LayerWarning, match=r"names of 10 characters \(regularization_iou is regul_iou\)"):
        write(squares(3), out, [2])
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".cpg", ".dbf", ".json", ".prj", ".shp", ".shx"]
    layer = pyogrio.read_dataframe(out)
    assert list(layer.columns) == ["id", "class", "area_m2", "regul_iou", "geometry"]
    assert layer["id"].tolist() == [1, 2, 3]
    assert layer.crs.to_epsg() == 32633
    out.with_suffix(".shp.json").unlink()
    assert read_job(out) is None


def test_a_shapefile_that_cannot_be_put_in_place_leaves_no_half(tmp_path: Path) -> None:
    out = tmp_path / "a.shp"
    write(squares(3), out, [2])
    blocked = out.with_suffix(".dbf")
    blocked.unlink()
    blocked.mkdir()
    with pytest.raises(OutputError, match=r"a\.shp: cannot be put in place"):
        write(squares(4), out, [2])
    assert not out.exists()


def test_names_of_a_shapefile_are_short_and_different() -> None:
    names = ["id", "class", "area_m2", "perimeter_m", "orientation_deg", "confidence", "regularization_iou", "method"]
    short = list(shapefile_names([*names, "regularization_b", "regularization_c"]).values())
    assert max(map(len, short)) <= 10
    assert len(set(short)) == len(names) + 2


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_what_goes_wrong_while_polygons_are_drawn_is_said_as_it_is(tmp_path: Path, extension: str) -> None:
    out = tmp_path / f"a{extension}"
    part = squares(5000)
    facts = LayerFacts(crs=None, empty=part.take(slice(0, 0)), job=JOB, date=datetime(2026, 1, 2, tzinfo=UTC))

    def parts() -> Iterator[LayerPart]:
        yield part
        raise RasterError("scene_mask.tif: block 7 is damaged")

    with pytest.raises(RasterError, match="block 7 is damaged"), partial_work(out, JOB) as work:
        write_layer(parts(), work, facts)
    assert list(tmp_path.iterdir()) == []


def test_no_more_rows_are_held_than_are_written_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    joined = LayerPart.joined.__func__

    def counting(cls: type[LayerPart], parts: list[LayerPart]) -> LayerPart:
        held.append(sum(map(len, parts)))
        return joined(cls, parts)

    monkeypatch.setattr(LayerPart, "joined", classmethod(counting))
    monkeypatch.setattr(layer_stream, "BATCH_ROWS", 100)
    monkeypatch.setattr(layers, "BATCH_ROWS", 100)
    write(squares(2000), tmp_path / "a.parquet", [30])
    assert max(held) <= 130
