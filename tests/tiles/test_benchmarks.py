"""Each preset, end to end, on a small fake in the layout in which the data set is downloaded."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from ctrs.cli.app import main
from ctrs.config import PrepareConfig
from ctrs.errors import CtrsWarning, DataError, InputNotFoundError, UsageError
from ctrs.synthetic.town import TownConfig, make_town
from ctrs.tiles import Manifest, prepare_tiles
from ctrs.tiles.findings import Findings
from ctrs.tiles.listing import list_source
from ctrs.tiles.presets import load_preset, preset_names, preset_text
from tests.tiles import fakes

if TYPE_CHECKING:
    from tests.tiles.fakes import Fake, FakeScene


TILE_PX = 48
IN_ONE_SPLIT = sorted(set(fakes.FAKES) - {"landcover_ai"})

Write = Callable[[str], "Fake"]


@pytest.fixture(scope="module")
def write_fake(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Write a fake once for all tests."""
    written: dict[str, Fake] = {}

    def write(name: str) -> Fake:
        if name not in written:
            written[name] = fakes.FAKES[name](tmp_path_factory.mktemp("fakes") / name)
        return written[name]

    return write


@contextmanager
def gather() -> Iterator[list[str]]:
    """Gather what ctrs warns of; other warnings stay errors."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        warnings.simplefilter("always", CtrsWarning)
        said: list[str] = []
        yield said
        said += [str(warning.message) for warning in caught]


def read(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            return dataset.read()


def joined(manifest: Manifest, scene: str, kind: str) -> np.ndarray:
    """Put the tiles of a scene together again."""
    tiles = [tile for tile in manifest.tiles if tile.scene == scene]
    height = max(tile.window.row_off + tile.window.height for tile in tiles)
    width = max(tile.window.col_off + tile.window.width for tile in tiles)
    first = read(getattr(tiles[0], kind))
    whole = np.full((len(first), height, width), 77, first.dtype)
    for tile in tiles:
        whole[(slice(None), *tile.window.slices)] = read(getattr(tile, kind))
    return whole


def counts(scenes: list[FakeScene], num: int) -> list[int]:
    return sum(np.bincount(scene.mask.reshape(-1), minlength=256)[:num] for scene in scenes).tolist()


@pytest.mark.parametrize("name", IN_ONE_SPLIT)
def test_nothing_is_lost(write_fake: Write, tmp_path: Path, name: str) -> None:
    fake = write_fake(name)
    with gather() as said:
        manifest = prepare_tiles(fake.root, tmp_path / "out", PrepareConfig(tile_px=TILE_PX))
    labelled = {key: scene for key, scene in fake.scenes.items() if scene.labelled}
    assert manifest.preset == fake.preset
    assert manifest.classes.names == fake.classes
    assert manifest.bands.names == fake.bands
    assert {scene.name for scene in manifest.scenes} == set(labelled)
    for key, truth in labelled.items():
        assert (joined(manifest, key, "mask")[0] == truth.mask).all(), key
        image = joined(manifest, key, "image")
        assert image.dtype == truth.image.dtype
        assert (image == truth.image).all(), key
        if truth.eroded is not None:
            assert (joined(manifest, key, "mask_eroded")[0] == truth.eroded).all(), key
        scene = manifest.scene(key)
        assert scene.known_bad == truth.known_bad
        crs = None if scene.crs_wkt is None else rasterio.crs.CRS.from_wkt(scene.crs_wkt)
        assert crs == (None if fake.crs is None else rasterio.crs.CRS.from_string(fake.crs))
    assert manifest.has_eroded == any(truth.eroded is not None for truth in labelled.values())
    given = {truth.split for truth in labelled.values()}
    for split in manifest.splits:
        names = {tile.scene for tile in manifest.split(split)}
        official = {key for key, truth in labelled.items() if truth.split == split}
        if "val" in given or split == "test":
            assert names == official
        else:  # validation is cut by place from the scenes for training
            assert names <= {key for key, truth in labelled.items() if truth.split == "train"}
    assert {"train", "val", *given} == set(manifest.splits)
    total = sum(np.array(manifest.class_counts(split)) for split in manifest.splits)
    assert total.tolist() == counts(list(labelled.values()), len(fake.classes))
    if fake.pixel_size_m is None:
        assert manifest.pixel_size_m is None
        assert any("no CRS found" in text for text in said)
    else:
        assert manifest.pixel_size_m == pytest.approx(fake.pixel_size_m, rel=0.12)  # degrees are not square
    hidden = len(fake.scenes) - len(labelled)
    if hidden:
        assert any(f"{hidden} images of the {fake.preset} test split left out" in note for note in manifest.notes)
    allowed = (
        "no CRS found",
        "labels are known to be wrong",
        "colours that the legend does not hold",
        "label has no image",
    )
    allowed += ("training tiles hold no pixel", "ground pixels differ", "img5.geojson: no polygons found")
    strange = [text for text in said if not any(words in text for words in allowed)]
    assert not strange


@pytest.mark.parametrize("name", sorted(fakes.FAKES))
def test_as_a_new_user_would(
    write_fake: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    fake = write_fake(name)
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", str(fake.root), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["preset"] == fake.preset
    assert result["classes"] == list(fake.classes)
    assert Path(result["path"]) == Path("prepared") / fake.root.name
    assert (tmp_path / result["path"] / "prepared.json").is_file()
    if name != "landcover_ai":
        labelled = [scene for scene in fake.scenes.values() if scene.labelled]
        total = [sum(part["class_px"][cls] for part in result["splits"].values()) for cls in fake.classes]
        assert total == counts(labelled, len(fake.classes))
    # The second time there is nothing to do.
    assert main(["prepare", str(fake.root), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == result
    assert "already prepared" in captured.err


@pytest.mark.parametrize("name", sorted(fakes.FAKES))
def test_each_fake_is_claimed_by_its_own_preset_alone(write_fake: Write, name: str) -> None:
    fake = write_fake(name)
    places = [file.place.as_posix() for file in list_source(fake.root, Findings()).files]
    presets = [preset for known in preset_names() if (preset := load_preset(known)) is not None]
    assert [preset.name for preset in presets if preset.fits(places)] == [fake.preset]


def test_landcover_ai_is_split_by_chips(write_fake: Write, tmp_path: Path) -> None:
    fake = write_fake("landcover_ai")
    with gather() as said:
        manifest = prepare_tiles(fake.root, tmp_path / "out")
    assert manifest.tile_px == 512
    expected = {
        (key, row * 512, col * 512): split
        for key, scene in fake.scenes.items()
        for (row, col), split in scene.chips.items()
    }
    found = {(tile.scene, tile.window.row_off, tile.window.col_off): tile.split for tile in manifest.tiles}
    assert found == expected
    for tile in manifest.tiles:
        assert (read(tile.mask)[0] == fake.scenes[tile.scene].mask[tile.window.slices]).all()
    assert not [text for text in said if "training tiles hold no pixel" not in text]
    assert manifest.splits == ("train", "val", "test")
    for key, scene in fake.scenes.items():  # what is in no split is said to be left out
        facts = manifest.facts[key]
        tiled = np.sum([tile.class_counts for tile in manifest.tiles if tile.scene == key], axis=0)
        assert facts["tiled_counts"] == tiled.tolist()
        assert (tiled + facts["left_out_counts"]).tolist() == facts["label_counts"] == counts([scene], 5)
        assert sum(facts["left_out_counts"]) == scene.mask.size - 4 * 512**2


def test_smaller_tiles_of_chips_keep_their_split(write_fake: Write, tmp_path: Path) -> None:
    fake = write_fake("landcover_ai")
    with gather():
        manifest = prepare_tiles(fake.root, tmp_path / "out", PrepareConfig(tile_px=256))
    assert len(manifest.tiles) == 2 * 4 * 4
    for tile in manifest.tiles:
        chip = (tile.window.row_off // 512, tile.window.col_off // 512)
        assert fake.scenes[tile.scene].chips[chip] == tile.split
    assert any("tiles left out: no list names the chips" in note for note in manifest.notes)


def test_tiles_of_several_chips_are_of_one_split(write_fake: Write, tmp_path: Path) -> None:
    """Tiles that do not divide a chip: no training tile shows ground of another split."""
    fake = write_fake("landcover_ai")
    with gather():
        manifest = prepare_tiles(fake.root, tmp_path / "out", PrepareConfig(tile_px=384, val_fraction=0))
    assert len(manifest.tiles) > 0
    for tile in manifest.tiles:
        window = tile.window
        rows = {window.row_off // 512, (window.row_off + window.height - 1) // 512}
        cols = {window.col_off // 512, (window.col_off + window.width - 1) // 512}
        assert {fake.scenes[tile.scene].chips.get((row, col)) for row in rows for col in cols} == {tile.split}


def test_landcover_ai_by_place_instead(write_fake: Write, tmp_path: Path) -> None:
    fake = write_fake("landcover_ai")
    with gather():
        manifest = prepare_tiles(fake.root, tmp_path / "out", PrepareConfig(tile_px=256, split="place"))
    assert sum(len(manifest.split(split)) for split in manifest.splits) == 2 * 5 * 5
    assert "val" in manifest.splits


def test_chips_cannot_be_counted_in_resampled_images(write_fake: Write, tmp_path: Path) -> None:
    fake = write_fake("landcover_ai")
    with pytest.raises(UsageError, match="--gsd found, but the official split of landcover_ai counts chips of 512 px"):
        prepare_tiles(fake.root, tmp_path / "out", PrepareConfig(gsd_m=0.5))


def test_known_bad_scenes_can_be_left_out(write_fake: Write, tmp_path: Path) -> None:
    fake = write_fake("potsdam")
    with gather() as said:
        kept = prepare_tiles(fake.root, tmp_path / "kept", PrepareConfig(tile_px=TILE_PX))
    assert any("potsdam_7_10" in text and "--skip-known-bad" in text for text in said)
    assert kept.scene("potsdam_7_10").known_bad
    with gather() as said:
        manifest = prepare_tiles(fake.root, tmp_path / "out", PrepareConfig(tile_px=TILE_PX, skip_known_bad=True))
    assert {scene.name for scene in manifest.scenes} == {"potsdam_2_10", "potsdam_2_13"}
    assert not any("potsdam_7_10" in text for text in said)
    assert any("7_10" in note for note in manifest.notes)


@pytest.mark.parametrize("name", ["potsdam", "potsdam_zipped", "vaihingen"])
def test_heights_become_a_band(write_fake: Write, tmp_path: Path, name: str) -> None:
    fake = write_fake(name)
    with gather():
        manifest = prepare_tiles(fake.root, tmp_path / "out", PrepareConfig(tile_px=TILE_PX, extra=("dsm",)))
    assert manifest.bands.names == (*fake.bands, "dsm")
    for key, truth in fake.scenes.items():
        image = joined(manifest, key, "image")
        assert image.dtype == np.float32
        assert (image[:3] == truth.image).all()
        assert (image[3] == truth.dsm).all()


POTSDAM_BANDS = {
    "RGB": ("red", "green", "blue"),
    "IRRG": ("near infrared", "red", "green"),
    "RGBIR": ("red", "green", "blue", "near infrared"),
}
FOLDERS = {"RGB": "2_Ortho_RGB", "IRRG": "3_Ortho_IRRG", "RGBIR": "4_Ortho_RGBIR"}


def check_variant(manifest: Manifest, fake: Fake, variant: str) -> None:
    """Check that every pixel of a kind of images, its labels and its eroded labels are there."""
    assert manifest.preset == "potsdam"
    assert manifest.bands.names == POTSDAM_BANDS[variant]
    assert manifest.has_eroded
    assert {scene.name for scene in manifest.scenes} == set(fake.scenes)
    for key, truth in fake.scenes.items():
        assert (joined(manifest, key, "image") == truth.variants[variant]).all(), key
        assert (joined(manifest, key, "mask")[0] == truth.mask).all(), key
        assert (joined(manifest, key, "mask_eroded")[0] == truth.eroded).all(), key
        assert {tile.scene for tile in manifest.split("test")} == {"potsdam_2_13"}
    total = sum(np.array(manifest.class_counts(split)) for split in manifest.splits)
    assert total.tolist() == counts(list(fake.scenes.values()), len(fake.classes))


@pytest.mark.parametrize("variant", POTSDAM_BANDS)
@pytest.mark.parametrize("name", ["potsdam", "potsdam_archives", "potsdam_zipped"])
def test_each_kind_of_images_is_whole(write_fake: Write, tmp_path: Path, name: str, variant: str) -> None:
    """GDAL calls the infrared of four bands alpha; it is 0 in places, and no pixel may vanish for that."""
    fake = write_fake(name)
    with gather() as said:
        manifest = prepare_tiles(fake.root, tmp_path / "out", PrepareConfig(variant=variant.lower(), tile_px=TILE_PX))
    check_variant(manifest, fake, variant)
    assert not [text for text in said if "alpha" in text]
    assert not [note for note in manifest.notes if "--variant" in note]


def test_the_infrared_of_the_fake_is_called_alpha(write_fake: Write) -> None:
    """What the tests of kinds of images rest on."""
    path = write_fake("potsdam").root / "4_Ortho_RGBIR" / "top_potsdam_2_10_RGBIR.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            assert dataset.colorinterp[3] == rasterio.enums.ColorInterp.alpha
            assert (dataset.dataset_mask() == 0).any()


def test_kinds_of_images_that_are_not_taken_are_noted(write_fake: Write, tmp_path: Path) -> None:
    with gather():
        manifest = prepare_tiles(write_fake("potsdam").root, tmp_path / "out", PrepareConfig(tile_px=TILE_PX))
    assert "images of RGB and IRRG and RGBIR found: RGB is taken (choose with --variant)" in manifest.notes


@pytest.mark.parametrize("variant", POTSDAM_BANDS)
def test_named_images_of_a_preset_keep_its_labels(write_fake: Write, tmp_path: Path, variant: str) -> None:
    """``--images`` with ``--preset``: labels, eroded labels and heights lie where the preset has them."""
    fake = write_fake("potsdam")
    config = PrepareConfig(preset="potsdam", images=(f"{FOLDERS[variant]}/*.tif",), tile_px=TILE_PX)
    with gather() as said:
        manifest = prepare_tiles(fake.root, tmp_path / "out", config)
        check_variant(manifest, fake, variant)
        with_dsm = prepare_tiles(fake.root, tmp_path / "dsm", replace(config, extra=("dsm",)))
    assert not [text for text in said if "alpha" in text]
    assert with_dsm.bands.names == (*POTSDAM_BANDS[variant], "dsm")
    for key, truth in fake.scenes.items():
        assert (joined(with_dsm, key, "image")[:-1] == truth.variants[variant]).all()
        assert (joined(with_dsm, key, "image")[-1] == truth.dsm).all()


def test_named_images_in_archives_keep_the_labels_of_the_preset(write_fake: Write, tmp_path: Path) -> None:
    fake = write_fake("potsdam_archives")
    config = PrepareConfig(preset="potsdam", images=("**/*_RGBIR.tif",), tile_px=TILE_PX)
    with gather():
        manifest = prepare_tiles(fake.root, tmp_path / "out", config)
    check_variant(manifest, fake, "RGBIR")


def test_named_labels_of_a_preset_keep_the_eroded_ones(write_fake: Write, tmp_path: Path) -> None:
    fake = write_fake("potsdam")
    config = PrepareConfig(
        preset="potsdam", images=("4_Ortho_RGBIR/*.tif",), labels=("5_Labels_all/*.tif",), tile_px=TILE_PX
    )
    with gather():
        manifest = prepare_tiles(fake.root, tmp_path / "out", config)
        check_variant(manifest, fake, "RGBIR")
        # Only labels are named: the images are the preset's, of the kind that is asked for.
        manifest = prepare_tiles(fake.root, tmp_path / "l", replace(config, images=(), variant="IRRG"))
        check_variant(manifest, fake, "IRRG")


def test_eroded_labels_of_other_labels_are_left_out(write_fake: Write, tmp_path: Path) -> None:
    fake = write_fake("potsdam")
    for key, truth in fake.scenes.items():
        pixels = fakes.painted(fakes.ISPRS, truth.mask)
        fakes.write(tmp_path / "mine" / f"top_{key}_RGB.tif", pixels)
    config = PrepareConfig(
        preset="potsdam", images=("2_Ortho_RGB/*.tif",), labels=(f"{tmp_path}/mine/*.tif",), tile_px=TILE_PX
    )
    with gather():
        manifest = prepare_tiles(fake.root, tmp_path / "out", config)
    assert not manifest.has_eroded
    said = "3 labels with eroded borders left out: preset potsdam has them for other labels than --labels names"
    assert said in manifest.notes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"variant": "CIR"}, r"--variant 'CIR' found, but preset potsdam has: RGB, IRRG, RGBIR$"),
        ({"variant": "RGB", "preset": "inria"}, r"--variant 'RGB' found, but preset inria has: none$"),
        ({"variant": "RGB", "preset": "generic"}, r"--variant 'RGB' found, but .* follows no preset; choose with --pr"),
        ({"variant": "RGB", "images": ("2_Ortho_RGB/*.tif",)}, "--variant 'RGB' found with --images"),
        ({"variant": "RGB", "labels": ("5_Labels_all/*.tif",)}, "--variant 'RGB' found, but .* follows no preset"),
        ({"extra": ("dsm",), "images": ("2_Ortho_RGB/*.tif",)}, "--extra 'dsm' found, which is a file of a preset"),
        ({"extra": ("dsm",), "preset": "potsdam", "mosaic": True}, "--extra found with --mosaic"),
        ({"extra": ("dem",), "preset": "potsdam", "images": ("2_Ortho_RGB/*.tif",)}, "--extra 'dem' found, but preset"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(
    write_fake: Write, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        prepare_tiles(write_fake("potsdam").root, tmp_path / "out", PrepareConfig(**options))
    assert len(str(caught.value).splitlines()) == 1


def test_a_kind_of_images_that_is_not_there(write_fake: Write, tmp_path: Path) -> None:
    root = shutil.copytree(
        write_fake("potsdam").root, tmp_path / "potsdam", ignore=shutil.ignore_patterns("3_Ortho_IRRG")
    )
    with pytest.raises(InputNotFoundError, match="no images of variant IRRG of preset potsdam found, expected paths"):
        prepare_tiles(root, tmp_path / "out", PrepareConfig(variant="irrg"))


def test_kinds_of_images_as_typed(
    write_fake: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(write_fake("potsdam").root)
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", source, "--variant", "rgbir", "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert tuple(result["bands"]["names"]) == POTSDAM_BANDS["RGBIR"]
    assert main(["prepare", source, "--variant", "CIR", "-o", "other"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: --variant 'CIR' found, but preset potsdam has: RGB, IRRG, RGBIR\n"


def test_images_of_two_kinds_are_not_mixed(write_fake: Write, tmp_path: Path) -> None:
    config = PrepareConfig(preset="potsdam", images=("2_Ortho_RGB/*_2_10_*.tif", "3_Ortho_IRRG/*_7_10_*.tif"))
    with pytest.raises(DataError, match=r"bands near infrared, red, green by preset potsdam, but red, green, blue in"):
        prepare_tiles(write_fake("potsdam").root, tmp_path / "out", config)


def test_an_edited_copy_of_a_preset(
    write_fake: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = write_fake("potsdam")
    monkeypatch.chdir(tmp_path)
    assert main(["presets", "show", "potsdam"]) == 0
    text = capsys.readouterr().out
    assert text == preset_text("potsdam")
    Path("my.toml").write_text(text.replace('name = "car"', 'name = "vehicle"').replace("_RGB\\.tif", "_NONE\\.tif"))
    assert main(["prepare", str(fake.root), "--preset", "my.toml", "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["preset"] == "my"
    assert "vehicle" in result["classes"]
    assert result["bands"]["names"] == ["near infrared", "red", "green"]


def test_a_preset_of_polygons_with_a_class_field(tmp_path: Path) -> None:
    """Written by a user from nothing; the field's values are names or values of the class table."""
    where = {"transform": rasterio.Affine(0.5, 0, 500000, 0, -0.5, 5000000), "crs": "EPSG:32633"}
    pixels = fakes.picture(np.zeros((64, 64), np.uint8), 1)
    fakes.write(tmp_path / "src/ortho/north.tif", pixels, **where)
    shapes = {"road": (0, 0, 32, 8), "2": (8, 8, 16, 16)}
    features = [
        {
            "type": "Feature",
            "properties": {"kind": kind},
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    [
                        [500000 + x, 5000000 - y]
                        for x, y in ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
                    ]
                ],
            },
        }
        for kind, (left, top, right, bottom) in shapes.items()
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    label = tmp_path / "src/map/north.geojson"
    label.parent.mkdir()
    label.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    preset = tmp_path / "city.toml"
    preset.write_text(
        "labels = 'polygons'\nclass_field = 'kind'\n"
        "[[image]]\npattern = 'ortho/(?P<id>\\w+)\\.tif'\n[files]\nlabel = ['map/(?P<id>\\w+)\\.geojson']\n"
        "[[class]]\nname = 'background'\n[[class]]\nname = 'road'\n[[class]]\nname = 'building'\n"
    )
    with gather():
        manifest = prepare_tiles(
            tmp_path / "src", tmp_path / "out", PrepareConfig(preset=str(preset), tile_px=64, val_fraction=0)
        )
    assert manifest.preset == "city"
    assert manifest.class_counts("train") == (64 * 64 - 64 * 16 - 16 * 16, 64 * 16, 16 * 16)


def test_massachusetts_white_labels_mean_the_same(write_fake: Write, tmp_path: Path) -> None:
    """The TIFF labels are red, the PNG ones white; masks are equal."""
    masks = []
    for name in ("massachusetts", "massachusetts_png"):
        with gather():
            manifest = prepare_tiles(write_fake(name).root, tmp_path / name, PrepareConfig(tile_px=TILE_PX))
        masks.append(joined(manifest, "massachusetts_22678915_15", "mask"))
    assert (masks[0] == masks[1]).all()
    assert set(np.unique(masks[0])) == {0, 1}


def test_the_script_writes_what_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fakes.main([str(tmp_path), "inria"]) == 0
    assert (tmp_path / "inria/AerialImageDataset/train/gt/austin1.tif").is_file()
    assert "4 scenes of inria" in capsys.readouterr().out
    assert fakes.main([]) == 2


def test_the_towns_own_layout(tmp_path: Path) -> None:
    source = make_town(tmp_path / "town", TownConfig(size_px=192, train_ids=("2_10", "3_10"), test_ids=("2_13",)))
    manifest = prepare_tiles(source, tmp_path / "out", PrepareConfig(tile_px=64))
    assert manifest.preset == "potsdam"
    assert manifest.has_eroded
    assert {split: len(manifest.split(split)) for split in manifest.splits} == {"train": 16, "val": 2, "test": 9}
    assert sum(sum(manifest.class_counts(split)) for split in manifest.splits) == 3 * 192**2
