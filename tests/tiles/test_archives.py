"""Sources in zip archives: as downloaded, nested, beside what was unpacked, damaged."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from ctrs.config import PrepareConfig
from ctrs.errors import CtrsError, DataError, DataWarning, InputNotFoundError
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.raster.names import archive_member, shown
from ctrs.tiles import archives, prepare_tiles
from ctrs.tiles.archives import list_archive, read_text
from ctrs.tiles.findings import Findings
from ctrs.tiles.layout import find_layout

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker


def zip_of(archive: Path, files: dict[str, Path | bytes], *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", method) as opened:
        for name, content in files.items():
            opened.writestr(name, content if isinstance(content, bytes) else content.read_bytes())
    return archive


def zip_folder(folder: Path, archive: Path, *, below: str = "") -> Path:
    files = {below + path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return zip_of(archive, files)


def scenes(source: Path, config: PrepareConfig | None = None) -> dict[str, tuple[str, str]]:
    findings = Findings()
    layout = find_layout(source, config or PrepareConfig(), findings)
    findings.raise_faults()
    root = f"{source.parent}/"
    return {
        scene.name: (shown(scene.image).removeprefix(root), shown(scene.label).removeprefix(root))
        for scene in layout.scenes
    }


def potsdam_zips(make: Maker, tmp_path: Path, ids: Sequence[str] = ("2_10", "2_13")) -> Path:
    """The inner archives of Potsdam, in a folder; images with world files and no CRS."""
    plain = tmp_path / "plain"
    make.potsdam(plain, ids, crs=None, size=64)
    for folder in sorted(plain.iterdir()):
        below = f"{folder.name}/" if folder.name == "2_Ortho_RGB" else ""
        zip_folder(folder, tmp_path / "zips" / f"{folder.name}.zip", below=below)
    return tmp_path / "zips"


def test_potsdam_from_a_folder_of_archives(make: Maker, tmp_path: Path) -> None:
    found = scenes(potsdam_zips(make, tmp_path))
    assert found["potsdam_2_10"] == (
        "zips/2_Ortho_RGB.zip/2_Ortho_RGB/top_potsdam_2_10_RGB.tif",
        "zips/5_Labels_all.zip/top_potsdam_2_10_label.tif",
    )


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("below", ["", "Potsdam/"])
def test_potsdam_from_one_archive_of_archives(make: Maker, tmp_path: Path, method: int, below: str) -> None:
    inner = potsdam_zips(make, tmp_path)
    outer = zip_of(
        tmp_path / "Potsdam.ZIP",
        {f"{below}{path.name}": path for path in sorted(inner.iterdir())} | {"__MACOSX/._x.tif": b"", "a.pdf": b""},
        method=method,
    )
    layout = find_layout(outer, PrepareConfig(), Findings())
    assert [(scene.name, scene.split) for scene in layout.scenes] == [
        ("potsdam_2_10", "train"), ("potsdam_2_13", "test"),
    ]  # fmt: skip
    assert all(scene.label_eroded is not None for scene in layout.scenes)
    scene = layout.scenes[0]
    with (
        open_raster(scene.image) as packed,
        open_raster(tmp_path / "plain/2_Ortho_RGB/top_potsdam_2_10_RGB.tif") as plain,
    ):
        np.testing.assert_array_equal(packed.read(), plain.read())
        assert Grid.of(packed) == Grid.of(plain)  # the world file inside the archive counts
        assert packed.transform.c == pytest.approx(366000 + 10 * 64 * 0.05)


def vaihingen(make: Maker, root: Path, areas: Sequence[int] = (1, 2)) -> Path:
    """The archives of Vaihingen as downloaded: images and labels have the same file names."""
    whole: dict[str, Path | bytes] = {}
    complete: dict[str, Path | bytes] = {}
    eroded: dict[str, Path | bytes] = {}
    for area in areas:
        name = f"top_mosaic_09cm_area{area}"
        image = make.raster(root / f"{area}_image.tif", make.noise(64, 64, seed=area))
        label = make.raster(root / f"{area}_label.tif", np.zeros((3, 64, 64), np.uint8) + 255)
        whole |= {f"top/{name}.tif": image, f"gts_for_participants/{name}.tif": label, f"dsm/dsm_{area}.tif": image}
        complete[f"{name}.tif"] = label
        eroded[f"{name}_noBoundary.tif"] = label
    folder = root / "vaihingen"
    start = "ISPRS_semantic_labeling_Vaihingen"
    zip_of(folder / f"{start}.zip", whole)
    zip_of(folder / f"{start}_ground_truth_COMPLETE.zip", complete)
    zip_of(folder / f"{start}_ground_truth_eroded_COMPLETE.zip", eroded)
    return folder


def test_vaihingen_tells_images_from_labels_by_the_archive(make: Maker, tmp_path: Path) -> None:
    layout = find_layout(vaihingen(make, tmp_path), PrepareConfig(), Findings())
    assert layout.preset is not None
    assert layout.preset.name == "vaihingen"
    assert [scene.name for scene in layout.scenes] == ["vaihingen_1", "vaihingen_2"]
    for scene in layout.scenes:
        assert "/top/" in shown(scene.image)
        assert "ground_truth_COMPLETE.zip/top_mosaic" in shown(scene.label)
        assert scene.label_eroded is not None
        assert "ground_truth_eroded_COMPLETE.zip/top_mosaic" in shown(scene.label_eroded)


def test_any_archive_with_images_and_labels(make: Maker, tmp_path: Path) -> None:
    plain = tmp_path / "town"
    for name in ("a", "b"):
        make.raster(plain / f"images/{name}.tif", make.noise(64, 64))
        make.raster(plain / f"labels/{name}.png", make.indices(64, 64))
    own = zip_folder(plain, tmp_path / "town.zip", below="town/")
    assert scenes(own) == {
        name: (f"town.zip/town/images/{name}.tif", f"town.zip/town/labels/{name}.png") for name in ("a", "b")
    }
    other = zip_folder(plain, tmp_path / "other.zip")
    assert scenes(other)["a"] == ("other.zip/images/a.tif", "other.zip/labels/a.png")
    for part in ("images", "labels"):
        zip_folder(plain / part, tmp_path / f"parts/{part}.zip")
    assert scenes(tmp_path / "parts")["b"] == ("parts/images.zip/b.tif", "parts/labels.zip/b.png")
    given = PrepareConfig(images=("images/a.*",), labels=("**/labels/a*.png",))
    assert scenes(other, given) == {"a": ("other.zip/images/a.tif", "other.zip/labels/a.png")}


def test_tiles_from_an_archive_equal_those_from_its_folder(make: Maker, tmp_path: Path) -> None:
    zips = potsdam_zips(make, tmp_path, ("2_10", "2_11", "2_13"))
    config = PrepareConfig(tile_px=32, workers=2)
    packed = prepare_tiles(zips, tmp_path / "packed", config)
    plain = prepare_tiles(tmp_path / "plain", tmp_path / "unpacked", config)
    assert len(packed.tiles) == 12
    for mine, other in zip(packed.tiles, plain.tiles, strict=True):
        assert mine.image.relative_to(packed.root) == other.image.relative_to(plain.root)
        for path, expected in ((mine.image, other.image), (mine.mask, other.mask)):
            with rasterio.open(path) as cut, rasterio.open(expected) as reference:
                np.testing.assert_array_equal(cut.read(), reference.read())
                assert cut.transform == reference.transform


def test_what_lies_unpacked_beside_its_archive_counts_once(make: Maker, tmp_path: Path) -> None:
    zips = potsdam_zips(make, tmp_path)
    with zipfile.ZipFile(zips / "2_Ortho_RGB.zip") as opened:
        opened.extractall(zips)
    findings = Findings()
    layout = find_layout(zips, PrepareConfig(), findings)
    assert layout.scenes[0].image == zips / "2_Ortho_RGB/top_potsdam_2_10_RGB.tif"
    assert "5_Labels_all.zip" in shown(layout.scenes[0].label)
    assert [finding.message for finding in findings.entries if "unpacked" in finding.message] == [
        f"{zips / '2_Ortho_RGB.zip'}: left out, what it holds lies unpacked beside it"
    ]
    zip_of(zips / "Potsdam.zip", {path.name: path for path in sorted(zips.glob("*.zip"))})
    assert len(find_layout(zips, PrepareConfig(), Findings()).scenes) == 2
    # What is missing outside comes from the archive; what differs is refused.
    (zips / "2_Ortho_RGB/top_potsdam_2_10_RGB.tif").unlink()
    first, second = find_layout(zips, PrepareConfig(), Findings()).scenes
    assert "2_Ortho_RGB.zip" in shown(first.image)
    assert second.image == zips / "2_Ortho_RGB/top_potsdam_2_13_RGB.tif"
    second.image.write_bytes(b"other")
    findings = Findings()
    find_layout(zips, PrepareConfig(), findings)
    with pytest.raises(
        DataError, match=r"2_Ortho_RGB/top_potsdam_2_13_RGB\.tif: another file than .*\.zip/.*; keep one"
    ):
        findings.raise_faults()


def test_damaged_archives(make: Maker, tmp_path: Path) -> None:
    zips = potsdam_zips(make, tmp_path)
    labels = zips / "5_Labels_all.zip"
    whole = labels.read_bytes()
    labels.write_bytes(whole[: len(whole) // 2])
    alone = shutil.copy(labels, tmp_path / "half.zip")
    with pytest.raises(DataError, match=r"half\.zip: not readable as a zip archive \(.*\); it is damaged, cut short"):
        find_layout(alone, PrepareConfig(), Findings())
    findings = Findings()
    with pytest.raises(DataError, match=r"5_Labels_all\.zip: not readable as a zip archive"):
        find_layout(zips, PrepareConfig(preset="potsdam"), findings)
    outer = zip_of(tmp_path / "o/Potsdam.zip", {path.name: path for path in sorted(zips.iterdir())})
    with pytest.raises(DataError, match=r"Potsdam\.zip/5_Labels_all\.zip: not readable as a zip archive"):
        find_layout(outer, PrepareConfig(), Findings())


def test_a_damaged_member_is_named(make: Maker, tmp_path: Path) -> None:
    zips = potsdam_zips(make, tmp_path)
    path = zips / "5_Labels_all.zip"
    data = bytearray(path.read_bytes())
    data[200:400] = bytes(range(200))
    path.write_bytes(data)
    with pytest.raises(CtrsError, match=r"5_Labels_all\.zip/top_potsdam_2_1\d_label\.tif: not readable"):
        prepare_tiles(zips, tmp_path / "out", PrepareConfig(tile_px=32))


def test_archives_that_cannot_be_read_in_place(make: Maker, tmp_path: Path) -> None:
    image = make.raster(tmp_path / "x.tif", make.noise(64, 64))
    squeezed = zip_of(
        tmp_path / "s.zip",
        {"images/x.tif": image, "images/y.tif": image, "labels/x.tif": image},
        method=zipfile.ZIP_LZMA,
    )
    with pytest.raises(DataError, match=r"s\.zip/images/x\.tif and 2 more: is compressed by method LZMA, .*; unpack"):
        find_layout(squeezed, PrepareConfig(), Findings())
    locked = zip_of(tmp_path / "l.zip", {"images/x.tif": image})
    data = bytearray(locked.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag of encryption in the list of files
    locked.write_bytes(data)
    with pytest.raises(DataError, match=r"l\.zip/images/x\.tif: needs a password; unpack .*l\.zip and name the folder"):
        find_layout(locked, PrepareConfig(), Findings())


def test_archives_without_images(tmp_path: Path) -> None:
    empty = zip_of(tmp_path / "z/empty.zip", {})
    with pytest.raises(InputNotFoundError, match=r"empty\.zip: no images found in the archive"):
        find_layout(empty, PrepareConfig(), Findings())
    zip_of(tmp_path / "z/other.zip", {"readme.txt": b"", ".hidden.tif": b""})
    with pytest.raises(InputNotFoundError, match="z: no images found, neither there nor in its 2 zip archives; put"):
        find_layout(tmp_path / "z", PrepareConfig(), Findings())


def test_archives_lie_at_most_three_deep(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "0.zip", {"x.tif": b""})
    for number in range(1, 3):
        path = zip_of(tmp_path / f"{number}.zip", {path.name: path})
    assert [member.place.as_posix() for member in list_archive(path)] == ["1/0/x.tif"]
    path = zip_of(tmp_path / "3.zip", {path.name: path})
    with pytest.raises(DataError, match=r"0\.zip: lies 3 archives deep; unpack"):
        list_archive(path)


def test_names_of_windows_and_text_in_archives(make: Maker, tmp_path: Path) -> None:
    image = make.raster(tmp_path / "x.tif", make.noise(64, 64))
    inner = zip_of(tmp_path / "inner.zip", {"lists/train.txt": "ä\n".encode(), "top\\x.tif": image})
    outer = zip_of(tmp_path / "outer.zip", {"inner.zip": inner})
    text, member = list_archive(outer)
    assert read_text(text.path) == "ä\n"
    assert member.place.as_posix() == "inner/top/x.tif"
    with open_raster(member.path) as dataset:
        assert dataset.shape == (64, 64)
    with pytest.raises(DataError, match=r"outer\.zip/inner\.zip/none\.txt: not readable \(.*\); check the file"):
        read_text(archive_member(archive_member(outer, "inner.zip"), "none.txt"))


def test_large_archives_that_are_compressed_twice_are_said_to_be_slow(
    make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "SLOW_BYTES", 100)
    zips = potsdam_zips(make, tmp_path)
    outer = zip_of(tmp_path / "Potsdam.zip", {path.name: path for path in sorted(zips.iterdir())})
    with pytest.warns(DataWarning, match=r"Potsdam\.zip: holds large archives that are compressed once more"):
        find_layout(outer, PrepareConfig(), Findings())
    stored = zip_of(tmp_path / "s/Potsdam.zip", {path.name: path for path in zips.iterdir()}, method=zipfile.ZIP_STORED)
    find_layout(stored, PrepareConfig(), Findings())


@pytest.mark.parametrize("end", ["geojson", "shp", "gpkg"])
def test_vector_labels_in_archives(make: Maker, tmp_path: Path, end: str) -> None:
    place = rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5800000)
    make.raster(tmp_path / "town/images/a.tif", make.noise(64, 64), transform=place, crs="EPSG:32633")
    (tmp_path / "town/labels").mkdir()
    house = shapely.box(400000 + 8, 5800000 - 16, 400000 + 16, 5800000 - 8)
    frame = geopandas.GeoDataFrame(geometry=[house], crs="EPSG:32633")
    frame.to_file(tmp_path / f"town/labels/a.{end}")
    archive = zip_folder(tmp_path / "town", tmp_path / "town.zip")
    manifest = prepare_tiles(archive, tmp_path / "out", PrepareConfig(tile_px=64, val_fraction=0.0))
    (tile,) = manifest.tiles
    expected = np.zeros((64, 64), np.uint8)
    expected[16:32, 16:32] = 1
    with rasterio.open(tile.mask) as dataset:
        np.testing.assert_array_equal(dataset.read(1), expected)
