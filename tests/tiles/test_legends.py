"""Class tables of sources that bring none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ctrs.classes import load_class_table
from ctrs.errors import LabelError, RasterError
from ctrs.raster.geotiff import open_raster
from ctrs.tiles.findings import Findings
from ctrs.tiles.legends import classes_of_rasters, row_chunks, survey_colors, survey_values

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker


def test_chunks_cover_each_row_once() -> None:
    rows = [
        row for chunk in row_chunks(103, 50, pixels=700) for row in range(chunk.row_off, chunk.row_off + chunk.height)
    ]
    assert rows == list(range(103))
    assert all(chunk.width == 50 for chunk in row_chunks(103, 50, pixels=10))


def test_surveys_count_all(make: Maker, tmp_path: Path) -> None:
    indices = make.indices(70, 90)
    with open_raster(make.raster(tmp_path / "v.tif", indices)) as dataset:
        assert survey_values(dataset) == Counter(indices.ravel().tolist())
    pixels = np.stack([indices * 20, indices, indices * 3])
    with open_raster(make.raster(tmp_path / "c.tif", pixels)) as dataset:
        assert survey_colors(dataset) == {
            (value * 20, value, value * 3): count for value, count in Counter(indices.ravel().tolist()).items()
        }


def test_values_are_those_of_all_files(make: Maker, tmp_path: Path) -> None:
    paths = [make.raster(tmp_path / f"{n}.tif", np.full((8, 8), value, np.uint8)) for n, value in enumerate((0, 7, 3))]
    assert classes_of_rasters(paths, Findings()).names == ("class_0", "class_3", "class_7")
    assert classes_of_rasters(paths[:1], Findings()).names == ("background", "building")


def test_many_classes_have_colors_of_their_own(make: Maker, tmp_path: Path) -> None:
    values = np.arange(200, dtype=np.uint8).reshape(10, 20)
    classes = classes_of_rasters([make.raster(tmp_path / "a.tif", values)], Findings())
    assert classes.num_classes == 200
    assert len(set(classes.colors)) == 200


def test_the_most_frequent_colors_are_printed(make: Maker, tmp_path: Path) -> None:
    pixels = make.noise(30, 30)
    pixels[:, :10] = 5
    expected = r"with these colours \(and \d+ rarer ones; --nearest-color .*\), most frequent first"
    with pytest.raises(LabelError, match=expected) as caught:
        classes_of_rasters([make.raster(tmp_path / "a.tif", pixels)], Findings())
    (tmp_path / "classes.toml").write_text(str(caught.value).split("names: ")[1])
    table = load_class_table(tmp_path / "classes.toml")
    assert table.num_classes == 20
    assert table.colors[0] == (5, 5, 5)


def test_all_rasters_that_are_no_labels_are_told(make: Maker, tmp_path: Path) -> None:
    paths = [make.raster(tmp_path / f"{n}.tif", np.full((8, 8), n + 0.5, np.float32)) for n in range(3)]
    findings = Findings()
    with pytest.raises(LabelError, match=r"0\.tif: value 0\.5 found, expected whole class numbers.*and 2 more faults"):
        classes_of_rasters(paths, findings)
    assert len(findings.faults) == 3


def test_damaged_rasters_do_not_hide_the_classes_of_others(make: Maker, tmp_path: Path) -> None:
    good = make.raster(tmp_path / "a.tif", np.array([[1, 5]], np.uint8))
    (tmp_path / "b.tif").write_bytes(b"II*")
    findings = Findings()
    findings.fault("files", LabelError("earlier"))
    assert classes_of_rasters([tmp_path / "b.tif", good], findings).names == ("class_1", "class_5")
    assert len(findings.faults) == 1
    with pytest.raises(RasterError, match=r"b\.tif: not readable as a raster"):
        classes_of_rasters([tmp_path / "b.tif"], Findings())
