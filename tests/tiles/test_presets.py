"""Presets: complete, recognisable, and wrong ones are refused in words."""

from __future__ import annotations

import logging
import re
import tomllib
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrs.errors import ConfigError
from ctrs.tiles.presets import load_preset, parse_preset, path_id, preset_names, preset_text, recognise

LAYOUTS = {
    "potsdam": [
        ("2_Ortho_RGB/top_potsdam_2_10_RGB.tif", "5_Labels_all/top_potsdam_2_10_label.tif"),
        ("Potsdam/2_Ortho_RGB/top_potsdam_06_07_RGB.tif", "Potsdam/5_Labels_all/top_potsdam_6_7_label.tif"),
        ("top_potsdam_2_10_IRRG.tif", "top_potsdam_2_10_label.tif"),
        # archives count as folders
        ("2_Ortho_RGB/2_Ortho_RGB/top_potsdam_2_10_RGB.tif", "5_Labels_all/top_potsdam_2_10_label.tif"),
    ],
    "vaihingen": [
        ("top/top_mosaic_09cm_area1.tif", "gts_for_participants/top_mosaic_09cm_area1.tif"),
        (
            "ISPRS_semantic_labeling_Vaihingen/top/top_mosaic_09cm_area10.tif",
            "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE/top_mosaic_09cm_area10.tif",
        ),
    ],
    "loveda": [("Train/Urban/images_png/1366.png", "Train/Urban/masks_png/1366.png")],
    "uavid": [("uavid_train/seq1/Images/000100.png", "uavid_train/seq1/Labels/000100.png")],
    "inria": [("AerialImageDataset/train/images/austin1.tif", "AerialImageDataset/train/gt/austin1.tif")],
    "massachusetts": [
        ("tiff/train/22678915_15.tiff", "tiff/train_labels/22678915_15.tif"),
        ("png/val/22678915_15.png", "png/val_labels/22678915_15.png"),
        ("mass_buildings/valid/sat/22678915_15.tiff", "mass_buildings/valid/map/22678915_15.tif"),
    ],
    "spacenet": [
        (
            "AOI_2_Vegas_Train/RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img1.tif",
            "AOI_2_Vegas_Train/geojson/buildings/buildings_AOI_2_Vegas_img1.geojson",
        ),
        (
            "train/AOI_5_Khartoum/PS-RGB/SN2_buildings_train_AOI_5_Khartoum_PS-RGB_img7.tif",
            "train/AOI_5_Khartoum/geojson_buildings/SN2_buildings_train_AOI_5_Khartoum_geojson_buildings_img7.geojson",
        ),
        (
            "AOI_3_Paris_Train/MUL-PanSharpen/MUL-PanSharpen_AOI_3_Paris_img9.tif",
            "AOI_3_Paris_Train/geojson/buildings/buildings_AOI_3_Paris_img9.geojson",
        ),
        ("3band/3band_AOI_1_RIO_img12.tif", "vectordata/geojson/Geo_AOI_1_RIO_img12.geojson"),
        (
            "train/AOI_11_Rotterdam/PS-RGB/SN6_Train_AOI_11_Rotterdam_PS-RGB_20190804111224_20190804111453_tile_8679.tif",
            "geojson_buildings/SN6_Train_AOI_11_Rotterdam_Buildings_20190804111224_20190804111453_tile_8679.geojson",
        ),
    ],
    "openearthmap": [("aachen/images/aachen_1.tif", "aachen/labels/aachen_1.tif", "train.txt")],
    "landcover_ai": [("images/M-33-20-D-c-4-2.tif", "masks/M-33-20-D-c-4-2.tif")],
}


@pytest.mark.parametrize(("name", "pair"), [(name, pair) for name, pairs in LAYOUTS.items() for pair in pairs])
def test_layouts_are_recognised(name: str, pair: tuple[str, ...]) -> None:
    preset = recognise(pair)
    assert preset is not None
    assert preset.name == name
    claims = [other for other in LAYOUTS if (known := load_preset(other)) is not None and known.fits(pair)]
    assert claims == [name]
    image = preset.image_pattern(pair)
    assert image is not None
    found = image.pattern.fullmatch(pair[0])
    label = next(match for pattern in preset.label_patterns if (match := pattern.fullmatch(pair[1])))
    assert found is not None
    assert path_id(found) == path_id(label)


@pytest.mark.parametrize(
    "paths",
    [
        ["images/a.tif", "labels/a.tif"],
        ["images/a.tif", "masks/a.tif", "train.txt"],
        ["2_Ortho_RGB/top_potsdam_2_10_RGB.tif"],  # no labels
        ["town/images/town_1.tif", "town/labels/town_1.tif"],  # OpenEarthMap has lists
        ["train/images/12.png", "train/labels/12.png", "val/images/3.png", "val/labels/3.png"],
        ["train/images/a.tif", "train/gt/a.tif"],
        ["train/scene.tif", "train_labels/scene.tif"],
        ["img1.tif", "img1.geojson"],
    ],
)
def test_other_folders_are_not_recognised(paths: list[str]) -> None:
    assert recognise(paths) is None


def test_public_test_chips_are_known_to_be_for_the_test() -> None:
    spacenet = load_preset("spacenet")
    assert spacenet is not None
    places = {
        "AOI_2_Vegas_Test_public/RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img3.tif": "test",
        "SN2_buildings/test/AOI_2_Vegas_Test_public/RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img3.tif": "test",
        "SN1_buildings_test_AOI_1_Rio_3band/3band/3band_AOI_1_RIO_img6899.tif": "test",
        "AOI_2_Vegas_Train/RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img1.tif": None,
    }
    for place, split in places.items():
        image = spacenet.image_pattern([place])
        assert image is not None
        match = image.pattern.fullmatch(place)
        assert match is not None
        assert spacenet.split_folders.get(match["split"] or "") == split


POTSDAM_LISTS = {
    "train": "2_10 2_11 2_12 3_10 3_11 3_12 4_10 4_11 4_12 5_10 5_11 5_12 "
    "6_7 6_8 6_9 6_10 6_11 6_12 7_7 7_8 7_9 7_10 7_11 7_12",
    "test": "2_13 2_14 3_13 3_14 4_13 4_14 4_15 5_13 5_14 5_15 6_13 6_14 6_15 7_13",
}
VAIHINGEN_LISTS = {
    "train": "1 3 5 7 11 13 15 17 21 23 26 28 30 32 34 37",
    "test": "2 4 6 8 10 12 14 16 20 22 24 27 29 31 33 35 38",
}
"""The lists of the benchmark."""


def test_official_splits() -> None:
    potsdam, vaihingen, inria = (load_preset(name) for name in ("potsdam", "vaihingen", "inria"))
    assert potsdam is not None
    assert vaihingen is not None
    assert inria is not None
    for preset, lists in ((potsdam, POTSDAM_LISTS), (vaihingen, VAIHINGEN_LISTS)):
        expected = {identifier: split for split, ids in lists.items() for identifier in ids.split()}
        assert preset.split_ids == expected
        assert [len(ids.split()) for ids in lists.values()] == ([24, 14] if preset is potsdam else [16, 17])
    assert set(inria.split_ids.values()) == {"val"}
    assert potsdam.known_bad == {"7_10"}
    assert potsdam.tile_px == vaihingen.tile_px == 500
    assert [entry.name for entry in potsdam.classes.learnt if not entry.scored] == ["clutter"]
    assert [entry.color for entry in potsdam.classes.classes if entry.ignored] == [(0, 0, 0)]


@pytest.mark.parametrize("name", [name for name in preset_names() if name != "generic"])
def test_preset_files_are_whole(name: str) -> None:
    preset = load_preset(name)
    assert preset is not None
    assert preset.title
    assert preset.url.startswith("https://")
    assert "building" in preset.classes.names
    splits = {*preset.split_folders.values(), *preset.split_ids.values(), *preset.split_lists}
    assert "train" in splits or name == "spacenet"
    assert preset_text(name).startswith("#")


def test_a_preset_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(preset_text("potsdam").replace("tile_px = 500", "tile_px = 256"))
    preset = load_preset(str(path))
    assert preset is not None
    assert (preset.name, preset.tile_px) == ("mine", 256)


GOOD = """
title = "Mine"
[[image]]
pattern = '(?P<split>a|b)/(?P<id>\\d+)\\.tif'
bands = ["red", "green"]
[files]
label = ['(?P<split>a|b)/(?P<id>\\d+)_label\\.tif']
[[extra]]
name = "dsm"
pattern = 'dsm/(?P<id>\\d+)\\.tif'
[split]
train = ["1"]
test = ["2"]
folders = { a = "train", b = "test" }
[[class]]
value = 0
name = "ground"
color = [0, 0, 0]
[[class]]
value = 1
name = "building"
color = [255, 0, 0]
"""


def test_the_example_of_these_tests_is_right() -> None:
    preset = parse_preset(GOOD, name="x", where="x.toml")
    assert preset.classes.names == ("ground", "building")
    assert list(preset.extras) == ["dsm"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (GOOD, "x = ", "not readable as TOML"),
        ("title", "colour = 1\ntitle", r"unknown key 'colour'; expected one of: title, url"),
        ("title", "tile_pix = 1\ntitle", r"unknown key 'tile_pix'; did you mean 'tile_px'\?"),
        ("bands", "name = 3\nbands", r"image\[0\]\.name = 3 found, expected text in quotes"),
        (
            "[[image]]",
            "[[image]]\nname = 'Ir'\npattern = '(?P<split>c)/(?P<id>\\d+)\\.tif'\n[[image]]\nname = 'IR'",
            r"image\.name 'ir' found twice \(upper and lower case are the same\); give each another name",
        ),
        ("bands", "band", r"unknown key 'image\[0\]\.band'; did you mean 'bands'\?"),
        ("test = [", "tests = [", r"unknown key 'split\.tests'; did you mean 'test'\?"),
        ("title", "tile_px = '512'\ntitle", r"tile_px = '512' found, expected an integer from 32 to 8192"),
        ("title", "tile_px = 512.0\ntitle", r"tile_px = 512\.0 found, expected an integer"),
        ("title", "tile_px = true\ntitle", r"tile_px = True found, expected an integer"),
        ("title", "tile_px = 3\ntitle", r"tile_px = 3 found, expected an integer from 32"),
        ("title", "color_tolerance = [1]\ntitle", r"color_tolerance = \[1\] found, expected an integer"),
        ("title", "crs = 32633\ntitle", "crs = 32633 found, expected text in quotes"),
        ("title", "labels = 'hue'\ntitle", "labels = 'hue' found, expected one of: auto"),
        ("title", "labels = ['values']\ntitle", r"labels = \['values'\] found, expected text"),
        ("title", "label_band = 1\ntitle", 'label_band = 1 found with labels = "auto"'),
        ('"Mine"', "7", "title = 7 found, expected text in quotes"),
        (
            "pattern = '(?P<split>a|b)/(?P<id>\\d+)\\.tif'",
            "pattern = 7",
            r"image\[0\]\.pattern = 7 found",
        ),
        ("pattern = '(?P<split>a|b)/(?P<id>\\d+)\\.tif'", "", r"image\[0\]\.pattern is missing"),
        ("[[image]]", "[image]", r"expected \[\[image\]\] with double brackets"),
        ("[[class]]\nvalue = 0", "[class]\nvalue = 0", "not readable as TOML"),
        ("label = ['", "label = '(' #", r"files\.label = '\(' found, expected a list of texts"),
        ("label = ['", "label = [3, '", r"files\.label holds 3, expected texts in quotes"),
        ("label = ['", "label = [] #", "no image or no label pattern found"),
        ("(?P<id>\\d+)\\.tif'\nbands", "(?P<id>\\d+\\.tif'\nbands", "is no regular expression"),
        ("_label\\.tif'", "_label)\\.tif'", "is no regular expression"),
        ("(?P<id>\\d+)_label", "\\d+_label", r"has no group \(\?P<id>\.\.\.\); add it"),
        ("(?P<id>\\d+)_label", "(?P<row>\\d+)_(?P<id>\\d+)_label", "ids of the groups row and id, the images' of id;"),
        ('["red", "green"]', '["red", "red"]', r"image\[0\]\.bands holds 'red' twice"),
        ('["red", "green"]', "3", r"image\[0\]\.bands = 3 found, expected a list"),
        ('name = "dsm"', "", r"extra\[0\]\.name is missing"),
        ('test = ["2"]', 'test = ["01"]', "id '01' stands in split.train and split.test"),
        ('test = ["2"]', 'test = ["2", "2"]', "id '2' stands in split.test twice"),
        ('test = ["2"]', "test = [2]", r"split\.test holds 2, expected texts in quotes"),
        ('b = "test" }', 'b = "dev" }', "split 'dev' found, expected one of: train, val, test"),
        ('b = "test" }', "b = 1 }", r"split\.folders\.b = 1 found, expected one of"),
        ("folders = {", "unlabelled = ['later']\nfolders = {", "split 'later' found"),
        ("folders = {", "known_bad = '7'\nfolders = {", r"split\.known_bad = '7' found, expected a list"),
        ("folders = {", "lists = { dev = 'dev.txt' }\nfolders = {", "split 'dev' found"),
        (
            "folders = {",
            "lists = { val = 7 }\nfolders = {",
            r"split\.lists\.val = 7 found, expected the name",
        ),
        ("folders = {", "chip_px = 512\nfolders = {", r"split\.chip_px found without split\.lists"),
        ('folders = { a = "train", b = "test" }', "", "has a group split, but split.folders is missing"),
        ("(?P<split>a|b)", "(?:a|b)", r"no image pattern has a group \(\?P<split>"),
        ("color = [0, 0, 0]", "color = [0, 0, 256]", "expected three integers from 0 to 255"),
        ("value = 1\n", "value = 0\n", "value 0 stands for both 'ground' and 'building'"),
    ],
)
def test_each_mistake_has_its_line(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=message) as caught:
        parse_preset(GOOD.replace(old, new), name="x", where="x.toml")
    assert str(caught.value).startswith("x.toml: ")
    assert len(str(caught.value).splitlines()) == 1


def test_all_mistakes_are_said() -> None:
    text = GOOD.replace("title", "tilepx = 3\ntitle").replace('["red", "green"]', "3")
    text = text.replace('b = "test" }', "b = 1 }")
    with (
        mock.patch.object(logging.getLogger("ctrs.tiles.preset_file"), "error") as said,
        pytest.raises(ConfigError, match=r"^x\.toml: unknown key 'tilepx'; .*; and 2 more mistakes in the file$"),
    ):
        parse_preset(text, name="x", where="x.toml")
    lines = [call.args[0] % call.args[1:] for call in said.call_args_list]
    assert len(lines) == 3
    assert lines[1].startswith("x.toml: image[0].bands = 3 found")


NAMES = st.one_of(st.text(max_size=4), st.sampled_from(["id", "name", "pattern", "train"]))
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.dates(), st.just("(?P<id>.)"),
        st.just("train"),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(NAMES, inner, max_size=3),
    ),
    max_leaves=6,
)  # fmt: skip
KEYS = (
    "title", "url", "tile_px", "crs", "labels", "label_band", "class_field", "color_tolerance", "image", "files",
    "extra", "split", "class",
)  # fmt: skip
INNER = {
    "image": ("name", "pattern", "bands"),
    "files": ("label", "eroded", "signs"),
    "extra": ("name", "pattern"),
    "split": ("train", "val", "folders", "lists", "chip_px", "unlabelled", "known_bad"),
    "class": ("value", "name", "color", "scored", "ignored"),
}


@settings(max_examples=300, deadline=None)
@given(key=st.sampled_from(KEYS), value=VALUES, data=st.data())
def test_no_value_of_any_key_surprises_the_reader(key: str, value: object, data: st.DataObject) -> None:
    document = tomllib.loads(GOOD)
    if key in INNER and data.draw(st.booleans()):
        table = document[key][0] if isinstance(document[key], list) else document[key]
        table[data.draw(st.sampled_from(INNER[key]))] = value
    else:
        document[key] = value
    with mock.patch("tomllib.loads", return_value=document):
        said = ""
        try:
            parse_preset("", name="x", where="x.toml")
        except ConfigError as error:
            said = str(error)
    assert said == "" or said.startswith("x.toml: ")
    assert len(said.splitlines()) <= 1


def test_its_representation_tells_a_preset_apart() -> None:
    """What is prepared depends on it: it is the same in each process, and changes with what the file says."""
    text = preset_text("spacenet")
    first = parse_preset(text, name="x", where="x")
    commented = parse_preset(f"# more\n{text}", name="x", where="x")
    changed = parse_preset(text.replace(r"_(?P<chip>img\d+)\.tif", r"_(?P<chip>img\d+)\.tiff"), name="x", where="x")
    assert repr(first) == repr(commented)
    assert repr(first) != repr(changed)
    assert "frozenset" not in repr(first)


def test_kinds_of_images() -> None:
    potsdam, spacenet, inria = (load_preset(name) for name in ("potsdam", "spacenet", "inria"))
    assert potsdam is not None
    assert spacenet is not None
    assert inria is not None
    assert (potsdam.variants, spacenet.variants, inria.variants) == (("RGB", "IRRG", "RGBIR"), ("RGB", "MS"), ())
    chosen = potsdam.of_variant("rgbir")
    assert chosen is not None
    assert [image.bands for image in chosen.images] == [("red", "green", "blue", "near infrared")]
    assert potsdam.of_variant("") is potsdam.of_variant("RG") is None
    places = (
        "RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img1.tif",
        "MUL-PanSharpen/MUL-PanSharpen_AOI_2_Vegas_img1.tif",
    )
    of_bands = {name: spacenet.of_variant(name) for name in ("rgb", "ms")}
    found = {name: preset.image_pattern(places) for name, preset in of_bands.items() if preset is not None}
    assert {name: len(pattern.bands) for name, pattern in found.items() if pattern} == {"rgb": 3, "ms": 8}


def test_an_unknown_crs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace("title", "crs = 'EPSG:99999999'\ntitle"))
    with pytest.raises(ConfigError, match=r"mine\.toml: crs = 'EPSG:99999999' is unknown"):
        load_preset(str(path))


def test_unknown_presets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=re.escape("preset 'postdam' is unknown; did you mean potsdam? expected one of: inria, ")
    ):
        load_preset("postdam")
    with pytest.raises(ConfigError, match=r"none\.toml: not readable"):
        load_preset(str(tmp_path / "none.toml"))
