"""Patches as the contrast losses sort them: counts against a naive loop, and the picture they end up in."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from ctrs.classes import IGNORE_INDEX
from ctrs.config import PatchMapConfig
from ctrs.errors import InputNotFoundError, OutputExistsError, UsageError
from ctrs.inspection import inspect_patches
from ctrs.inspection.patch_maps import class_index, patch_maps, picture_name
from ctrs.losses.patches import patch_bits
from ctrs.report.patch_picture import PatchKind
from ctrs.report.png import read_description
from ctrs.tiles.manifest import Manifest

P, N, D, V = PatchKind


def naive_kinds(mask, of_class, stride, num_classes, void):
    """Look at each window pixel by pixel; what lies beyond the mask is void."""
    height, width = mask.shape
    kinds = np.empty((-(-height // stride), -(-width // stride)), np.uint8)
    for i, j in np.ndindex(*kinds.shape):
        window = mask[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride].ravel().tolist()
        seen = {value if value < num_classes else "void" for value in window}
        if len(window) < stride**2:
            seen.add("void")
        if seen == {of_class}:
            kinds[i, j] = P
        elif of_class not in seen and (void == "allow" or "void" not in seen):
            kinds[i, j] = N
        else:
            kinds[i, j] = V if "void" in seen else D
    return kinds


@pytest.mark.parametrize("void", ["exclude", "allow"])
@pytest.mark.parametrize(("shape", "num_classes"), [((64, 64), 3), ((50, 37), 6), ((33, 64), 31)])
def test_kinds_equal_a_loop_over_windows(shape, num_classes, void):
    rng = np.random.default_rng(sum(shape))
    mask = rng.integers(0, num_classes, (5, 5)).repeat(13, 0).repeat(13, 1)[: shape[0], : shape[1]].astype(np.uint8)
    mask[rng.random(shape) < 0.002] = IGNORE_INDEX
    mask[-9:, -5:] = IGNORE_INDEX
    found = patch_maps(mask, num_classes, void=void)
    assert [one.class_index for one in found] == list(range(num_classes))
    kinds_seen = set()
    for one in found:
        assert [stage.stride for stage in one.stages] == [4, 8, 16, 32]
        for stage in one.stages:
            expected = naive_kinds(mask, one.class_index, stage.stride, num_classes, void)
            np.testing.assert_array_equal(stage.kinds, expected)
            assert stage.counts == {kind: int((expected == kind).sum()) for kind in PatchKind}
            kinds_seen |= set(np.unique(expected).tolist())
    assert kinds_seen == {P, N, D, V}


def test_a_hand_made_tile():
    """A house of 20 x 20 px at (8, 8) on ground; the last row of pixels is not labelled."""
    mask = np.zeros((64, 64), np.uint8)
    mask[8:28, 8:28] = 1
    mask[63] = IGNORE_INDEX
    ground, house = patch_maps(mask, 2)
    assert house.stages[0].counts == {P: 25, N: 240 - 25, D: 0, V: 16}
    assert house.stages[1].counts == {P: 4, N: 56 - 9, D: 5, V: 8}
    assert house.stages[2].counts == {P: 0, N: 12 - 4, D: 4, V: 4}
    assert house.stages[3].counts == {P: 0, N: 1, D: 1, V: 2}
    assert ground.stages[3].counts == {P: 1, N: 0, D: 1, V: 2}
    assert ground.stages[0].counts == {P: 240 - 25, N: 25, D: 0, V: 16}


def test_cells_are_those_of_the_losses():
    """What the losses see of a padded tile agrees, cell by cell, with what is drawn of it."""
    mask = np.random.default_rng(0).integers(0, 3, (9, 11)).repeat(6, 0).repeat(6, 1).astype(np.uint8)
    labels = torch.from_numpy(mask.astype(np.int64))[None]
    padded = [(64 // stride, 96 // stride) for stride in (4, 8, 16, 32)]
    levels = patch_bits(labels, padded, num_classes=3, strides=(4, 8, 16, 32))
    for stage, bits in enumerate(levels):
        drawn = patch_maps(mask, 3)[1].stages[stage].kinds
        h, w = drawn.shape
        assert ((drawn == P) == (bits[0, 0, :h, :w] == 2).numpy()).all()
        assert not (bits[0, 0, h:] == 2).any()


@pytest.fixture
def town(prepared):
    return Manifest.open(prepared(train=2, val=1))


def test_the_picture_holds_what_the_report_says(town, tmp_path):
    tile = town.tiles[0]
    report = inspect_patches(town, tile, tmp_path / "out" / "a.png", PatchMapConfig(class_name="building"))
    assert report.drawn == ("building",)
    assert set(report.counts) == {"ground", "building"}
    assert sum(report.counts["building"][32].values()) == 4
    assert report.counts["building"][4][P] > 20
    told = read_description(report.path)
    assert told["classes"] == report.to_json()["classes"]
    assert told["kind"] == "ctrs patches"
    json.dumps(report.to_json())
    pixels = np.rint(imread(report.path)[..., :3] * 255).astype(int)
    assert pixels.shape[1] == 2000
    # Stride 4 is the third panel: the share of bluish pixels there is that of the positives.
    side = (2000 - 4 * 14) / 3
    panel = pixels[90 : int(90 + side), int(2000 - 14 - side) : 1986]
    blue = panel[..., 2] > panel[..., 0] + 60
    assert blue.mean() == pytest.approx(report.counts["building"][4][P] / 256, rel=0.1)
    assert [entry.name for entry in report.path.parent.iterdir()] == ["a.png"]


def test_all_classes_of_the_tile_are_drawn_unless_one_is_named(town, tmp_path):
    assert inspect_patches(town, town.tiles[0], tmp_path / "a.png").drawn == ("ground", "building")


def test_a_finished_picture_is_left_and_another_is_not_replaced(town, tmp_path):
    path = tmp_path / "a.png"
    first = inspect_patches(town, town.tiles[0], path)
    written = path.stat().st_mtime_ns
    assert inspect_patches(town, town.tiles[0], path) == first
    assert path.stat().st_mtime_ns == written
    with pytest.raises(OutputExistsError, match="other inputs or options; pass --overwrite"):
        inspect_patches(town, town.tiles[0], path, PatchMapConfig(void="allow"))
    before = path.read_bytes()
    inspect_patches(town, town.tiles[1], path, PatchMapConfig(overwrite=True))
    assert path.read_bytes() != before
    inspect_patches(town, town.tiles[0], path, PatchMapConfig(overwrite=True))
    assert path.read_bytes() == before


def test_a_class_is_named_as_it_is_written(town):
    assert class_index("building", town.classes) == 1
    with pytest.raises(UsageError, match=r"'Bilding' is unknown, expected one of: ground, building; did you mean 'bui"):
        class_index("Bilding", town.classes)
    with pytest.raises(UsageError, match=r"expected one of: ground, building$"):
        class_index("lake", town.classes)


def test_tiles_that_show_nothing_are_refused(prepared, tmp_path):
    blank = Manifest.open(prepared("blank", train=1, val=0, labelled=False))
    with pytest.raises(UsageError, match="no labelled pixel"):
        inspect_patches(blank, blank.tiles[0], tmp_path / "a.png")
    assert inspect_patches(
        blank, blank.tiles[0], tmp_path / "a.png", PatchMapConfig(class_name="building", void="allow")
    ).counts["building"][4] == {P: 0, N: 256, D: 0, V: 0}
    blank.tiles[0].mask.unlink()
    with pytest.raises(InputNotFoundError, match="in the manifest but not on disk"):
        inspect_patches(blank, blank.tiles[0], tmp_path / "b.png")


def test_picture_names(town):
    name = town.tiles[0].image.stem
    assert picture_name(town.tiles[0], PatchMapConfig()) == f"{name}_patches.png"
    assert picture_name(town.tiles[0], PatchMapConfig(class_name="low vegetation")) == (
        f"{name}_patches_low-vegetation.png"
    )
