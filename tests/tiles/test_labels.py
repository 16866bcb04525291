"""Labels of any kind, from sources to masks: nothing is guessed silently, and what is strange is named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from ctrs.classes import BUILDING_CLASSES, ClassMap, LandClass
from ctrs.config import PrepareConfig
from ctrs.errors import (
    BandMismatchError,
    DataWarning,
    GridMismatchError,
    LabelError,
    LabelWarning,
    MissingCrsWarning,
    RasterError,
    UnknownColorError,
)
from ctrs.raster.geotiff import Grid
from ctrs.tiles import Manifest, prepare_tiles
from ctrs.tiles.raster_labels import open_raster_label

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

UTM = "EPSG:32633"
TRANSFORM = Affine(0.5, 0, 400000, 0, -0.5, 5800000)
PLACED: dict[str, Any] = {"transform": TRANSFORM, "crs": UTM}
H, W = 60, 90
LEGEND = {0: (60, 16, 152), 1: (132, 41, 246), 2: (110, 193, 228)}
CLASSES = """
class = [
    { name = "building", color = [60, 16, 152], value = 10 },
    { name = "land", color = [132, 41, 246], value = 20 },
    { name = "road", color = [110, 193, 228], value = 30 },
    { name = "unlabelled", color = [155, 155, 155], value = 40, ignored = true },
]
"""


@pytest.fixture
def source(make: Maker, tmp_path: Path) -> Path:
    """A folder with one image, no label yet."""
    make.raster(tmp_path / "src/images/a.tif", make.noise(H, W), **PLACED)
    return tmp_path / "src"


def prepare(source: Path, **options: Any) -> tuple[Manifest, np.ndarray]:
    """Prepare with one tile for the scene; returns the manifest and the mask."""
    config = PrepareConfig(val_fraction=0, overwrite=True, **options)
    manifest = prepare_tiles(source, source.parent / "out", config)
    with rasterio.open(manifest.tiles[0].mask) as dataset:
        return manifest, dataset.read(1)


def colors(indices: np.ndarray) -> np.ndarray:
    return np.array(list(LEGEND.values()), np.uint8)[indices].transpose(2, 0, 1)


@pytest.mark.parametrize("on", [1, 255])
def test_binary_rasters_are_buildings(make: Maker, source: Path, on: int) -> None:
    truth = make.indices(H, W, num=2)
    make.raster(source / "labels/a.tif", truth * np.uint8(on), **PLACED)
    manifest, mask = prepare(source)
    assert manifest.classes.names == ("background", "building")
    assert np.array_equal(mask, truth)


def test_binary_rasters_with_255_ignored(make: Maker, source: Path) -> None:
    truth = make.indices(H, W, num=2)
    truth[:5] = 255
    make.raster(source / "labels/a.tif", truth, **PLACED)
    with pytest.warns(LabelWarning, match=f"value 255 in {5 * W} px is taken as ignored"):
        manifest, mask = prepare(source)
    assert manifest.classes.names == ("background", "building")
    assert np.array_equal(mask, truth)


def test_other_values_become_numbered_classes(make: Maker, source: Path) -> None:
    truth = make.indices(H, W, num=4)
    make.raster(source / "labels/a.tif", (truth.astype(np.int32) * 1000), **PLACED)
    manifest, mask = prepare(source)
    assert manifest.classes.names == ("class_0", "class_1000", "class_2000", "class_3000")
    assert np.array_equal(mask, truth)


def test_class_values_of_a_table(make: Maker, source: Path) -> None:
    truth = make.indices(H, W, num=4)
    make.raster(source / "labels/a.tif", (truth + 1) * 10, **PLACED)
    (source / "classes.toml").write_text(CLASSES)
    manifest, mask = prepare(source)
    assert manifest.classes.names == ("building", "land", "road")
    assert np.array_equal(mask, np.where(truth == 3, 255, truth))


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
def test_class_values_of_any_dtype(make: Maker, source: Path, dtype: str) -> None:
    values = np.array([-9999, 7, 30000 if dtype == "int16" else 70_000, -1]).astype(dtype)
    truth = make.indices(H, W, num=4)
    make.raster(source / "labels/a.tif", values[truth], **PLACED)
    (source / "classes.json").write_text(
        json.dumps({"a": {"value": -9999}, "b": {"value": 7}, "c": {"value": int(values[2])},
                    "d": {"value": -1, "ignored": True}})
    )  # fmt: skip
    manifest, mask = prepare(source, classes=source / "classes.json")
    assert manifest.classes.names == ("a", "b", "c")
    assert np.array_equal(mask, np.where(truth == 3, 255, truth))


def test_nan_of_a_class_raster_is_ignored(make: Maker, source: Path) -> None:
    truth = make.indices(H, W, num=2)
    for nodata in (None, float("nan")):
        make.raster(
            source / "labels/a.tif", np.where(truth == 0, np.nan, truth).astype("float32"), nodata=nodata, **PLACED
        )
        with pytest.warns(LabelWarning, match="hold no pixel|no label holds"):
            manifest, mask = prepare(source)
        assert manifest.classes == BUILDING_CLASSES
        assert np.array_equal(mask, np.where(truth == 0, 255, truth))


def test_unknown_values_are_named_with_counts_and_first_place(make: Maker, source: Path) -> None:
    pixels = (make.indices(H, W, num=4) + 1) * 10
    pixels[40, 50:60] = 77
    pixels[50, 3] = 78
    make.raster(source / "labels/a.tif", pixels, **PLACED)
    (source / "classes.toml").write_text(CLASSES)
    expected = (
        r"a\.tif: unknown label value 77 in 10 px, 78 in 1 px, first at row 40, column 50; expected building 10, .*"
        r"unlabelled 40; add the value to the class table \(classes\.toml\) or mark it ignored = true there"
    )
    with pytest.raises(UnknownColorError, match=expected):
        prepare(source, tile_px=32)


def test_color_coded_labels(make: Maker, source: Path) -> None:
    truth = make.indices(H, W, num=3)
    make.raster(source / "labels/a.png", colors(truth))
    (source / "classes.toml").write_text(CLASSES)
    _, mask = prepare(source)
    assert np.array_equal(mask, truth)


def test_transparent_label_pixels_are_ignored(make: Maker, source: Path) -> None:
    truth = make.indices(H, W, num=3)
    rgba = np.concatenate([colors(truth), np.full((1, H, W), 255, np.uint8)])
    rgba[:, :7] = 0
    make.raster(source / "labels/a.png", rgba)
    (source / "classes.toml").write_text(CLASSES)
    _, mask = prepare(source)
    assert (mask[:7] == 255).all()
    assert np.array_equal(mask[7:], truth[7:])


def test_unknown_colors_are_named_over_the_whole_file(make: Maker, source: Path) -> None:
    pixels = colors(make.indices(H, W, num=3))
    pixels[:, 30, 4:8] = 0
    pixels[:, 59, 80:] = 9
    make.raster(source / "labels/a.png", pixels)
    (source / "classes.toml").write_text(CLASSES)
    expected = r"a\.png: unknown label colour \(9, 9, 9\) in 10 px, \(0, 0, 0\) in 4 px, first at row 30, column 4; "
    with pytest.raises(UnknownColorError, match=expected):
        prepare(source, tile_px=32)
    assert not (source.parent / "out").exists()
    # What was cut before the error is of no use: with mended labels it would be another job.
    assert not (source.parent / ".out.partial").exists()


def test_colors_without_a_table_print_one_that_works(make: Maker, source: Path) -> None:
    truth = make.indices(H, W, num=3)
    make.raster(source / "labels/a.png", colors(truth))
    with pytest.raises(
        LabelError, match=r"colour-coded labels and no class table; name one with --classes .*classes\.toml"
    ) as caught:
        prepare(source)
    snippet = str(caught.value).split("names: ")[1]
    assert snippet.count("{") == 3
    (source / "classes.toml").write_text(snippet)
    manifest, mask = prepare(source)
    counts = np.bincount(truth.ravel())
    assert [manifest.class_counts("train")[index] for index in range(3)] == sorted(counts, reverse=True)
    assert len(np.unique(mask)) == 3


def test_palette_labels_are_expanded_where_the_colors_are_the_legend(make: Maker, source: Path) -> None:
    truth = make.indices(H, W, num=3)
    positions = np.array([7, 3, 5], np.uint8)
    palette = {int(positions[index]): (*color, 255) for index, color in LEGEND.items()}
    make.raster(source / "labels/a.png", positions[truth], colormap=palette)
    (source / "classes.toml").write_text(CLASSES)
    _, mask = prepare(source)
    assert np.array_equal(mask, truth)


def test_strays_in_a_palette_are_unknown_colors_not_class_values(make: Maker, source: Path) -> None:
    truth = make.indices(H, W, num=3)
    palette = {10: (*LEGEND[0], 255), 20: (*LEGEND[2], 255), 30: (*LEGEND[1], 255), 40: (0, 0, 0, 255)}
    pixels = np.array([10, 20, 30], np.uint8)[truth]
    pixels[2, 3:9] = 40  # as a class value this would be "unlabelled"
    make.raster(source / "labels/a.png", pixels, colormap=palette)
    (source / "classes.toml").write_text(CLASSES)
    with pytest.raises(UnknownColorError, match=r"colour \(0, 0, 0\) in 6 px, first at row 2, column 3"):
        prepare(source)


def test_palette_of_other_colors_holds_class_values(make: Maker, source: Path) -> None:
    truth = make.indices(H, W, num=3)
    palette = {(index + 1) * 10: (index, 99, index, 255) for index in range(3)}
    make.raster(source / "labels/a.tif", (truth + 1) * 10, colormap=palette, **PLACED)
    (source / "classes.toml").write_text(CLASSES)
    _, mask = prepare(source)
    assert np.array_equal(mask, truth)


def test_nodata_of_a_label_is_ignored_unless_it_is_a_class(make: Maker, source: Path) -> None:
    truth = make.indices(H, W, num=2)
    make.raster(source / "labels/a.tif", truth, nodata=0, **PLACED)
    with pytest.warns(LabelWarning, match=r"nodata value is that of class background; it is read as the class"):
        _, mask = prepare(source)
    assert np.array_equal(mask, truth)
    truth[:9] = 200
    make.raster(source / "labels/a.tif", truth, nodata=200, **PLACED)
    manifest, mask = prepare(source)
    assert manifest.classes == BUILDING_CLASSES
    assert (mask[:9] == 255).all()
    assert np.array_equal(mask[9:], truth[9:])


def test_labels_of_another_grid_are_refused(make: Maker, source: Path) -> None:
    make.raster(source / "labels/a.tif", make.indices(H, W + 1, num=2), **PLACED)
    with pytest.raises(
        GridMismatchError, match=r"labels/a\.tif: 91 x 60 px found, expected the 90 x 60 px of its image"
    ):
        prepare(source)
    truth = make.indices(H, W, num=2)
    shifted = TRANSFORM @ Affine.translation(2, 0)
    make.raster(source / "labels/a.tif", truth, transform=shifted, crs=UTM)
    expected = (
        r"does not lie on the grid of its image .*corners up to 2 pixels apart .*origin 400001, 5800000.*origin 400000"
    )
    with pytest.raises(GridMismatchError, match=expected):
        prepare(source)
    make.raster(source / "labels/a.tif", truth, transform=TRANSFORM, crs="EPSG:32634")
    with pytest.raises(GridMismatchError, match="CRS EPSG:32634 instead of EPSG:32633"):
        prepare(source)
    make.raster(source / "labels/a.tif", truth)  # no georeference, same size
    assert np.array_equal(prepare(source)[1], truth)
    make.raster(source / "labels/a.tif", truth, transform=TRANSFORM @ Affine.translation(0.1, 0.1), crs=UTM)
    assert np.array_equal(prepare(source)[1], truth)


def test_labels_that_are_images_are_refused(make: Maker, source: Path) -> None:
    make.raster(source / "labels/a.tif", make.noise(H, W, count=1, dtype="float32") + 0.5, **PLACED)
    with pytest.raises(LabelError, match=r"value .*\.5 found, expected whole class numbers; is this a label\?"):
        prepare(source)
    make.raster(source / "labels/a.tif", np.arange(H * W, dtype=np.uint16).reshape(H, W), **PLACED)
    with pytest.raises(LabelError, match="more than 250 different values found"):
        prepare(source)


@pytest.mark.parametrize(
    ("pixels", "kind", "message"),
    [
        (np.zeros((3, H, W), np.uint16), "auto", "colours of dtype uint16 found, expected uint8"),
        (np.zeros((3, H, W), np.uint8), "values", "3 bands found, expected one with class values"),
        (np.zeros((1, H, W), np.uint8), "colors", "one band without colour table found, expected colours"),
    ],
)
def test_labels_of_another_kind_than_asked_for(
    make: Maker, tmp_path: Path, pixels: np.ndarray, kind: Any, message: str
) -> None:
    path = make.raster(tmp_path / "a.tif", pixels, **PLACED)
    classes = ClassMap(classes=(LandClass(value=0, name="x", color=(0, 0, 0)),))
    from rasterio.crs import CRS

    grid = Grid(crs=CRS.from_string(UTM), transform=TRANSFORM, width=W, height=H)
    with pytest.raises(LabelError, match=message):
        open_raster_label(path, Path("image.tif"), grid, classes, kind=kind, tolerance=0)


def write_polygons(path: Path, shapes: list[Any], crs: Any = UTM, **fields: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if crs is None:
        path.write_text(
            json.dumps(
                {
                    "type": "FeatureCollection",
                    "features": [
                        {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)}
                        for shape in shapes
                    ],
                }
            )
        )
        return path
    frame = geopandas.GeoDataFrame(fields, geometry=shapes, crs=crs)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_file(path)
    return path


def pixel_box(left: float, top: float, right: float, bottom: float) -> Any:
    (x0, y0), (x1, y1) = TRANSFORM @ (left, top), TRANSFORM @ (right, bottom)
    return shapely.box(x0, y1, x1, y0)


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".shp", ".fgb", ".parquet"])
@pytest.mark.parametrize("crs", [UTM, "EPSG:3857"])
def test_polygons_are_buildings_on_background(source: Path, suffix: str, crs: str) -> None:
    frame = geopandas.GeoSeries([pixel_box(10, 20, 30, 40), pixel_box(50, 0, 200, 10)], crs=UTM).to_crs(crs)
    write_polygons(source / f"labels/a{suffix}", list(frame), crs)
    manifest, mask = prepare(source)
    expected = np.zeros((H, W), np.uint8)
    expected[20:40, 10:30] = 1
    expected[:10, 50:] = 1
    assert manifest.classes == BUILDING_CLASSES
    assert np.array_equal(mask, expected)


def test_class_field_without_a_table(source: Path) -> None:
    shapes = [pixel_box(0, 0, 10, 10), pixel_box(10, 0, 20, 10), pixel_box(5, 0, 12, 5)]
    write_polygons(source / "labels/a.gpkg", shapes, kind=["Road", "building", "road"])
    with pytest.warns(
        LabelWarning, match="1 pair of polygons of different classes overlaps on 2.5.* m2, most often bui"
    ):
        manifest, mask = prepare(source, class_field="kind")
    assert manifest.classes.names == ("background", "building", "road")
    assert mask[0, [0, 7, 11, 15, 25]].tolist() == [2, 2, 2, 1, 0]  # later polygons lie on top


def test_numbers_in_a_class_field(source: Path) -> None:
    shapes = [pixel_box(0, 0, 10, 10), pixel_box(10, 0, 20, 10), pixel_box(20, 0, 30, 10)]
    write_polygons(source / "labels/a.gpkg", shapes, code=[4, 2, 255])
    with pytest.warns(LabelWarning, match="code = 255 in 1 polygons is taken as ignored"):
        manifest, mask = prepare(source, class_field="code")
    assert manifest.classes.names == ("background", "class_2", "class_4")
    assert [entry.value for entry in manifest.classes.learnt] == [0, 2, 4]
    assert mask[0, [0, 15, 25, 35]].tolist() == [2, 1, 255, 0]


def test_class_field_with_a_table(source: Path) -> None:
    shapes = [pixel_box(0, 0, 10, 10), pixel_box(10, 0, 20, 10)]
    (source / "classes.toml").write_text(CLASSES.replace("land", "background"))
    write_polygons(source / "labels/a.gpkg", shapes, kind=["building", "30"])
    _, mask = prepare(source, class_field="kind")
    assert mask[0, [0, 15, 25]].tolist() == [0, 2, 1]
    write_polygons(source / "labels/a.gpkg", shapes, kind=["building", "shed"])
    expected = (
        r"unknown label value 'shed' in 1 polygons in field 'kind', first in polygon 1; expected building \(10\), back"
    )
    with pytest.raises(UnknownColorError, match=expected):
        prepare(source, class_field="kind")


def test_a_table_without_background_ignores_ground_without_polygons(source: Path) -> None:
    (source / "classes.toml").write_text(CLASSES)
    write_polygons(source / "labels/a.gpkg", [pixel_box(0, 0, 10, 10)])
    with pytest.warns(
        LabelWarning, match="no class background, so ground without polygons is ignored|hold no pixel|no label holds"
    ):
        _, mask = prepare(source)
    assert mask[0, [0, 15]].tolist() == [0, 255]


def test_fields_that_do_not_serve(source: Path) -> None:
    write_polygons(source / "labels/a.gpkg", [pixel_box(0, 0, 10, 10)], kind=[None], name=["x"])
    with pytest.raises(LabelError, match=r"a\.gpkg: no field 'class' found, expected one of its fields: kind, name"):
        prepare(source, class_field="class")
    with pytest.raises(LabelError, match="field 'kind' holds 0 different values"):
        prepare(source, class_field="kind")
    (source / "classes.toml").write_text(CLASSES.replace("building", "house"))
    with (
        pytest.warns(LabelWarning, match="no class background"),
        pytest.raises(LabelError, match="the class table has no class building"),
    ):
        prepare(source)


def test_broken_polygons_are_mended_and_counted(source: Path) -> None:
    bow = shapely.Polygon([TRANSFORM @ (x, y) for x, y in ((0, 0), (20, 20), (20, 0), (0, 20))])
    point = shapely.Point(*(TRANSFORM @ (1, 1)))
    write_polygons(source / "labels/a.gpkg", [bow, pixel_box(40, 0, 50, 10), point])
    with pytest.warns(LabelWarning) as caught:
        _, mask = prepare(source)
    messages = " | ".join(str(entry.message) for entry in caught)
    assert "1 of 2 polygons were invalid and have been repaired" in messages
    assert "1 features without area (points, lines, empty) are left out; --label-buffer METRES draws" in messages
    assert mask[10, 2] == 1
    assert mask[2, 10] == 0
    assert 150 < mask[:20, :20].sum() < 250


def test_lines_and_points_are_drawn_where_a_width_is_given(source: Path) -> None:
    line = shapely.LineString([TRANSFORM @ (10, 30), TRANSFORM @ (60, 30)])
    shapes = [line, shapely.Point(*(TRANSFORM @ (30, 30))), pixel_box(70, 0, 80, 10)]
    frame = geopandas.GeoSeries(shapes, crs=UTM).to_crs(3857)
    write_polygons(source / "labels/a.gpkg", list(frame), 3857, kind=["road", "tree", "house"], width=[2.0, 5.0, None])
    _, mask = prepare(source, class_field="kind", label_buffer_field="width", paint_order=("tree", "road"))
    assert mask[[27, 33, 22, 5], [30, 15, 30, 75]].tolist() == [2, 2, 3, 1]
    assert (mask == 2).sum() == pytest.approx(50 * 8 + np.pi * 16, rel=0.03)
    with pytest.warns(LabelWarning, match="1 pair of polygons, lines and points of different classes overlaps on 3"):
        _, mask = prepare(source, class_field="kind", label_buffer_m=1.0)
    assert mask[[28, 33, 22], [15, 15, 30]].tolist() == [2, 0, 0]


def test_lossy_and_smoothed_colors_are_read_as_the_nearest(make: Maker, source: Path) -> None:
    truth = make.indices(H, W, num=3)
    pixels = colors(truth).astype(int)
    smooth = (pixels * 3 + np.roll(pixels, 1, axis=2)) // 4
    make.raster(source / "labels/a.png", smooth.astype(np.uint8))
    (source / "classes.toml").write_text(CLASSES)
    with pytest.raises(UnknownColorError, match="as the nearest of the legend with --nearest-color"):
        prepare(source)
    with pytest.warns(LabelWarning, match="px have colours .* read as the nearest one"):
        _, mask = prepare(source, nearest_color=True)
    assert np.array_equal(mask[:, 1:], truth[:, 1:])


def test_polygons_elsewhere_are_said(source: Path) -> None:
    write_polygons(source / "labels/a.gpkg", [pixel_box(5000, 0, 5010, 10)])
    with (
        pytest.warns(LabelWarning, match="none of its 1 polygons lies on"),
        pytest.raises(LabelError, match=r"none of its polygons lies on .*check the CRS and place"),
    ):
        prepare(source)


def test_polygons_in_pixels_for_images_without_crs(make: Maker, source: Path) -> None:
    make.raster(source / "images/a.tif", make.noise(H, W))
    write_polygons(source / "labels/a.geojson", [shapely.box(10, 20, 30, 40)], None)
    with pytest.warns((MissingCrsWarning, LabelWarning)) as caught:
        _, mask = prepare(source)
    assert any("its coordinates are taken to be those of its labels" in str(entry.message) for entry in caught)
    assert mask[20:40, 10:30].all()
    assert mask.sum() == 400


def test_vector_files_that_cannot_be_read(source: Path) -> None:
    (source / "labels").mkdir()
    (source / "labels/a.geojson").write_text("{")
    with pytest.raises(LabelError, match=r"a\.geojson: not readable as polygons"):
        prepare(source)
    (source / "labels/a.geojson").unlink()
    path = write_polygons(source / "labels/a.gpkg", [pixel_box(0, 0, 10, 10)])
    geopandas.GeoDataFrame(geometry=[pixel_box(0, 0, 1, 1)], crs=UTM).to_file(path, layer="second")
    with pytest.raises(
        LabelError, match=r"2 layers with geometry found \(a, second\), expected one; name one as a\.gpkg\|layername=a"
    ):
        prepare(source)


def test_one_layer_of_several(make: Maker, source: Path) -> None:
    path = write_polygons(source / "town.gpkg", [pixel_box(0, 0, 10, 10)])
    geopandas.GeoDataFrame(geometry=[pixel_box(20, 0, 40, 10)], crs=UTM).to_file(path, layer="second")
    _, mask = prepare(source, labels=(f"{path}|layername=second",))
    assert (mask.sum(), mask[5, 30]) == (200, 1)
    _, mask = prepare(source, labels=("town.gpkg|layername=town",))
    assert (mask.sum(), mask[5, 5]) == (100, 1)


def test_images_of_different_kinds_are_refused(make: Maker, source: Path) -> None:
    make.raster(source / "images/b.tif", make.noise(H, W, count=1, dtype="uint16"), **PLACED)
    for name in "ab":
        make.raster(source / f"labels/{name}.tif", make.indices(H, W, num=2), **PLACED)
    expected = (
        r"b\.tif: 1 bands of uint16 found, but 3 bands of uint8 in .*a\.tif; prepare images of different kinds apart"
    )
    with pytest.raises(BandMismatchError, match=expected):
        prepare(source)


@pytest.mark.parametrize("bidx", [(), (3, 1)])
def test_near_infrared_marked_as_alpha_is_said(make: Maker, source: Path, bidx: tuple[int, ...]) -> None:
    pixels = make.noise(H, W, count=4)
    make.raster(source / "images/a.tif", pixels, photometric="RGB", alpha="YES", **PLACED)
    make.raster(source / "labels/a.tif", make.indices(H, W, num=2), **PLACED)
    with pytest.warns(DataWarning, match=r"a\.tif: band 4 is marked as alpha but holds more than 32"):
        prepare(source, bidx=bidx)


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_truncated_files_are_named(make: Maker, source: Path, kind: str) -> None:
    truth = np.random.default_rng(0).integers(0, 2, (H, W)).astype(np.uint8)
    make.raster(source / "labels/a.tif", truth, **PLACED)
    (source / "classes.toml").write_text('class = [{ name = "x", value = 0 }, { name = "y", value = 1 }]')
    path = source / f"{kind}/a.tif"
    path.write_bytes(path.read_bytes()[: path.stat().st_size - H * W // 2])
    with pytest.raises(RasterError, match=re.escape(f"{kind}/a.tif: not readable")):
        prepare(source)
    path.write_bytes(b"II*\0 nothing")
    with pytest.raises(RasterError, match=re.escape(f"{kind}/a.tif: not readable as a raster")):
        prepare(source)
