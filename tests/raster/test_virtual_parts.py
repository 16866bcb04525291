"""Virtual rasters of files that do not belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.shutil import copy

from ctrs.errors import RasterError
from ctrs.raster import virtual_parts
from ctrs.raster.geotiff import open_raster
from ctrs.raster.virtual_parts import check_one_crs

UTM = Affine(0.2, 0, 5e5, 0, -0.2, 5.4e6)
# As other programs spell EPSG:32633, without its code.
SPELLED = CRS.from_string("+proj=utm +zone=33 +datum=WGS84 +units=m +no_defs")


def write(path: Path, crs: CRS | None, transform: Affine = UTM) -> Path:
    profile = {"driver": "GTiff", "width": 30, "height": 20, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform) as file:
        file.write(np.ones((3, 20, 30), np.uint8))
    return path


def side_by_side(path: Path, files: list[str]) -> Path:
    """A virtual raster as gdalbuildvrt -allow_projection_difference writes it."""
    sources = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="30" ySize="20"/>'
        f'<DstRect xOff="{30 * place}" yOff="0" xSize="30" ySize="20"/></SimpleSource>'
        for place, name in enumerate(files)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="{30 * len(files)}" rasterYSize="20"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>500000, 0.2, 0, 5400000, 0, -0.2</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1">{sources}</VRTRasterBand></VRTDataset>'
    )
    return path


def check(path: Path) -> None:
    with open_raster(path) as dataset:
        check_one_crs(dataset)


def test_two_zones_are_refused_with_a_file_of_each(tmp_path: Path) -> None:
    for name, code in (("a.tif", 32633), ("b.tif", 32633), ("c.tif", 32634)):
        write(tmp_path / name, CRS.from_epsg(code))
    with pytest.raises(RasterError, match=r"city\.vrt: shows files of several CRSs") as caught:
        check(side_by_side(tmp_path / "city.vrt", ["a.tif", "b.tif", "c.tif"]))
    message = str(caught.value)
    assert f"EPSG:32633 ({tmp_path / 'a.tif'}) and EPSG:32634 ({tmp_path / 'c.tif'})" in message
    assert "gdalwarp -t_srs" in message
    assert "\n" not in message


def test_one_crs_passes_however_it_is_spelled(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", CRS.from_epsg(32633))
    write(tmp_path / "b.tif", SPELLED)
    write(tmp_path / "c.tif", None)
    check(side_by_side(tmp_path / "city.vrt", ["a.tif", "b.tif", "c.tif", "lost.tif"]))
    check(tmp_path / "a.tif")


def test_a_crs_that_was_put_right_passes(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", CRS.from_epsg(32634))
    check(side_by_side(tmp_path / "corrected.vrt", ["a.tif"]))  # as gdal_translate -a_srs writes it


def test_what_gdal_warps_passes(tmp_path: Path) -> None:
    source = write(tmp_path / "a.tif", CRS.from_epsg(32634))
    with rasterio.open(source) as file, rasterio.vrt.WarpedVRT(file, crs="EPSG:32633") as warped:
        copy(warped, tmp_path / "warped.vrt", driver="VRT")
    write(tmp_path / "b.tif", CRS.from_epsg(32633))
    check(tmp_path / "warped.vrt")
    check(side_by_side(tmp_path / "city.vrt", ["b.tif", "warped.vrt"]))


def test_of_many_files_a_few_are_opened_from_all_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.tif" for number in range(20)]
    for number, name in enumerate(names):
        write(tmp_path / name, CRS.from_epsg(32633 if number < 15 else 32634))
    opened: list[str] = []

    def watch(path: Path) -> object:
        opened.append(Path(path).name)
        return open_raster(path)

    city = side_by_side(tmp_path / "city.vrt", names)
    monkeypatch.setattr(virtual_parts, "MOST_OPENED", 5)
    monkeypatch.setattr(virtual_parts, "open_raster", watch)
    with pytest.raises(RasterError, match="EPSG:32634"):
        check(city)
    assert opened == ["0.tif", "4.tif", "8.tif", "12.tif", "16.tif"]
