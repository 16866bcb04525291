"""Presets: complete, recognisable, and wrong ones are refused in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ctrs.errors import ConfigError
from ctrs.tiles.presets import load_preset, parse_preset, path_id, preset_names, preset_text, recognise

LAYOUTS = {
    "potsdam": [
        ("2_Ortho_RGB/top_potsdam_2_10_RGB.tif", "5_Labels_all/top_potsdam_2_10_label.tif"),
        ("Potsdam/2_Ortho_RGB/top_potsdam_06_07_RGB.tif", "Potsdam/5_Labels_all/top_potsdam_6_7_label.tif"),
        ("top_potsdam_2_10_IRRG.tif", "top_potsdam_2_10_label.tif"),
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
}


@pytest.mark.parametrize(("name", "pair"), [(name, pair) for name, pairs in LAYOUTS.items() for pair in pairs])
def test_layouts_are_recognised(name: str, pair: tuple[str, str]) -> None:
    preset = recognise(pair)
    assert preset is not None
    assert preset.name == name
    image = preset.image_pattern(pair)
    assert image is not None
    found = image.pattern.fullmatch(pair[0])
    label = next(match for pattern in preset.label_patterns if (match := pattern.fullmatch(pair[1])))
    assert found is not None
    assert path_id(found) == path_id(label)


def test_other_folders_are_not_recognised() -> None:
    assert recognise(["images/a.tif", "labels/a.tif"]) is None
    assert recognise(["2_Ortho_RGB/top_potsdam_2_10_RGB.tif"]) is None  # no labels


def test_official_splits() -> None:
    potsdam, vaihingen, inria = (load_preset(name) for name in ("potsdam", "vaihingen", "inria"))
    assert potsdam is not None
    assert vaihingen is not None
    assert inria is not None
    sizes = {split: list(potsdam.split_ids.values()).count(split) for split in ("train", "test")}
    assert sizes == {"train": 24, "test": 14}
    sizes = {split: list(vaihingen.split_ids.values()).count(split) for split in ("train", "test")}
    assert sizes == {"train": 16, "test": 17}
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = ", "not readable as TOML"),
        ("colour = 1", "unknown key 'colour'"),
        ("tile_px = 512", "no image or no label pattern found"),
        ("[[image]]\npattern = '('\n[files]\nlabel = ['a']", "is no regular expression"),
        ("[[image]]\npattern = 'a'\n[files]\nlabel = ['a']", r"has no group \(\?P<id>"),
        ("labels = 'hue'\n[[image]]\npattern='(?P<id>a)'\n[files]\nlabel=['(?P<id>a)']", "labels = 'hue' found"),
        (
            "[[image]]\npattern='(?P<id>a)'\n[files]\nlabel=['(?P<id>a)']\n[split]\nfolders={a='dev'}\n"
            "[[class]]\nname='x'",
            "split 'dev' found, expected one of: train, val, test",
        ),
    ],
)
def test_wrong_presets_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_preset(text, name="x", where="x.toml")


def test_unknown_presets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape("preset 'postdam' is unknown; did you mean potsdam? expected one of: inria, ")):
        load_preset("postdam")
    with pytest.raises(ConfigError, match=r"none\.toml: not readable"):
        load_preset(str(tmp_path / "none.toml"))
