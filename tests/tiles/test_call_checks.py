"""A wrong call is refused for what is wrong with it, whatever stands under the output's name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from affine import Affine

from ctrs.config import PrepareConfig, TrainConfig
from ctrs.errors import (
    ConfigError,
    DataWarning,
    InputNotFoundError,
    LabelWarning,
    MissingCrsWarning,
    RasterError,
    UsageError,
)
from ctrs.tiles import audit_source, prepare_tiles

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

UTM = "EPSG:32633"
PLACE = Affine(0.5, 0, 400_000, 0, -0.5, 5_800_000)
CLASSES = "".join(
    f'[[class]]\nname = "{name}"\nvalue = {value}\ncolor = [{value}, 0, 0]\n'
    for value, name in enumerate(("ground", "roof"))
)


def write_source(make: Maker, root: Path, **profile: Any) -> Path:
    make.raster(root / "images/a.tif", make.noise(64, 96), **profile)
    make.raster(root / "labels/a.tif", make.indices(64, 96, num=2), **profile)
    (root / "classes.toml").write_text(CLASSES)
    return root


def test_what_stands_under_the_name_hides_no_mistake(make: Maker, tmp_path: Path) -> None:
    source, out = write_source(make, tmp_path / "src", transform=PLACE, crs=UTM), tmp_path / "out"
    prepare_tiles(source, out, PrepareConfig(tile_px=32))
    wrong: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
        ({"crs": "EPSG:99999"}, UsageError, "--crs: 'EPSG:99999' names no CRS"),
        ({"src_crs": "nowhere"}, UsageError, "--src-crs: 'nowhere' names no CRS"),
        ({"aoi": tmp_path / "none.gpkg"}, InputNotFoundError, r"--aoi: .*none\.gpkg: not found"),
        ({"bidx": (1, 2, 7)}, RasterError, "band 7 asked for, expected numbers from 1 to 3"),
        ({"paint_order": ("roof", "lake")}, ConfigError, "paint order: class 'lake' is unknown"),
    )
    for options, kind, message in wrong:
        with pytest.raises(kind, match=message):
            prepare_tiles(source, out, PrepareConfig(tile_px=32, **options))
    with pytest.raises(UsageError, match="--crs: 'EPSG:99999' names no CRS"):
        audit_source(source, tmp_path / "report.html", PrepareConfig(crs="EPSG:99999"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed = -1 found, expected 0 or more"),
        ({"tile_px": 64, "stride_px": 65}, "stride_px = 65 found, expected at most the edge of a tile, tile_px = 64"),
        ({"tile_m": 20.0, "stride_m": 20.5}, "stride_m = 20.5 found, expected at most the edge of a tile, tile_m = 20"),
    ],
)
def test_numbers_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PrepareConfig(**options)


def test_the_seed_of_training_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="seed = -1 found, expected 0 or more"):
        TrainConfig(seed=-1)


def test_a_crs_alone_places_nothing(make: Maker, tmp_path: Path) -> None:
    source = write_source(make, tmp_path / "src")
    message = r"no transform \(world file or georeference\) found; --src-crs alone does not place it, so it is not used"
    with pytest.warns(MissingCrsWarning, match=message):
        prepare_tiles(source, tmp_path / "out", PrepareConfig(tile_px=32, src_crs=UTM))


@pytest.mark.parametrize(
    ("src_crs", "message"),
    [
        (
            "EPSG:3857",
            r"--src-crs EPSG:3857 is not used for a: the image names a CRS itself \(EPSG:32633\), which counts",
        ),
        (UTM, "--src-crs EPSG:32633 has no effect: a names the same CRS"),
    ],
)
def test_a_crs_that_no_image_needs(make: Maker, tmp_path: Path, src_crs: str, message: str) -> None:
    source = write_source(make, tmp_path / "src", transform=PLACE, crs=UTM)
    with pytest.warns(DataWarning, match=message):
        prepare_tiles(source, tmp_path / "out", PrepareConfig(tile_px=32, src_crs=src_crs))


def test_a_crs_that_is_needed_is_no_matter_to_warn_of(make: Maker, tmp_path: Path) -> None:
    source = write_source(make, tmp_path / "src", transform=PLACE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        manifest = prepare_tiles(source, tmp_path / "out", PrepareConfig(tile_px=32, src_crs=UTM))
    assert manifest.pixel_size_m == pytest.approx(0.5, rel=1e-2)


def test_colours_are_not_looked_for_in_classes(make: Maker, tmp_path: Path) -> None:
    source = write_source(make, tmp_path / "src", transform=PLACE, crs=UTM)
    with pytest.warns(LabelWarning, match="--nearest-color has no effect: no label is coded by colours"):
        prepare_tiles(source, tmp_path / "out", PrepareConfig(tile_px=32, nearest_color=True))
