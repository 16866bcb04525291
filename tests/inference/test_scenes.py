"""Which rasters are mapped, and where masks go."""

from pathlib import Path

import numpy as np
import pytest

from ctrs.errors import InputNotFoundError, UsageError
from ctrs.inference.scenes import mask_path, mask_paths, scenes_in


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
