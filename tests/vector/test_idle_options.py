"""Options that change nothing are named; each warning is checked against the polygons."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pytest

from ctrs.config import VectorizeConfig
from ctrs.errors import ConfigError, OptionWarning
from ctrs.vector import vectorize
from tests.vector.conftest import WriteMask

FIRST = VectorizeConfig(min_area_m2=0, min_hole_m2=0)
ALL = replace(FIRST, classes=("all",))


@pytest.fixture
def labels() -> npt.NDArray[np.uint8]:
    """Two blobs of two classes, a neck, gaps and outlines that wobble."""
    labels = np.zeros((40, 60), np.uint8)
    labels[5:20, 5:20] = labels[10:12, 20:24] = labels[5:20, 24:40] = 1
    labels[22:36, 4:30] = 2
    labels[22:24, 6:28:3] = 0
    labels[5:7, 6:38:4] = 0
    return labels


def draw(mask: Path, out: Path, config: VectorizeConfig) -> tuple[geopandas.GeoDataFrame, list[str]]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        vectorize(mask, out, replace(config, overwrite=True))
    return geopandas.read_file(out), [str(entry.message) for entry in told if entry.category is OptionWarning]


@pytest.mark.parametrize(
    ("plain", "option", "said"),
    [
        (FIRST, {"smooth_m": 5.0}, "--smooth changes nothing: it evens out borders of other classes than building"),
        (FIRST, {"opening_m": 1.4}, "--opening 1.4 changes nothing: on these pixels widths below 1.5 m do not show"),
        (FIRST, {"closing_m": 1.4}, "--closing 1.4 changes nothing: on these pixels widths below 1.5 m do not show"),
        (ALL, {"closing_m": 4.0}, "--closing changes nothing: it fills gaps with classes that are not drawn"),
    ],
)
def test_it_is_said_and_true(
    write_mask: WriteMask,
    tmp_path: Path,
    labels: npt.NDArray[np.uint8],
    plain: VectorizeConfig,
    option: dict[str, Any],
    said: str,
) -> None:
    mask = write_mask(labels)
    without, silent = draw(mask, tmp_path / "a.gpkg", plain)
    drawn, told = draw(mask, tmp_path / "a.gpkg", replace(plain, **option))
    assert silent == []
    assert len(told) == 1
    assert told[0].startswith(f"{mask}: {said}")
    assert drawn.geometry.geom_equals_exact(without.geometry, 0).all()


@pytest.mark.parametrize(("key", "value"), [("regularize", "full"), ("split", "erosion")])
def test_buildings_are_missed_where_a_mask_knows_none(
    write_mask: WriteMask, tmp_path: Path, labels: npt.NDArray[np.uint8], key: str, value: Any
) -> None:
    mask = write_mask(labels, classes=("ground", "tree", "water"))
    without, _ = draw(mask, tmp_path / "a.gpkg", ALL)
    drawn, told = draw(mask, tmp_path / "a.gpkg", replace(ALL, **{key: value}))
    assert told == [f"{mask}: --{key} changes nothing: it is for the class building, and ground, tree, water are drawn"]
    assert drawn.geometry.geom_equals_exact(without.geometry, 0).all()


@pytest.mark.parametrize(
    ("plain", "option"),
    [
        (ALL, {"smooth_m": 5.0}),
        (FIRST, {"opening_m": 1.5}),
        (FIRST, {"closing_m": 1.5}),
        (FIRST, {"split": "erosion"}),
        (FIRST, {"split": "erosion", "split_m": 0.4}),
        (ALL, {"regularize": "full"}),
    ],
)
def test_what_changes_polygons_is_not_named(
    write_mask: WriteMask,
    tmp_path: Path,
    labels: npt.NDArray[np.uint8],
    plain: VectorizeConfig,
    option: dict[str, Any],
) -> None:
    mask = write_mask(labels)
    without, _ = draw(mask, tmp_path / "a.gpkg", plain)
    drawn, told = draw(mask, tmp_path / "a.gpkg", replace(plain, **option))
    assert told == []
    same = len(drawn) == len(without) and drawn.geometry.geom_equals_exact(without.geometry, 0).all()
    assert same == (option == {"split": "erosion", "split_m": 0.4})  # narrower than the neck


def test_a_name_beside_all_is_looked_up_too(write_mask: WriteMask, labels: npt.NDArray[np.uint8]) -> None:
    mask = write_mask(labels)
    with pytest.raises(ConfigError, match=r"class 'bulding' is unknown; expected one of: background, building"):
        vectorize(mask, mask.with_suffix(".gpkg"), replace(ALL, classes=("all", "bulding")))
