"""Labels and images that are not where their CRS says: what is suggested, and what is left in peace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from ctrs.raster.geotiff import Grid
from ctrs.tiles.findings import Findings
from ctrs.tiles.layout import SceneSource
from ctrs.tiles.misplacement import check_area_of_use, check_neighbours, check_polygons
from ctrs.tiles.polygon_labels import PolygonLabel
from ctrs.tiles.scenes import ReadyScene
from ctrs.vector.rasterize import place_polygons, read_polygons

UTM33 = CRS.from_epsg(32633)
"""The image of these tests lies at Potsdam: 100 m wide at 13.06 degrees east, 52.4 degrees north."""


class Image:
    """As much of imagery as is asked for its place."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid


def grid(x: float = 368000, y: float = 5807000, *, crs: CRS | None = UTM33, pixel: float = 0.5) -> Grid:
    return Grid(crs=crs, transform=Affine(pixel, 0, x, 0, -pixel, y), width=200, height=200)


def scene(name: str, place: Grid, label: Path | None = None) -> ReadyScene:
    drawn: Any = None
    if label is not None:
        layer = read_polygons(label)
        drawn = PolygonLabel(polygons=place_polygons(layer, place, np.ones(len(layer.frame), np.uint8)), background=0)
    source = SceneSource(name=name, split="train", image=Path(f"{name}.tif"), label=label or Path(f"{name}_label.tif"))
    imagery: Any = Image(place)
    return ReadyScene(source=source, imagery=imagery, label=drawn, eroded=None, tile_px=64, stride_px=64)


def houses(path: Path, crs: str | None = "EPSG:32633", *, swap: bool = False, x: float = 368000) -> Path:
    """Write two houses in the middle of the image, in some CRS."""
    shapes = [shapely.box(x + at, 5807000 - 50, x + at + 8, 5807000 - 40) for at in (30, 60)]
    frame = geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32633")
    if crs is not None:
        frame = frame.to_crs(crs)
    if swap:
        frame.geometry = shapely.transform(frame.geometry.to_numpy(), lambda xy: xy[:, ::-1])
    frame.to_file(path)
    return path


def assign(path: Path, crs: str) -> Path:
    geopandas.read_file(path).set_crs(crs, allow_override=True).to_file(path)
    return path


def faults(*scenes: ReadyScene) -> list[str]:
    findings = Findings(issues_warnings=False)
    check_polygons(scenes, findings)
    assert {finding.level for finding in findings.entries} <= {"fault"}
    return [finding.message for finding in findings.entries]


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3857", "EPSG:25832"])
def test_polygons_in_any_true_crs(tmp_path: Path, crs: str) -> None:
    assert faults(scene("a", grid(), houses(tmp_path / "a.gpkg", crs))) == []


@pytest.mark.parametrize(
    ("written", "declared", "advice"),
    [
        ("EPSG:32633", "EPSG:32634", "its CRS is EPSG:32634, they would in EPSG:32633: assign that to the label"),
        ("EPSG:32633", "EPSG:32733", "its CRS is EPSG:32733, they would in EPSG:32633: assign that to the label"),
        ("EPSG:3857", "EPSG:32633", "its CRS is EPSG:32633, they would in EPSG:3857: assign that to the label"),
        ("EPSG:4326", "EPSG:32633", "its CRS is EPSG:32633, they would in EPSG:4326: assign that to the label"),
        ("EPSG:32632", "EPSG:32633", "its CRS is EPSG:32633, they would in EPSG:32632: assign that to the label"),
    ],
)
def test_polygons_in_another_crs_than_they_say(tmp_path: Path, written: str, declared: str, advice: str) -> None:
    label = assign(houses(tmp_path / "a.gpkg", written), declared)
    (message,) = faults(scene("a", grid(), label))
    assert message.startswith(f"{label}: none of its polygons lies on a.tif; {advice}")


def test_polygons_with_swapped_axes(tmp_path: Path) -> None:
    (message,) = faults(scene("a", grid(), houses(tmp_path / "a.gpkg", "EPSG:4326", swap=True)))
    assert "they would with x and y swapped (latitude before longitude?)" in message


def test_an_image_in_another_crs_than_it_says(tmp_path: Path) -> None:
    label = houses(tmp_path / "a.gpkg", "EPSG:4326")
    (message,) = faults(scene("a", grid(crs=CRS.from_epsg(32634)), label))
    assert "the image's CRS is EPSG:32634, they would with EPSG:32633: assign that to the image" in message


def test_a_layer_with_nothing_on_some_images_is_no_fault(tmp_path: Path) -> None:
    label = houses(tmp_path / "all.gpkg")
    here, beside = scene("a", grid(), label), scene("b", grid(368100), label)
    assert not len(beside.label.polygons.shapes)  # type: ignore[attr-defined]
    assert faults(here, beside) == []
    (message,) = faults(beside, scene("c", grid(368200), label))
    assert message.startswith(f"{label}: none of its polygons lies on b.tif and 1 more image; they lie at x 368030 to")


def test_one_fault_for_all_images_of_a_layer(tmp_path: Path) -> None:
    label = assign(houses(tmp_path / "a.gpkg"), "EPSG:32733")
    (message,) = faults(scene("a", grid(), label), scene("b", grid(368010), label), scene("c", grid(368020), label))
    assert "lies on a.tif and 2 more images; its CRS is EPSG:32733" in message


def test_neighbours_by_coordinates_in_two_zones() -> None:
    findings = Findings(issues_warnings=False)
    here = [scene("a", grid()), scene("b", grid(368100))]
    check_neighbours([*here, scene("c", grid(368200, crs=CRS.from_epsg(32634)))], findings)
    assert [finding.scene for finding in findings.entries] == ["c"]
    assert "c.tif: lies in EPSG:32634, its neighbour by coordinates" in findings.entries[0].message
    findings = Findings(issues_warnings=False)
    elsewhere = scene("d", grid(600000, 4000000, crs=CRS.from_epsg(32634)))
    check_neighbours([*here, elsewhere, scene("e", grid(crs=None))], findings)
    # A true neighbour in another CRS has other coordinates; an older datum of the same zone has nearly the same ones.
    check_neighbours([*here, scene("f", grid(368200, crs=CRS.from_epsg(25833)))], findings)
    assert findings.entries == []


def test_images_outside_the_area_of_their_crs() -> None:
    findings = Findings(issues_warnings=False)
    check_area_of_use([scene("a", grid()), scene("b", grid(crs=None))], findings)
    check_area_of_use([scene("web", grid(1.4e6, 6.8e6, crs=CRS.from_epsg(3857)))], findings)
    assert findings.entries == []
    swapped = [scene(name, grid(5807000 + shift, 368000)) for shift, name in enumerate("ab")]
    check_area_of_use(swapped, findings)
    check_area_of_use([scene("c", grid(13.0, 152.4, crs=CRS.from_epsg(4326), pixel=1e-5))], findings)
    first, second = (finding.message for finding in findings.entries)
    assert first.startswith("a.tif and 1 more image: lies ")
    assert "outside the area that EPSG:32633 is made for" in first
    assert second.startswith("c.tif: lies nowhere on Earth, outside the area that EPSG:4326 is made for")
