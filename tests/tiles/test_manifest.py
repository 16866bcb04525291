"""The manifest: what is written is what is read, and QGIS and geopandas can open it."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet
import pyogrio
import pyproj
import pytest
from rasterio.crs import CRS

from ctrs.classes import BUILDING_CLASSES
from ctrs.config import PrepareConfig
from ctrs.errors import DataError, InputNotFoundError
from ctrs.raster.bands import Bands
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.facts import Preview, SceneFacts
from ctrs.tiles.findings import Finding
from ctrs.tiles.manifest import Manifest, Scene, Tile, plain_facts

BANDS = Bands(names=("red",), dtype="uint8", low=(0.0,), high=(255.0,), mean=(100.0,), std=(20.0,))


FACTS = SceneFacts(
    num_px=2048, valid_px=2000, label_counts=(1900, 100), ignored_px=0, tiled_counts=(1900, 100),
    left_out_counts=(0, 0), coverage=(0, 2000), unknown={"7": 3}, first_unknown=(4, 5), low_px=(0,), high_px=(1,),
    preview=Preview(
        step=1, pixels=np.zeros((1, 1, 1)), valid=np.ones((1, 1), bool), mask=np.zeros((1, 1), np.uint8)
    ),
)  # fmt: skip


def make_manifest(
    root: Path,
    *,
    epsg: tuple[int | None, ...] = (32633,),
    eroded: bool = False,
    folds: tuple[int | None, int | None] | None = None,
    near: tuple[tuple[int, ...], tuple[int, ...]] = ((), ()),
) -> Manifest:
    scenes = tuple(
        Scene(
            name=f"s{number}",
            split="train+val",
            width=64,
            height=32,
            crs_wkt=None if code is None else CRS.from_epsg(code).to_wkt(),
            transform=(0.5, 0.0, 15.0 if code == 4326 else 400000.0, 0.0, -0.5, 50.0 if code == 4326 else 5800000.0),
            source_image="a.tif",
            source_label="a_mask.tif",
        )
        for number, code in enumerate(epsg)
    )
    tiles = tuple(
        Tile(
            scene=scene.name,
            split="train" if col == 0 else "val",
            window=PixelWindow(col_off=32 * col, row_off=0, width=32, height=32),
            image=root / f"images/{scene.name}_000_00{col}.tif",
            mask=root / f"masks/{scene.name}_000_00{col}.tif",
            mask_eroded=root / f"masks_eroded/{scene.name}_000_00{col}.tif" if eroded else None,
            valid_fraction=0.5,
            class_counts=(1000, 24 * col),
            hash=f"{scene.name}{col}",
            fold=None if folds is None else folds[col],
            near_folds=() if folds is None else near[col],
        )
        for scene in scenes
        for col in range(2)
    )
    return Manifest(
        root=root.absolute(),
        name="town",
        tiles=tiles,
        scenes=scenes,
        classes=BUILDING_CLASSES,
        bands=BANDS,
        tile_px=32,
        pixel_size_m=0.5,
        preset=None,
        fingerprint="abc",
        config=PrepareConfig(val=("s*",), classes=Path("classes.toml")),
        notes=("2 pixels changed",),
        findings=(
            Finding(level="warning", check="colours", message="2 pixels changed", scene="s0"),
            Finding(level="note", check="splits", message="nothing left out"),
        ),
        facts={"s0": plain_facts(FACTS)},
        source_hashes={"a.tif": "ab" * 32},
    )


@pytest.mark.parametrize("eroded", [True, False])
def test_what_is_saved_is_opened(tmp_path: Path, eroded: bool) -> None:
    manifest = make_manifest(tmp_path, epsg=(32633, 32633), eroded=eroded)
    manifest.save(tmp_path)
    opened = Manifest.open(tmp_path)
    assert opened == manifest
    assert opened.has_eroded is eroded
    assert opened.splits == ("train", "val")
    assert opened.class_counts("val") == (2000, 48)
    assert opened.scene_tiles("s1", "val")[0].window.col_off == 32


def test_paths_are_relative_on_disk_so_that_the_folder_can_move(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    make_manifest(first).save(first)
    moved = first.rename(tmp_path / "second")
    assert Manifest.open(moved).tiles[0].image == moved / "images/s0_000_000.tif"


def test_footprints_open_in_geopandas(tmp_path: Path) -> None:
    make_manifest(tmp_path).save(tmp_path)
    frame = geopandas.read_parquet(tmp_path / "manifest.parquet")
    assert frame.crs.to_epsg() == 32633
    assert frame.geometry.iloc[1].bounds == (400016.0, 5799984.0, 400032.0, 5800000.0)
    assert frame["count_building"].tolist() == [0, 24]


def test_footprints_of_several_crs_are_geographic(tmp_path: Path) -> None:
    make_manifest(tmp_path, epsg=(32633, 4326)).save(tmp_path)
    frame = geopandas.read_parquet(tmp_path / "manifest.parquet")
    assert frame.crs.to_epsg() == 4326
    left, bottom, _, _ = frame.geometry.iloc[0].bounds
    assert 13 < left < 15
    assert 52 < bottom < 53
    assert frame.geometry.iloc[2].bounds[0] == 15.0


def test_footprints_without_crs_are_pixels(tmp_path: Path) -> None:
    make_manifest(tmp_path, epsg=(None,)).save(tmp_path)
    assert geopandas.read_parquet(tmp_path / "manifest.parquet").crs is None


def test_split_hash_knows_where_tiles_lie(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    manifest.save(tmp_path)
    assert Manifest.open(tmp_path).split_hash == manifest.split_hash
    other = make_manifest(tmp_path, epsg=(32633, 32633))
    assert other.split_hash != manifest.split_hash


def test_bad_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match=r"nowhere: not found; run `ctrs prepare SOURCE` first"):
        Manifest.open(tmp_path / "nowhere")
    with pytest.raises(InputNotFoundError, match=r"prepared\.json: not found; it is no prepared data set"):
        Manifest.open(tmp_path)
    make_manifest(tmp_path).save(tmp_path)
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match=r"manifest\.parquet: not readable as a manifest"):
        Manifest.open(tmp_path)
    (tmp_path / "manifest.parquet").unlink()
    with pytest.raises(InputNotFoundError, match=r"manifest\.parquet: not found; the prepared data set is incomplete"):
        Manifest.open(tmp_path)


def test_other_format_versions_are_refused(tmp_path: Path) -> None:
    make_manifest(tmp_path).save(tmp_path)
    path = tmp_path / "prepared.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "format_version": 99}))
    with pytest.raises(DataError, match="format_version 99 found, expected 2"):
        Manifest.open(tmp_path)
    del document["bands"]
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"prepared\.json: 'bands' is missing or wrong"):
        Manifest.open(tmp_path)
    path.write_text("{")
    with pytest.raises(DataError, match="not readable"):
        Manifest.open(tmp_path)


def test_older_formats_are_refused_with_what_to_do(tmp_path: Path) -> None:
    make_manifest(tmp_path).save(tmp_path)
    path = tmp_path / "prepared.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "format_version": 1}))
    with pytest.raises(DataError, match="format_version 1 found, expected 2; run `ctrs prepare` again"):
        Manifest.open(tmp_path)


def test_a_table_without_a_column_is_refused(tmp_path: Path) -> None:
    make_manifest(tmp_path).save(tmp_path)
    path = tmp_path / "manifest.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns(["near_folds"]), path)
    with pytest.raises(DataError, match=r"manifest\.parquet: .*near_folds.*; run `ctrs prepare` again"):
        Manifest.open(tmp_path)


def test_prepared_json_holds_findings_counts_and_hashes(tmp_path: Path) -> None:
    make_manifest(tmp_path).save(tmp_path)
    document = json.loads((tmp_path / "prepared.json").read_text())
    assert document["findings"][0] == {
        "level": "warning", "check": "colours", "message": "2 pixels changed", "scene": "s0",
        "items": [],
    }  # fmt: skip
    facts = document["facts"]["s0"]
    assert facts["label_counts"] == facts["tiled_counts"] == [1900, 100]
    assert facts["unknown"] == {"7": 3}
    assert "preview" not in facts
    assert document["source_hashes"] == {"a.tif": "ab" * 32}
    assert document["config"]["val"] == ["s*"]
    assert document["ctrs_version"]


@pytest.mark.parametrize("epsg", [(32633,), (32633, 4326), (None,)])
def test_the_table_is_valid_geoparquet(tmp_path: Path, epsg: tuple[int | None, ...]) -> None:
    make_manifest(tmp_path, epsg=epsg).save(tmp_path)
    schema = pyarrow.parquet.read_schema(tmp_path / "manifest.parquet")
    geo = json.loads(schema.metadata[b"geo"])
    assert geo["version"].startswith("1.")
    column = geo["columns"][geo["primary_column"]]
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["Polygon"]
    frame = geopandas.read_parquet(tmp_path / "manifest.parquet")
    assert column["bbox"] == pytest.approx(frame.total_bounds.tolist())
    if epsg == (None,):
        assert column["crs"] is None
    else:
        assert pyproj.CRS.from_json_dict(column["crs"]).to_epsg() == (4326 if len(epsg) == 2 else 32633)
    # Types that readers know, even where a column is empty throughout.
    assert schema.field("fold").type == pyarrow.int32()
    assert schema.field("near_folds").type == pyarrow.list_(pyarrow.int32())
    assert schema.field("hash").type in (pyarrow.string(), pyarrow.large_string())
    assert frame["fold"].isna().all()


@pytest.mark.skipif("Parquet" not in pyogrio.list_drivers(), reason="this GDAL has no Parquet driver")
def test_gdal_opens_the_table(tmp_path: Path) -> None:
    make_manifest(tmp_path).save(tmp_path)
    assert pyogrio.read_info(tmp_path / "manifest.parquet")["crs"] == "EPSG:32633"


def test_folds_survive_the_file(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, epsg=(32633, 32633), folds=(1, None), near=((0, 2), ()))
    manifest.save(tmp_path)
    opened = Manifest.open(tmp_path)
    assert opened == manifest
    assert [(tile.fold, tile.near_folds, tile.hash) for tile in opened.tiles[:2]] == [
        (1, (0, 2), "s00"), (None, (), "s01"),
    ]  # fmt: skip
    frame = geopandas.read_parquet(tmp_path / "manifest.parquet")
    assert frame["near_folds"].map(list).tolist() == [[0, 2], [], [0, 2], []]


def test_a_fold_validates_and_those_near_it_are_left_out(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, epsg=(32633, 32633), folds=(0, 1))
    divided = manifest.for_fold(1)
    assert [tile.split for tile in divided.tiles] == ["train", "val", "train", "val"]
    assert divided.split_hash != manifest.for_fold(0).split_hash
    near = make_manifest(tmp_path, folds=(0, 1), near=((1,), ()))
    assert [tile.fold for tile in near.for_fold(1).tiles] == [1]
    assert [tile.split for tile in near.for_fold(0).tiles] == ["val", "val"]
    assert near.num_folds == 2


def test_folds_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fold 0 asked for, but these data have no folds; leave out --fold"):
        make_manifest(tmp_path).for_fold(0)
    for number in (-1, 2):
        with pytest.raises(DataError, match=f"no fold {number}; expected 0 to 1"):
            make_manifest(tmp_path, folds=(0, 1)).for_fold(number)
