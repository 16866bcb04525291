"""Which rasters are mapped, and where masks go."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from matplotlib.figure import Figure
from PIL import Image

from ctrs.errors import CtrsError, InputNotFoundError, UsageError
from ctrs.evaluation.error_map import ERRORS_TAG
from ctrs.inference.scenes import mask_path, mask_paths, scenes_in
from ctrs.raster.geotiff import open_raster
from ctrs.report.png import save_image, save_png


def test_masks_go_beside_the_scene_unless_told_otherwise(tmp_path):
    assert mask_path(Path("city/a.b.tif")) == Path("city/a.b_mask.tif")
    assert mask_path(Path("photo.jpg")) == Path("photo_mask.tif")
    assert mask_path("/vsicurl/https://example.org/x/scene.tif") == Path("scene_mask.tif")
    assert mask_path(Path("a.tif"), tmp_path) == tmp_path / "a_mask.tif"
    assert mask_path(Path("a.tif"), tmp_path / "b.tif") == tmp_path / "b.tif"


def test_folders_are_expanded_without_masks_of_ctrs(tmp_path, make_identity, write_scene):
    pixels = np.zeros((3, 8, 8), np.uint8)
    scene, labels = write_scene(pixels, "b.tif"), write_scene(pixels, "a_mask.tif")
    write_scene(pixels, "C.TIF")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / ".hidden.tif").write_text("")
    (tmp_path / "broken_mask.tif").write_text("")
    make_identity().predict_raster(scene, mask_path(scene))
    assert (tmp_path / "b_mask.tif").exists()
    names = [Path(path).name for path in scenes_in([tmp_path])]
    assert names == ["C.TIF", labels.name, "b.tif", "broken_mask.tif"]
    assert scenes_in([scene, "/vsimem/x.tif"]) == [scene, "/vsimem/x.tif"]


def test_a_folder_without_rasters(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"no rasters found; expected files ending in \.img"):
        scenes_in([tmp_path])


def test_several_scenes_go_to_a_folder_and_one_to_a_file(tmp_path, write_scene):
    pixels = np.zeros((3, 8, 8), np.uint8)
    one, two = write_scene(pixels, "one.tif"), write_scene(pixels, "two.tif")
    out = tmp_path / "new"
    assert mask_paths([one]) == [(one, tmp_path / "one_mask.tif")]
    assert mask_paths([one], tmp_path / "x.TIFF") == [(one, tmp_path / "x.TIFF")]
    assert mask_paths([one], out) == [(one, out / "one_mask.tif")]
    (tmp_path / "v1.2").mkdir()
    assert mask_paths([one], tmp_path / "v1.2") == [(one, tmp_path / "v1.2" / "one_mask.tif")]
    assert mask_paths([one, two], out) == [(one, out / "one_mask.tif"), (two, out / "two_mask.tif")]
    assert mask_paths([tmp_path], out) == [(one, out / "one_mask.tif"), (two, out / "two_mask.tif")]
    two.unlink()
    assert mask_paths([tmp_path], out) == [(one, out / "one_mask.tif")]


def test_a_mask_that_would_bear_the_name_of_another_format_is_refused(tmp_path, write_scene):
    scene = write_scene(np.zeros((3, 8, 8), np.uint8), "one.tif")
    with pytest.raises(UsageError, match=r"x\.png: \.png found, expected \.tif .* or a folder; choose with -o"):
        mask_paths([scene], tmp_path / "x.png")


def test_masks_that_would_collide_are_refused(tmp_path, write_scene):
    pixels = np.zeros((3, 8, 8), np.uint8)
    one, same = write_scene(pixels, "one.tif"), write_scene(pixels, "one.tiff")
    with pytest.raises(
        UsageError, match=r"one_mask.tif: would be the mask of .*one.tif and of .*one.tiff; map them one by one"
    ):
        mask_paths([one, same])
    with pytest.raises(UsageError, match=r"one.tif: one file for 2 scenes; name a folder"):
        mask_paths([one, same], one)


@pytest.fixture
def city(tmp_path, write_scene, make_identity):
    """Scenes in folders, with a mask that bears another name than masks do."""
    pixels = np.zeros((3, 8, 8), np.uint8)
    for name in ("a.tif", "b.TIF", "c.jpg.txt", "north/d.tif", "north/deep/e.tif"):
        (tmp_path / "city" / name).parent.mkdir(parents=True, exist_ok=True)
        write_scene(pixels, f"city/{name}")
    make_identity().predict_raster(tmp_path / "city" / "a.tif", tmp_path / "city" / "town.tif")
    return tmp_path / "city"


def names(paths, folder):
    return [Path(path).relative_to(folder).as_posix() for path in paths]


def test_patterns_stand_for_the_files_that_fit(city):
    assert names(scenes_in([str(city / "*.tif")]), city) == ["a.tif"]
    assert names(scenes_in([str(city / "*")]), city) == ["a.tif", "b.TIF"]
    assert names(scenes_in([str(city / "*.txt")]), city) == ["c.jpg.txt"]
    assert names(scenes_in([f"{city}/**/*.tif"]), city) == ["a.tif", "north/d.tif", "north/deep/e.tif"]
    assert names(scenes_in([f"{city}/**/[de].tif", city / "a.tif"]), city) == [
        "north/d.tif",
        "north/deep/e.tif",
        "a.tif",
    ]
    assert names(scenes_in([city]), city) == ["a.tif", "b.TIF"], "the mask town.tif is none of the scenes"


def test_a_scene_that_is_named_twice_is_mapped_once(city):
    assert names(scenes_in([city / "a.tif", f"{city}/a*.tif", city]), city) == ["a.tif", "b.TIF"]


def test_a_mask_that_is_named_is_told_as_such(city, make_identity):
    assert names(scenes_in([city / "town.tif"]), city) == ["town.tif"]
    with pytest.raises(UsageError, match=r"town\.tif: is a mask that ctrs wrote, no scene; .* quote the pattern"):
        make_identity().predict_raster(city / "town.tif", city / "town_mask.tif")


def test_figures_and_error_maps_of_ctrs_are_no_scenes(city, write_scene):
    save_image(Image.new("RGB", (8, 8)), city / "confusion.png")
    save_png(Figure(figsize=(1, 1)), city / "curves.png", {"fingerprint": "x" * 5000})
    Image.new("RGB", (8, 8)).save(city / "photo.png")
    with rasterio.open(write_scene(np.zeros((3, 8, 8), np.uint8), "city/wrong.tif"), "r+") as file:
        file.update_tags(**{ERRORS_TAG: "[]"})
    assert names(scenes_in([city]), city) == ["a.tif", "b.TIF", "photo.png"]
    assert names(scenes_in([str(city / "*.png")]), city) == ["photo.png"]
    (city / "photo.png").unlink()
    with pytest.raises(InputNotFoundError, match=r"\*\.png: 2 files, all written by ctrs found"):
        scenes_in([str(city / "*.png")])


def test_a_pattern_that_fits_nothing_is_one_clear_line(city):
    with pytest.raises(InputNotFoundError, match=r"\*\.jp2: no raster found that fits; check the pattern"):
        scenes_in([f"{city}/*.jp2"])
    with pytest.raises(InputNotFoundError, match=r"t\*\.tif: 1 files, all written by ctrs found"):
        scenes_in([f"{city}/t*.tif"])


def test_a_file_whose_name_looks_like_a_pattern(tmp_path, write_scene):
    odd = write_scene(np.zeros((3, 8, 8), np.uint8), "tile[1].tif")
    assert scenes_in([str(odd)]) == [str(odd)]


def test_addresses_are_no_patterns():
    for name in ("https://host/a.tif?x=*", "s3://bucket/[a].tif", "/vsicurl/https://host/a.tif?b"):
        assert scenes_in([name]) == [name]
        assert mask_path(name).suffix == ".tif"
    assert mask_path("https://host/town.tif?sig=a.b/c") == Path("town_mask.tif")


def test_archives_hold_scenes(tmp_path, write_scene):
    scene = write_scene(np.zeros((3, 8, 8), np.uint8), "one.tif")
    archive = tmp_path / "city.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(scene, "x/two.tif")
        file.write(scene, "x/one.tif")
        file.writestr("x/readme.txt", "")
    found = scenes_in([archive])
    assert [Path(path).name for path in found] == ["one.tif", "two.tif"]
    assert mask_paths([archive])[0][1] == tmp_path / "one_mask.tif"
    with open_raster(found[0]) as dataset:
        assert dataset.shape == (8, 8)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "")
    with pytest.raises(InputNotFoundError, match=r"city\.zip: no rasters found"):
        scenes_in([archive])


class TestNamesOfArchives:
    @pytest.fixture
    def packed(self, tmp_path, write_scene, monkeypatch):
        """An archive of one scene in the current folder, and the scene's pixels."""
        pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 30)).astype(np.uint8)
        (tmp_path / "maps").mkdir()
        with zipfile.ZipFile(tmp_path / "maps" / "a.zip", "w") as archive:
            archive.write(write_scene(pixels, "town.tif"), "top/town.tif")
        monkeypatch.chdir(tmp_path)
        return pixels

    @pytest.mark.parametrize(
        "name",
        [
            "zip://maps/a.zip!top/town.tif",
            "zip://maps/a.zip!/top/town.tif",
            "zip://{folder}/maps/a.zip!/top/town.tif",
            "zip://maps/a.zip",
            "/vsizip/maps/a.zip/top/town.tif",
            "/vsizip/{folder}/maps/a.zip/top/town.tif",
            "/vsizip/{{maps/a.zip}}/top/town.tif",
            "/vsizip/maps/a.zip",
        ],
    )
    def test_a_member_is_mapped_beside_its_archive(self, packed, make_identity, tmp_path, name):
        ((scene, out),) = mask_paths([name.format(folder=tmp_path)])
        assert out.absolute() == tmp_path / "maps" / "town_mask.tif"
        with open_raster(make_identity().predict_raster(scene, out)) as dataset:
            np.testing.assert_array_equal(dataset.read(1), packed.argmax(axis=0))
            assert dataset.tags()["CTRS_INPUT"].startswith("sha256:")

    @pytest.mark.parametrize(
        ("name", "part"),
        [
            ("zip://maps/a.zip!top/absent.tif", r"maps/a.zip/top/absent.tif: not readable as a raster"),
            ("zip://maps/b.zip!top/town.tif", r"maps/b.zip: not found, so there is no maps/b.zip/top/town.tif; check"),
            ("/vsizip/maps/b.zip/top/town.tif", r"maps/b.zip: not found"),
        ],
    )
    def test_what_is_not_there_is_named(self, packed, make_identity, tmp_path, name, part):
        ((scene, out),) = mask_paths([name])
        with pytest.raises(CtrsError, match=part) as caught:
            make_identity().predict_raster(scene, out)
        assert "\n" not in str(caught.value)
        assert not out.exists()
