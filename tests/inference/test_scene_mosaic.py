"""Scenes that are parts of one: mapped without seams, cut without loss."""

import hashlib
import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from ctrs.classes import IGNORE_INDEX
from ctrs.config import PredictConfig
from ctrs.errors import GridMismatchError, OptionWarning, OutputExistsError, RasterError, UsageError
from ctrs.inference.scene_mosaic import predict_mosaic
from ctrs.inference.scene_source import open_scene
from ctrs.raster.cog import read_class_tag
from ctrs.raster.confidence import confidence_path
from ctrs.raster.mosaic_parts import join_parts
from ctrs.raster.probabilities import probabilities_path
from ctrs.raster.windows import PixelWindow

UTM = Affine(0.2, 0, 5e5, 0, -0.2, 5.4e6)
ROTATED = Affine.translation(5e5, 5.4e6) @ Affine.rotation(30) @ Affine.scale(0.2, -0.2)


@pytest.fixture(scope="module")
def scene():
    """Pixels (3, 150, 230) with a collar of 0."""
    pixels = np.random.default_rng(7).integers(1, 255, (3, 150, 230)).astype(np.uint8)
    pixels[:, :9] = 0
    pixels[:, 60:70, 100:130] = 0
    return pixels


@pytest.fixture
def cut_scene(write_scene):
    """Return a function that writes parts of a scene."""

    def cut(pixels, places, *, transform=UTM, **options):
        return [
            write_scene(
                np.ascontiguousarray(pixels[:, top:bottom, left:right]),
                f"part{number}.tif",
                transform=transform @ Affine.translation(left, top),
                **{"nodata": 0, **options},
            )
            for number, (top, left, bottom, right) in enumerate(places)
        ]

    return cut


def read(path, band=1):
    with rasterio.open(path) as file:
        return file.read(band)


QUARTERS = [(0, 0, 80, 100), (0, 100, 80, 230), (80, 0, 150, 100), (80, 100, 150, 230)]


@pytest.mark.parametrize("transform", [UTM, ROTATED], ids=["north up", "rotated"])
@pytest.mark.parametrize("each", [False, True], ids=["one", "each"])
def test_parts_are_mapped_as_the_whole(tmp_path, edges, write_scene, cut_scene, scene, transform, each):
    whole = write_scene(scene, "whole.tif", transform=transform, nodata=0)
    config = PredictConfig(confidence="probability")
    expected = edges.predict_raster(whole, tmp_path / "whole_mask.tif", config)
    parts = cut_scene(scene, QUARTERS, transform=transform)
    out = tmp_path / ("masks" if each else "town.tif")
    masks = predict_mosaic(edges, parts, out, config, each=each)
    mask, surely = read(expected), read(confidence_path(expected))
    assert (mask == IGNORE_INDEX).sum() == 9 * 230 + 300
    if not each:
        assert masks == [out]
        np.testing.assert_array_equal(read(out), mask)
        np.testing.assert_array_equal(read(confidence_path(out)), surely)
        with rasterio.open(out) as file, rasterio.open(whole) as there:
            assert file.transform.almost_equals(there.transform)
        return
    assert [path.name for path in masks] == [f"part{number}_mask.tif" for number in range(4)]
    for path, part, (top, left, bottom, right) in zip(masks, parts, QUARTERS, strict=True):
        np.testing.assert_array_equal(read(path), mask[top:bottom, left:right])
        np.testing.assert_array_equal(read(confidence_path(path)), surely[top:bottom, left:right])
        with rasterio.open(path) as file, rasterio.open(part) as there:
            assert (file.transform, file.crs) == (there.transform, there.crs)
            assert file.nodata == IGNORE_INDEX
            assert file.tags()["CTRS_SOURCE"] == part.name
            assert [entry.name for entry in read_class_tag(file)] == list(edges.classes.names)
            assert file.colormap(1)[1][:3] == (1, 100, 200)
        with rasterio.open(confidence_path(path)) as file:
            assert file.scales == (1 / 65535,)
            assert file.tags()["CTRS_CONFIDENCE"]
    left_over = {path.name for path in out.iterdir() if path.suffix != ".xml"}
    kinds = ("mask.tif", "mask.json", "confidence.tif")
    assert left_over == {f"part{number}_{kind}" for number in range(4) for kind in kinds}


@pytest.mark.parametrize("number_format", ["uint8", "float16"])
def test_probabilities_are_cut_too(tmp_path, edges, write_scene, cut_scene, scene, number_format):
    config = PredictConfig(
        confidence="margin",
        probabilities=number_format,
        classes=("class 2", "class 0"),
        creation_options=(("COMPRESS", "LZW"),),
    )
    whole = write_scene(scene, "whole.tif", nodata=0)
    expected = edges.predict_raster(whole, tmp_path / "whole_mask.tif", config)
    overlapping = [(0, 0, 80, 130), *QUARTERS[1:]]
    parts = cut_scene(scene, overlapping)
    masks = predict_mosaic(edges, parts, tmp_path / "masks", config, each=True)
    for path, (top, left, bottom, right) in zip(masks, overlapping, strict=True):
        for of in (lambda mask: mask, confidence_path, probabilities_path):
            with rasterio.open(of(path)) as cut, rasterio.open(of(expected)) as file:
                np.testing.assert_array_equal(cut.read(), file.read()[:, top:bottom, left:right])
                assert (cut.descriptions, cut.dtypes, cut.scales) == (file.descriptions, file.dtypes, file.scales)
                assert np.array_equal(cut.nodatavals, file.nodatavals, equal_nan=True)
                assert cut.profile["compress"] == "lzw"
                assert set(cut.tags()) == set(file.tags())
        assert [entry.name for entry in read_class_tag(path)] == ["class 0", "class 2", "other"]


def test_mapped_alone_the_parts_differ(tmp_path, edges, write_scene, cut_scene, scene):
    """Else the test above could not fail."""
    whole = edges.predict_raster(write_scene(scene, "whole.tif", nodata=0), tmp_path / "whole_mask.tif")
    (part,) = cut_scene(scene, [QUARTERS[1]])
    alone = edges.predict_raster(part, tmp_path / "alone.tif")
    assert (read(alone) != read(whole)[0:80, 100:230]).any()


def test_later_parts_lie_on_top_and_earlier_ones_show_where_they_end(tmp_path, make_identity, cut_scene):
    below, above = np.zeros((2, 3, 40, 60), np.uint8)
    below[1] = above[2] = 200
    below[0] = above[0] = 1
    above[:, 10:20, :10] = 0
    pixels = np.zeros((3, 40, 90), np.uint8)
    pixels[:, :, :60] = below
    (first,) = cut_scene(pixels, [(0, 0, 40, 60)])
    pixels[:, :, 30:] = above
    second = cut_scene(pixels, [(0, 0, 1, 1), (0, 30, 40, 90)])[1]
    first = cut_scene(np.concatenate([below, below], axis=2), [(0, 0, 40, 60)])[0]
    out = predict_mosaic(make_identity(), [first, second], tmp_path / "town.tif")[0]
    expected = np.full((40, 90), 2, np.uint8)
    expected[:, :30] = 1
    expected[10:20, 30:40] = 1
    np.testing.assert_array_equal(read(out), expected)
    # Each its own: nodata where the scene itself is invalid, the mosaic's answer where it is valid.
    masks = predict_mosaic(make_identity(), [first, second], tmp_path / "masks", each=True)
    np.testing.assert_array_equal(read(masks[0]), expected[:, :60])
    own = expected[:, 30:].copy()
    own[10:20, :10] = IGNORE_INDEX
    np.testing.assert_array_equal(read(masks[1]), own)


def test_a_pixel_is_taken_whole(cut_scene, make_identity, scene):
    """A value that happens to be nodata in one band does not let the file below shine through in that band."""
    below = np.full((3, 20, 20), 50, np.uint8)
    above = np.full((3, 20, 20), 70, np.uint8)
    above[1, 5] = 0
    first = cut_scene(below, [(0, 0, 20, 20)])[0].rename("x")
    first = first.rename(cut_scene(above, [(0, 0, 20, 20)])[0].with_name("below.tif"))
    second = first.with_name("part0.tif")
    mosaic = join_parts([first, second], "two")
    with open_scene(mosaic.path, make_identity().bands) as source:
        pixels, valid = source.read(PixelWindow(col_off=0, row_off=0, width=20, height=20))
    assert valid.all()
    np.testing.assert_array_equal(pixels, above)


def test_records_stand_beside_each_mask(tmp_path, edges, cut_scene, scene):
    parts, out = cut_scene(scene, QUARTERS[:2]), tmp_path / "masks"
    masks = predict_mosaic(edges, parts, out, PredictConfig(style=True), each=True)
    log = json.loads((out / "part1_mask.json").read_text())
    assert (log["mask"], Path(log["scene"])) == ("part1_mask.tif", parts[1])
    assert (out / "part1_mask.qml").exists()
    assert not (out / "part1_mask.stac.json").exists()
    predict_mosaic(edges, parts, out, PredictConfig(stac=True), each=True)
    items = [json.loads((out / f"part{number}_mask.stac.json").read_text()) for number in range(2)]
    assert items[0]["bbox"] != items[1]["bbox"]
    # An item tells of its mask's bytes, so that it goes with the mask.
    predict_mosaic(edges, parts, out, PredictConfig(blend="constant", overwrite=True), each=True)
    item = json.loads((out / "part1_mask.stac.json").read_text())
    assert hashlib.sha256(masks[1].read_bytes()).hexdigest() in json.dumps(item)


def test_a_replaced_mask_takes_along_what_stood_beside_it_and_a_foreign_file_stays(tmp_path, edges, cut_scene, scene):
    parts, out = cut_scene(scene, QUARTERS[:2]), tmp_path / "masks"
    predict_mosaic(edges, parts, out, PredictConfig(confidence="margin"), each=True)
    assert (out / "part1_confidence.tif").exists()
    predict_mosaic(edges, parts, out, PredictConfig(overwrite=True), each=True)
    assert not (out / "part1_confidence.tif").exists()
    (out / "part1_mask.tif").write_text("somebody's notes")
    with pytest.raises(OutputExistsError, match="was not written by ctrs predict"):
        predict_mosaic(edges, parts, out, PredictConfig(overwrite=True), each=True)


def test_finished_masks_are_skipped_and_missing_ones_made(tmp_path, edges, cut_scene, scene, monkeypatch):
    parts = cut_scene(scene, QUARTERS)
    masks = predict_mosaic(edges, parts, tmp_path / "masks", each=True)
    before = [path.read_bytes() for path in masks]
    masks[2].unlink()
    times = [path.stat().st_mtime_ns for path in masks if path.exists()]
    again = predict_mosaic(edges, parts, tmp_path / "masks", each=True)
    assert again == masks
    assert [path.read_bytes() for path in masks] == before
    assert [path.stat().st_mtime_ns for path in masks if path != masks[2]] == times
    monkeypatch.setattr(type(edges), "predict_raster", None)
    assert predict_mosaic(edges, parts, tmp_path / "masks", each=True) == masks
    with pytest.raises(OutputExistsError, match="part0_mask"):
        predict_mosaic(edges, parts, tmp_path / "masks", PredictConfig(blend="constant"), each=True)


def test_a_stopped_mosaic_goes_on(tmp_path, edges, cut_scene, scene):
    parts = cut_scene(scene, QUARTERS)
    expected = [path.read_bytes() for path in predict_mosaic(edges, parts, tmp_path / "straight", each=True)]

    class StopError(Exception):
        pass

    out = tmp_path / "masks"
    seen = []

    def stop_in(text, number):
        def progress(done, total, what):
            seen.append(what)
            if text in what and done == number:
                raise StopError

        return progress

    with pytest.raises(StopError):
        predict_mosaic(edges, parts, out, each=True, progress=stop_in("predicting", 10))
    assert (out / ".mosaic.partial").is_dir()
    with pytest.raises(StopError):
        predict_mosaic(edges, parts, out, each=True, progress=stop_in("cutting", 2))
    assert sorted(path.name for path in out.glob("*.tif")) == ["part0_mask.tif", "part1_mask.tif"]
    seen.clear()
    masks = predict_mosaic(edges, parts, out, each=True, progress=stop_in("never", 0))
    assert not any("predicting" in what for what in seen), "the mosaic is not mapped again"
    assert [path.read_bytes() for path in masks] == expected
    assert not (out / ".mosaic.partial").exists()


def test_bounds_and_area_leave_scenes_out(tmp_path, edges, write_scene, cut_scene, scene):
    whole = write_scene(scene, "whole.tif", nodata=0)
    parts = cut_scene(scene, QUARTERS)
    left, top = UTM @ (20, 30)
    right, bottom = UTM @ (180, 70)
    config = PredictConfig(bounds=(left, bottom, right, top))
    masks = predict_mosaic(edges, parts, tmp_path / "masks", config, each=True)
    assert [path.name for path in masks] == ["part0_mask.tif", "part1_mask.tif"]
    with rasterio.open(masks[1]) as file:
        assert file.shape == (40, 80)
        assert file.transform.almost_equals(UTM @ Affine.translation(100, 30))
    area = tmp_path / "area.gpkg"
    ring = [UTM @ place for place in ((110, 20), (150, 20), (150, 60), (110, 60))]
    geopandas.GeoDataFrame(geometry=[shapely.Polygon(ring)], crs="EPSG:32633").to_file(area)
    masks = predict_mosaic(edges, parts, tmp_path / "in area", PredictConfig(aoi=area), each=True)
    assert [path.name for path in masks] == ["part1_mask.tif"]
    mask = read(masks[0])
    assert (mask != IGNORE_INDEX).sum() == (scene[0, 20:60, 110:150] > 0).sum()
    assert whole.exists()


def test_damage_in_a_part_is_left_out_there(tmp_path, make_identity, cut_scene, scene):
    parts = cut_scene(scene, [(0, 0, 150, 100), (0, 100, 150, 230)], compress="deflate", blockysize=16)
    with rasterio.open(parts[1]) as file:
        offset, size = (int(file.get_tag_item(f"BLOCK_{kind}_0_2", "TIFF", bidx=1)) for kind in ("OFFSET", "SIZE"))
    with parts[1].open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)
    bands = make_identity().bands
    mosaic = join_parts(parts, "damaged", tolerance_px=0.01)
    with open_scene(mosaic.path, bands) as source, pytest.raises(RasterError, match=r"part1\.tif: block of 130 x 16"):
        source.read(PixelWindow(col_off=0, row_off=0, width=230, height=64))
    record = tmp_path / "unreadable.json"
    with open_scene(mosaic.path, bands, PredictConfig(skip_unreadable=True)) as source:
        source.record_unreadable(record)
        valid = source.read(PixelWindow(col_off=0, row_off=0, width=230, height=150))[1]
        found = source.unreadable
    assert found == [PixelWindow(col_off=100, row_off=32, width=130, height=16)]
    expected = scene.any(axis=0)
    expected[32:48, 100:] = False
    np.testing.assert_array_equal(valid, expected)
    with open_scene(mosaic.path, bands, PredictConfig(skip_unreadable=True)) as source:
        source.record_unreadable(record)
        assert source.unreadable == found, "what an earlier attempt found is told again"


def test_many_files_need_few_open_ones(tmp_path, make_identity, cut_scene, monkeypatch):
    monkeypatch.setattr("ctrs.raster.mosaic_reader.OPEN_FILES", 3)
    pixels = np.random.default_rng(1).integers(1, 255, (3, 48, 80)).astype(np.uint8)
    places = [(row, col, row + 8, col + 8) for row in range(0, 48, 8) for col in range(0, 80, 8)]
    mosaic = join_parts(cut_scene(pixels, places), "many")
    with open_scene(mosaic.path, make_identity().bands) as source:
        found, valid = source.read(PixelWindow(col_off=3, row_off=5, width=70, height=40))
        assert len(source._pixels._open) == 3
    assert valid.all()
    np.testing.assert_array_equal(found, pixels[:, 5:45, 3:73])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transform": UTM @ Affine.translation(90.3, 0)}, r"b\.tif: lies 0\.30 px off the pixels of .*a\.tif"),
        ({"crs": "EPSG:32634"}, r"b\.tif: CRS EPSG:32634 instead of EPSG:32633 as in .*a\.tif"),
        ({"nodata": 3}, r"b\.tif: nodata 3 instead of none as in .*a\.tif"),
        ({"dtype": np.uint16}, r"b\.tif: 3 bands of uint16 instead of 3 bands of uint8 as in .*a\.tif"),
        ({"count": 1}, r"b\.tif: 1 bands of uint8 instead of 3 bands of uint8 as in .*a\.tif"),
        ({"transform": Affine.identity(), "crs": None}, r"b\.tif: .*a\.tif|b\.tif: no georeference"),
    ],
)
def test_scenes_that_do_not_fit_are_refused(tmp_path, edges, write_scene, options, message):
    first = write_scene(np.ones((3, 40, 90), np.uint8), "a.tif")
    other = {"transform": UTM @ Affine.translation(90, 0), **options}
    pixels = np.ones((other.pop("count", 3), 40, 90), other.pop("dtype", np.uint8))
    if other["transform"] == Affine.identity():
        other["transform"] = None
        with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
            second = write_scene(pixels, "b.tif", **other)
    else:
        second = write_scene(pixels, "b.tif", **other)
    with pytest.raises((RasterError, GridMismatchError), match=message):
        predict_mosaic(edges, [first, second], tmp_path / "town.tif")


def test_within_a_hundredth_of_a_pixel_is_the_same_lattice(tmp_path, make_identity, write_scene):
    first = write_scene(np.ones((3, 40, 90), np.uint8), "a.tif")
    second = write_scene(np.ones((3, 40, 90), np.uint8), "b.tif", transform=UTM @ Affine.translation(90.008, 0))
    masks = predict_mosaic(make_identity(), [first, second], tmp_path / "masks", each=True)
    with rasterio.open(masks[1]) as file, rasterio.open(second) as there:
        assert file.transform == there.transform


def test_one_mask_needs_its_name(tmp_path, edges, cut_scene, scene):
    parts = cut_scene(scene, QUARTERS[:2])
    for out in (None, tmp_path, tmp_path / "masks"):
        with pytest.raises(UsageError, match=r"--mosaic one: .* found, expected the mask of all scenes: -o FILE\.tif"):
            predict_mosaic(edges, parts, out)
    with pytest.raises(UsageError, match=r"town\.png: \.png found, expected \.tif"):
        predict_mosaic(edges, parts, tmp_path / "town.png")
    with pytest.raises(UsageError, match=r"part1\.tif: is one of the scenes"):
        predict_mosaic(edges, parts, parts[1])


@pytest.mark.parametrize("each", [False, True], ids=["one", "each"])
def test_the_log_lists_the_files(tmp_path, edges, cut_scene, scene, each):
    parts = cut_scene(scene, QUARTERS)
    masks = predict_mosaic(edges, parts, tmp_path / ("masks" if each else "town.tif"), each=each)
    expected = [
        {
            "path": str(part),
            "size": part.stat().st_size,
            "hash": f"sha256:{hashlib.sha256(part.read_bytes()).hexdigest()}",
        }
        for part in parts
    ]
    for mask in masks:
        assert json.loads(mask.with_suffix(".json").read_text())["files"] == expected


def test_a_window_is_held_against_the_whole_once(tmp_path, edges, cut_scene, scene):
    parts = cut_scene(scene, QUARTERS)
    predict_mosaic(edges, parts, tmp_path / "fits", PredictConfig(window_px=300), each=True)  # warnings are errors
    with pytest.warns(OptionWarning, match=r"window 480 px is larger .* --window 230 covers it") as told:
        predict_mosaic(edges, parts, tmp_path / "padded", PredictConfig(window_px=480), each=True)
    assert len(told) == 1
