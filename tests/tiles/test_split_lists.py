"""Official splits from lists: of images, of chips, in archives, and what is wrong with them."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrs.config import PrepareConfig
from ctrs.errors import DataError, DataWarning, UsageError
from ctrs.raster.names import archive_member
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.findings import Findings
from ctrs.tiles.presets import Preset, load_preset
from ctrs.tiles.split_lists import ChipSplits, ListedSplits, read_listed_splits

IMAGES = {"aachen_1": Path("aachen/images/aachen_1.tif"), "aachen_2": Path("aachen/images/aachen_02.tif")}
SHEETS = {"M-33-7-A-d-2-3": Path("images/M-33-7-A-d-2-3.tif"), "N-34-61-B-a-1-1": Path("images/N-34-61-B-a-1-1.tif")}
ALL_LISTS = {"train.txt": "", "val.txt": "", "test.txt": ""}


def preset(name: str) -> Preset:
    found = load_preset(name)
    assert found is not None
    return found


def listed(
    folder: Path, known: Preset, images: Mapping[str, Path], config: PrepareConfig | None = None, **texts: str
) -> tuple[ListedSplits, Findings]:
    files = {}
    for name, text in texts.items():
        path = folder / f"{name}.txt"
        path.write_text(text)
        files[f"base/{path.name}"] = path
    findings = Findings()
    return read_listed_splits(known, files, images, config or PrepareConfig(), findings), findings


def test_lists_of_file_names(tmp_path: Path) -> None:
    found, findings = listed(
        tmp_path,
        preset("openearthmap"),
        IMAGES,
        train="aachen_1.tif\r\n\n  xbd_7.tif\n",
        val="aachen/aachen_02.tif",
        test="",
    )
    assert found.scenes == {"aachen_1": "train", "aachen_2": "val"}
    assert found.chips == {}
    assert [entry.message for entry in findings.entries] == [
        "1 of 3 images in the lists of openearthmap are not there: xbd_7"
    ]


def test_images_in_no_list_are_named(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="scenes aachen_2 are in no list of openearthmap; they are taken for training"):
        found, _ = listed(tmp_path, preset("openearthmap"), IMAGES, train="", val="aachen_1.tif", test="")
    assert found.scenes == {"aachen_1": "val"}


def test_missing_lists_are_named(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match=r"train\.txt, val\.txt, test\.txt of preset openearthmap not found: there"):
        found, _ = listed(tmp_path, preset("openearthmap"), IMAGES)
    assert found == ListedSplits(scenes={}, chips={})
    with pytest.warns(DataWarning, match=r"^test\.txt of preset landcover_ai not found: .* list is left out"):
        listed(tmp_path, preset("landcover_ai"), {"A": Path("A.tif")}, train="A_1", val="A_2")


def test_an_image_in_two_lists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"val\.txt: aachen_1\.tif is listed in train\.txt, too; keep it in one"):
        listed(tmp_path, preset("openearthmap"), IMAGES, train="aachen_1.tif", val="aachen_1.tif", test="")


def test_lists_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with (
        pytest.warns(DataWarning, match="not found"),
        pytest.raises(DataError, match=r"train\.txt: not UTF-8 text .*; save it as UTF-8"),
    ):
        read_listed_splits(preset("openearthmap"), {"train.txt": path}, IMAGES, PrepareConfig(), Findings())


def test_the_list_nearest_to_the_source_is_read(tmp_path: Path) -> None:
    near, far = tmp_path / "near.txt", tmp_path / "far.txt"
    near.write_text("aachen_1.tif\naachen_02.tif")
    far.write_text("other.tif")
    known = replace(preset("openearthmap"), split_lists={"val": "val.txt"})
    files = {"a/old/val.txt": far, "a/val.txt": near, "a/eval.txt": far}
    found = read_listed_splits(known, files, IMAGES, PrepareConfig(), Findings())
    assert found.scenes == {"aachen_1": "val", "aachen_2": "val"}


def test_lists_in_archives_of_archives(tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner.zip", tmp_path / "outer.zip"
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("base/val.txt", "aachen_1.tif\naachen_2.tif\n")
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(inner, "deep/inner.zip")
    path = archive_member(archive_member(outer, "deep/inner.zip"), "base/val.txt")
    known = replace(preset("openearthmap"), split_lists={"val": "val.txt"})
    found = read_listed_splits(known, {"inner/base/val.txt": path}, IMAGES, PrepareConfig(), Findings())
    assert found.scenes == {"aachen_1": "val", "aachen_2": "val"}


def test_lists_of_chips(tmp_path: Path) -> None:
    texts = {"train": "M-33-7-A-d-2-3_0\nM-33-7-A-d-2-3_4\nN-34-61-B-a-1-1_2", "val": "M-33-7-A-d-2-3_1", "test": ""}
    found, findings = listed(tmp_path, preset("landcover_ai"), SHEETS, **texts)
    assert found.scenes == {}
    assert found.chips["M-33-7-A-d-2-3"] == ChipSplits(chip_px=512, splits={0: "train", 4: "train", 1: "val"})
    assert found.chips["N-34-61-B-a-1-1"].splits == {2: "train"}
    assert not findings.entries


def test_lines_that_name_no_chip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape("train.txt: 'M-33-7-A-d-2-3' found, expected names of chips")):
        listed(tmp_path, preset("landcover_ai"), SHEETS, train="M-33-7-A-d-2-3", val="", test="")


def test_scenes_of_which_no_chip_is_listed_are_named(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="scenes N-34-61-B-a-1-1: in no list of landcover_ai; they are left out"):
        listed(tmp_path, preset("landcover_ai"), SHEETS, train="M-33-7-A-d-2-3_0", val="", test="")


@pytest.mark.parametrize(
    "config", [PrepareConfig(split="place"), PrepareConfig(val=("M-*",)), PrepareConfig(test=("*",))]
)
def test_options_put_chips_aside(tmp_path: Path, config: PrepareConfig) -> None:
    found, _ = listed(tmp_path, preset("landcover_ai"), SHEETS, config, train="M-33-7-A-d-2-3_0", val="", test="")
    assert found == ListedSplits(scenes={}, chips={})


@pytest.mark.parametrize(
    ("config", "option"), [(PrepareConfig(gsd_m=1), "--gsd"), (PrepareConfig(crs="EPSG:3857"), "--crs")]
)
def test_chips_are_not_counted_in_other_pixels(tmp_path: Path, config: PrepareConfig, option: str) -> None:
    with pytest.raises(UsageError, match=f"^{option} found, but the official split of landcover_ai counts chips"):
        listed(tmp_path, preset("landcover_ai"), SHEETS, config, train="M-33-7-A-d-2-3_0", val="", test="")


@given(
    width=st.integers(1, 60), height=st.integers(1, 60), chip_px=st.integers(1, 20), size=st.integers(1, 25),
    row=st.integers(0, 59), col=st.integers(0, 59), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_tile_is_in_the_split_of_every_pixel(
    width: int, height: int, chip_px: int, size: int, row: int, col: int, seed: int
) -> None:
    """Against a loop over pixels, with chips numbered by a loop over rows and columns."""
    numbers = {}
    number = 0
    for top in range(0, height, chip_px):
        for left in range(0, width, chip_px):
            numbers[top // chip_px, left // chip_px] = number
            number += 1
    names = ("train", "val", "test", None)
    splits = {number: name for number in range(number) if (name := names[(number * 7 + seed) % 4 if seed % 3 else 0])}
    row, col = min(row, height - 1), min(col, width - 1)
    window = PixelWindow(col_off=col, row_off=row, width=min(size, width - col), height=min(size, height - row))
    touched = {
        splits.get(numbers[y // chip_px, x // chip_px])
        for y in range(row, row + window.height)
        for x in range(col, col + window.width)
    }
    expected = touched.pop() if len(touched) == 1 else None
    assert ChipSplits(chip_px=chip_px, splits=splits).split_of(window, width=width) == expected


def test_lists_are_not_read_without_need(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, _ = listed(tmp_path, preset("potsdam"), IMAGES)
    assert found == ListedSplits(scenes={}, chips={})
