"""Order, width and overlap of the features of vector labels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from ctrs.classes import IGNORE_INDEX, ClassMap, LandClass
from ctrs.config import PrepareConfig
from ctrs.errors import ConfigError, LabelError, LabelWarning, UnknownColorError
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.findings import Findings
from ctrs.tiles.labelling import read_layers
from ctrs.tiles.painting import PaintedLayer, overlaps, paint_layers
from ctrs.tiles.polygon_labels import polygon_values
from ctrs.tiles.scene_source import SceneSource
from ctrs.vector.rasterize import PolygonLayer, place_polygons, read_polygons

UTM = "EPSG:32633"
TRANSFORM = Affine(0.5, 0, 400000, 0, -0.5, 5800000)
GRID = Grid(crs=CRS.from_string(UTM), transform=TRANSFORM, width=90, height=60)
CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="background", color=(0, 0, 0)),
        LandClass(value=1, name="building", color=(1, 0, 0)),
        LandClass(value=2, name="road", color=(2, 0, 0)),
        LandClass(value=3, name="void", color=(3, 0, 0), ignored=True),
        LandClass(value=4, name="water", color=(4, 0, 0)),
    )
)
WHOLE = PixelWindow(col_off=0, row_off=0, width=90, height=60)


def at(*pixels: tuple[float, float]) -> list[tuple[float, float]]:
    return [TRANSFORM @ pixel for pixel in pixels]


def box(left: float, top: float, right: float, bottom: float) -> Any:
    return shapely.Polygon(at((left, top), (right, top), (right, bottom), (left, bottom)))


def paint(
    shapes: list[Any], config: PrepareConfig, findings: Findings | None = None, crs: Any = UTM, **fields: list[Any]
) -> PaintedLayer:
    path = Path("a.gpkg")
    layer = PolygonLayer(path=path, frame=geopandas.GeoDataFrame(fields, geometry=shapes, crs=crs))
    return paint_layers({path: layer}, CLASSES, config, findings or Findings())[path]


def mask_of(painted: PaintedLayer, grid: Grid = GRID) -> np.ndarray:
    polygons = place_polygons(painted.layer, grid, painted.values, widths_m=painted.widths_m)
    return polygons.rasterize(WHOLE, background=0)


NESTED = [box(0, 0, 40, 40), box(5, 5, 35, 35), box(10, 10, 30, 30), box(15, 15, 25, 25)]
PLACES = ([2, 7, 12, 20], [2, 7, 12, 20])
KINDS = ["building", "road", "void", "water"]


@pytest.mark.parametrize(
    ("options", "order", "expected"),
    [
        ({}, [0, 1, 2, 3], [1, 2, 255, 3]),
        ({}, [3, 2, 1, 0], [1, 1, 1, 1]),
        ({"paint_order": ("building", "road", "void", "water")}, [3, 1, 0, 2], [1, 2, 255, 3]),
        ({"paint_order": ("Road",)}, [1, 0, 2, 3], [1, 2, 2, 2]),
        ({"paint_order": ("void", "road")}, [1, 0, 3, 2], [1, 2, 2, 2]),
        ({"priority_field": "level"}, [3, 2, 1, 0], [1, 2, 255, 3]),
        ({"priority_field": "level", "paint_order": ("road",)}, [3, 2, 1, 0], [1, 2, 2, 2]),
    ],
)
def test_order_of_painting(options: dict[str, Any], order: list[int], expected: list[int]) -> None:
    config = PrepareConfig(class_field="kind", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if not options else "error", LabelWarning)
        painted = paint(
            [NESTED[place] for place in order],
            config,
            kind=[KINDS[place] for place in order],
            level=[float(place) for place in order],
        )
    assert mask_of(painted)[PLACES].tolist() == expected


def test_equal_priorities_stay_in_file_order_and_missing_ones_lie_lowest() -> None:
    config = PrepareConfig(class_field="kind", priority_field="level")
    with pytest.warns(LabelWarning, match=r"a\.gpkg: 1 features have no level; they are painted first"):
        painted = paint(NESTED[::-1], config, kind=KINDS[::-1], level=["1", " 1.0", None, 1])
    assert painted.values.tolist() == [2, 3, IGNORE_INDEX, 1]


def test_wrong_priorities_and_orders_are_named() -> None:
    findings = Findings()
    config = PrepareConfig(class_field="kind", priority_field="level")
    paint(NESTED, config, findings, kind=KINDS, level=[1, 2, "high", 4])
    with pytest.raises(LabelError, match=r"a\.gpkg: level = 'high' found in feature 2, expected a number"):
        findings.raise_faults()
    with pytest.raises(ConfigError, match="paint order: class 'lake' is unknown; expected some of: background, buil"):
        paint(NESTED, PrepareConfig(paint_order=("road", "lake")))


def test_faults_of_layers_are_gathered() -> None:
    findings = Findings()
    painted = paint(NESTED, PrepareConfig(class_field="kind"), findings, kind=["hut"] * 4)
    assert np.unique(mask_of(painted)).tolist() == [0, IGNORE_INDEX]
    with pytest.raises(UnknownColorError, match="'hut' in 4 polygons"):
        findings.raise_faults()


def test_widths_of_lines_and_points() -> None:
    shapes = [shapely.LineString(at((10, 20), (50, 20))), shapely.Point(at((70, 40))[0]), box(0, 50, 5, 60)]
    mask = mask_of(paint(shapes, PrepareConfig(label_buffer_m=2.0)))
    assert mask[16:24, 12:48].all()
    assert not mask[[15, 24], 12:48].any()
    disc = mask[30:50, 60:80].sum()
    assert disc == pytest.approx(np.pi * 16, rel=0.1)
    assert mask[50:60, :5].all()
    assert mask.sum() == mask[50:60, :5].sum() + disc + mask[10:30, :60].sum()


def test_widths_of_a_field() -> None:
    shapes = [shapely.LineString(at((10, row), (50, row))) for row in (10, 20, 30, 40)]
    config = PrepareConfig(label_buffer_field="width")
    with pytest.warns(LabelWarning, match=r"a\.gpkg: 2 lines and points have no width above 0 and are left out"):
        painted = paint(shapes, config, width=[1.0, None, 3.0, 0])
    column = mask_of(painted)[:, 30]
    assert np.flatnonzero(column).tolist() == [8, 9, 10, 11, *range(24, 36)]
    both = PrepareConfig(label_buffer_field="width", label_buffer_m=2.0)
    assert paint(shapes, both, width=[1.0, None, 3.0, 4]).widths_m.tolist() == [1, 2, 3, 4]  # type: ignore[union-attr]
    findings = Findings()
    paint(shapes, config, findings, width=[1.0, -1, 3.0, -2])
    with pytest.raises(LabelError, match=r"width = -1 found in feature 1 \(and 1 more\), expected a width in metres"):
        findings.raise_faults()


def test_classes_that_overlap_are_named_with_their_ground() -> None:
    shapes = [box(0, 0, 20, 20), box(10, 0, 30, 20), box(10, 0, 30, 20), box(20, 0, 40, 20), box(50, 0, 60, 9)]
    kinds = ["building", "road", "road", "building", "water"]
    message = r"a\.gpkg: 4 pairs of polygons of different classes overlap on 200.* m2, most often building and road;"
    config = PrepareConfig(class_field="kind")
    with pytest.warns(LabelWarning, match=message):
        painted = paint(shapes, config, kind=kinds)
    pairs, areas, _ = overlaps(painted)
    assert sorted(map(tuple, pairs.tolist())) == [(0, 1), (0, 2), (1, 3), (2, 3)]
    assert areas == pytest.approx([50.0] * 4, rel=1e-3)
    degrees = [shape.wkt for shape in geopandas.GeoSeries(shapes, crs=UTM).to_crs(4326)]
    with pytest.warns(LabelWarning, match="4 pairs of polygons of different classes overlap on 200.* m2"):
        paint([shapely.from_wkt(text) for text in degrees], config, crs=4326, kind=kinds)
    paint(shapes, PrepareConfig(class_field="kind", paint_order=("road", "building")), kind=kinds)
    paint(shapes, config, kind=["road"] * 5)


@pytest.mark.parametrize("crs", [UTM, 4326])
def test_lines_overlap_as_wide_as_they_are_painted(crs: Any) -> None:
    shapes: list[Any] = [box(0, 0, 20, 20), shapely.LineString(at((0, 22), (20, 22))), shapely.Point(at((80, 50))[0])]
    placed = list(geopandas.GeoSeries(shapes, crs=UTM).to_crs(crs))
    kinds = ["building", "road", "water"]
    config = PrepareConfig(class_field="kind", label_buffer_m=2.0)
    message = (
        r"1 pair of polygons, lines and points of different classes overlaps on 10.* m2, most often building and r"
    )
    with pytest.warns(LabelWarning, match=message):
        paint(placed, config, crs=crs, kind=kinds)
    paint(placed, PrepareConfig(class_field="kind", label_buffer_m=0.9), crs=crs, kind=kinds)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LabelWarning)
        paint(placed, config, crs=None, kind=kinds)  # nobody knows how wide that is
        paint([*shapes[:2], shapely.Point(1e12, 1e12)], config, kind=kinds)  # nor there


def test_work_on_overlaps_is_bounded() -> None:
    shapes = [box(0, 0, 20 + n, 20 + n) for n in range(12)]
    painted = paint(shapes, PrepareConfig(class_field="kind", paint_order=("road",)), kind=["road", "building"] * 6)
    assert len(overlaps(painted)[0]) == 36
    assert overlaps(painted, most=10)[2] == 10


def test_real_classes_survive_reprojection(real_data: Path, tmp_path: Path) -> None:
    """Four classes over two images, from degrees: all are kept, and lie where the file's own CRS puts them."""
    folder = real_data / "nrcan_gdl_fixtures/new_brunswick_aerial_0.5m"
    own = read_polygons(folder / "BakerLake_2017.gpkg", class_field="Quatreclasses")
    geopandas.GeoDataFrame(own.frame).to_crs(4326).to_file(tmp_path / "degrees.geojson")
    degrees = read_polygons(tmp_path / "degrees.geojson", class_field="Quatreclasses")
    classes = ClassMap(
        classes=(
            LandClass(value=0, name="background", color=(0, 0, 0)),
            *(LandClass(value=n, name=f"class_{n}", color=(n, 0, 0)) for n in (1, 2, 3, 4)),
            LandClass(value=255, name="ignored", color=(255, 0, 0), ignored=True),
        )
    )
    seen: set[int] = set()
    for name in ("23322E759967N_1of2.tif", "23322E759967N_2of2.tif"):
        with open_raster(folder / name) as dataset:
            grid = Grid.of(dataset)
        window = PixelWindow(col_off=0, row_off=0, width=grid.width, height=grid.height)
        masks = [
            place_polygons(layer, grid, polygon_values(layer, classes, "Quatreclasses")).rasterize(window, background=0)
            for layer in (own, degrees)
        ]
        counts = [np.bincount(mask.ravel(), minlength=256) for mask in masks]
        assert (counts[0] > 0).tolist() == (counts[1] > 0).tolist()
        assert (masks[0] != masks[1]).mean() < 1e-3
        seen |= set(np.flatnonzero(counts[1]).tolist())
    assert {1, 2, 3, 4} <= seen


def test_reading_says_what_is_left_out_and_what_is_empty(tmp_path: Path) -> None:
    scenes = []
    for name, shapes in (("a", [shapely.Point(1, 1), box(0, 0, 9, 9)]), ("b", [shapely.Point(1, 1)]), ("c", [])):
        path = tmp_path / f"{name}.gpkg"
        geopandas.GeoDataFrame(geometry=shapes, crs=UTM).to_file(path)
        scenes.append(SceneSource(name=name, image=tmp_path / f"{name}.tif", label=path, split=None))
    with pytest.warns(LabelWarning) as caught:
        layers = read_layers(scenes, PrepareConfig(), Findings())
    messages = [str(entry.message).removeprefix(f"{tmp_path}/") for entry in caught]
    assert messages == [
        "a.gpkg and 1 more: 2 features without area (points, lines, empty) are left out; --label-buffer METRES draws "
        "points and lines",
        "b.gpkg and 1 more: no polygons found; the ground there is all background",
    ]
    assert [len(layer.frame) for layer in layers.values()] == [1, 0, 0]
    with pytest.warns(LabelWarning, match=r"c\.gpkg: no polygons found"):
        layers = read_layers(scenes, PrepareConfig(label_buffer_m=1.0), Findings())
    assert [len(layer.frame) for layer in layers.values()] == [2, 1, 0]


def test_all_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    scenes = []
    for name in "ab":
        (tmp_path / f"{name}.geojson").write_text("{")
        scenes.append(SceneSource(name=name, image=tmp_path / "x.tif", label=tmp_path / f"{name}.geojson", split=None))
    with pytest.raises(LabelError, match=r"a\.geojson: not readable as polygons .*and 1 more fault"):
        read_layers(scenes, PrepareConfig(), Findings())


def test_options_of_vector_labels_without_any_are_said(tmp_path: Path) -> None:
    scene = SceneSource(name="a", image=tmp_path / "x.tif", label=tmp_path / "y.tif", split=None)
    config = PrepareConfig(class_field="kind", label_buffer_m=2.0)
    findings = Findings()
    findings.fault("files", LabelError("of an image"))  # is not raised here
    with pytest.warns(LabelWarning, match="--class-field, --label-buffer have no effect: no label is a vector file"):
        assert not read_layers([scene], config, findings)


def test_a_kind_of_raster_label_has_no_effect_on_polygons(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    geopandas.GeoDataFrame(geometry=[box(0, 0, 9, 9)], crs=UTM).to_file(path)
    scene = SceneSource(name="a", image=tmp_path / "x.tif", label=path, split=None)
    with pytest.warns(LabelWarning, match=r"--label-kind values has no effect on .*a\.gpkg: a vector file is painted"):
        read_layers([scene], PrepareConfig(label_kind="values"), Findings())
