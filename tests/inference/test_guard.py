"""Scenes unlike the training imagery are told, with figures; scenes like it are not."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrs.classes import BUILDING_CLASSES
from ctrs.errors import CtrsError, DataError, DataWarning, ImageryMismatchError
from ctrs.inference.guard import Difference, TrainingImagery, check_scene, compare
from ctrs.model_files import Architecture, CheckpointMetadata
from ctrs.raster.bands import Bands
from ctrs.raster.geotiff import Grid, open_raster, read_window
from ctrs.raster.imagery_profile import ImageryProfile
from ctrs.raster.units import ground_pixel_size_m
from ctrs.raster.windows import PixelWindow

NAMES = ("red", "green", "blue")


def imagery(seed: int = 0, *, gain: float = 1.0, shift: float = 0.0, dtype: str = "uint8") -> np.ndarray:
    """Pixels (3, n) of bare ground, roofs and some green; red is brightest, blue darkest."""
    rng = np.random.default_rng(seed)
    light = rng.normal(120, 35, 20_000)
    green = rng.random(20_000) < 0.3
    bands = np.stack([light + 25 - 50 * green, light + 5 * green, light - 30 - 10 * green])
    bands += rng.normal(0, 6, bands.shape)
    limits = np.iinfo(dtype)
    return (bands * gain + shift).clip(limits.min, limits.max).astype(dtype)


def trained_on(*scenes: np.ndarray, sizes: tuple[float, ...] = (0.1,), names: tuple[str, ...] = NAMES) -> Any:
    """Return what a checkpoint trained on these scenes knows."""
    profile = ImageryProfile.of(scenes, [1.0] * len(scenes), sizes)
    assert profile is not None
    every = np.concatenate(scenes, axis=1).astype(float)
    dtype = str(scenes[0].dtype)
    ends = (0.0, 255.0) if dtype == "uint8" else (0.0, float(np.quantile(every, 0.999)))
    bands = Bands(
        names=names, dtype=dtype, low=(ends[0],) * len(names), high=(ends[1],) * len(names),
        mean=tuple(every.mean(axis=1)), std=tuple(every.std(axis=1)),
    )  # fmt: skip
    return TrainingImagery(bands=bands, pixel_sizes_m=profile.pixel_sizes_m, profile=profile)


def without_profile(training: TrainingImagery) -> TrainingImagery:
    return TrainingImagery(bands=training.bands, pixel_sizes_m=training.pixel_sizes_m)


def kinds(found: tuple[Difference, ...]) -> list[str]:
    return [difference.kind for difference in found]


HOME = trained_on(imagery(0), imagery(1, gain=0.9), imagery(2, shift=12))


@pytest.mark.parametrize("known", [HOME, without_profile(HOME)])
def test_scenes_like_the_training_imagery_pass(known: TrainingImagery) -> None:
    for scene in (imagery(5), imagery(6, gain=0.9), imagery(7, shift=15), imagery(8, gain=0.8)):
        assert compare(scene, known, pixel_size_m=0.1) == ()


@pytest.mark.parametrize(
    ("scene", "expected", "words"),
    [
        (
            imagery(5, gain=0.5),
            "values",
            "band green is darker: mean 60.46, training 121 +- 35.8; histogram distance 1.70",
        ),
        (imagery(5, gain=0.3, shift=80), "spread", "has little contrast: standard deviation"),
        (imagery(5)[::-1], "band order", "bands 3,2,1 fit red, green, blue better than 1,2,3 do (divergence"),
        (imagery(5, gain=2.5, shift=-150), "clipped", "the greatest value 255 (limit 10%): clipped, or nodata"),
        (np.stack([*imagery(5)[:2], np.full(20_000, 7, np.uint8)]), "constant", "band blue holds nothing but 7"),
    ],
)
def test_what_differs_is_named_with_figures(scene: np.ndarray, expected: str, words: str) -> None:
    found = compare(scene, HOME, pixel_size_m=0.1)
    assert expected in kinds(found)
    text = next(difference.text for difference in found if difference.kind == expected)
    assert words in text


def test_what_else_differs_is_told_of_the_right_bands() -> None:
    dark = imagery(5, shift=-45)
    right = compare(dark, HOME)
    assert "values" in kinds(right)
    found = compare(dark[::-1], HOME)
    assert kinds(found)[0] == "band order"
    assert found[1:] == right


def test_advice_on_the_order_names_the_bands_of_the_file() -> None:
    found = compare(imagery(5)[::-1], HOME, bidx=(5, 3, 2))
    assert "try --bidx 2,3,5" in found[0].text


def test_infrared_first_is_found_among_four_bands() -> None:
    rng = np.random.default_rng(1)
    colours = imagery(0)
    infrared = 255 - colours[:1].astype(float) * 0.5 + rng.normal(0, 4, (1, 20_000))
    four = np.concatenate([colours, infrared.clip(0, 255).astype(np.uint8)])
    known = trained_on(four, names=(*NAMES, "band_4"))
    assert compare(four, known) == ()
    (difference, *_) = compare(four[[3, 0, 1, 2]], known)
    assert difference.kind == "band order"
    assert "bands 2,3,4,1 fit" in difference.text


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (0.5, "ground pixel 50 cm, training had 10 cm to 20 cm (2.5 x coarser; --gsd model resamples)"),
        (0.05, "ground pixel 5 cm, training had 10 cm to 20 cm (2 x finer; --gsd model resamples)"),
        (1.25, "ground pixel 1.25 m, training had"),
    ],
)
def test_ground_pixels_are_compared(own: float, words: str) -> None:
    known = trained_on(imagery(0), imagery(1), sizes=(0.1, 0.2))
    (difference,) = compare(imagery(5), known, pixel_size_m=own)
    assert words in difference.text


@pytest.mark.parametrize("own", [0.081, 0.1, 0.15, 0.2, 0.249, None])
def test_ground_pixels_near_or_between_those_of_training_pass(own: float | None) -> None:
    known = trained_on(imagery(0), imagery(1), sizes=(0.1, 0.2))
    assert compare(imagery(5), known, pixel_size_m=own) == ()


def test_numbers_of_another_scale_are_found_in_16_bits() -> None:
    known = trained_on(imagery(0, gain=16, dtype="uint16"))
    assert compare(imagery(5, gain=16, dtype="uint16"), known) == ()
    assert {"values", "spread", "outside"} <= set(kinds(compare(imagery(5, dtype="uint16"), known)))
    assert {"values", "outside"} <= set(kinds(compare(imagery(5, gain=64, dtype="uint16"), known)))
    old = without_profile(known)
    assert {"values", "outside"} <= set(kinds(compare(imagery(5, gain=64, dtype="uint16"), old)))


def test_training_scenes_that_differ_much_widen_the_limits() -> None:
    scene = imagery(5, gain=0.45)
    assert "values" in kinds(compare(scene, trained_on(imagery(0), imagery(1))))
    varied = trained_on(*(imagery(number) for number in range(8)), imagery(9, gain=0.3, shift=10))
    assert varied.profile is not None
    assert varied.profile.widest_distance > 1
    assert "values" not in kinds(compare(scene, varied))


def test_few_pixels_say_nothing_about_values() -> None:
    assert compare(imagery(5, gain=0.3)[:, :400], HOME) == ()
    assert compare(imagery(5)[:, :0], HOME) == ()


@dataclass
class Scene:
    """Stands in for ``SceneSource``."""

    pixels: np.ndarray
    pixel_size_m: float | None = 0.1
    gsd_factor: float = 1.0
    name: str = "town.tif"
    bidx: tuple[int, ...] = (1, 2, 3)

    def sample(self, max_px: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels in two rows, of which the second is not valid."""
        both = np.stack([self.pixels, np.zeros_like(self.pixels)], axis=1)
        return both, np.arange(2)[:, None].repeat(self.pixels.shape[1], axis=1) == 0


def test_one_warning_joins_all_and_strict_refuses_with_the_same_words() -> None:
    scene = Scene(imagery(5, gain=0.5), pixel_size_m=0.3)
    with pytest.warns(DataWarning) as caught:
        found = check_scene(scene, HOME)
    assert kinds(found)[:2] == ["pixel size", "values"]
    (line,) = [str(entry.message) for entry in caught]
    assert line.startswith(
        "town.tif: unlike the training imagery: ground pixel 30 cm, training had 10 cm (3 x coarser;"
    )
    assert "; look at the mask with care" in line
    with pytest.raises(ImageryMismatchError) as refused:
        check_scene(scene, HOME, strict=True)
    assert str(refused.value).partition("; give imagery")[0] == line.partition("; look at")[0]
    assert isinstance(refused.value, CtrsError)
    assert "\n" not in line


def test_invalid_pixels_and_resampling_are_taken_into_account() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_scene(Scene(imagery(5)), HOME, strict=True) == ()
        assert check_scene(Scene(imagery(5), pixel_size_m=0.2, gsd_factor=2.0), HOME, strict=True) == ()
    with pytest.warns(DataWarning, match="ground pixel 20 cm"):
        check_scene(Scene(imagery(5), pixel_size_m=0.2), HOME)


def test_a_scene_without_valid_pixels_is_told() -> None:
    with pytest.warns(DataWarning, match="no valid pixel among 20000"):
        found = check_scene(Empty(imagery(5)), HOME)
    assert kinds(found) == ["empty"]


@dataclass
class Empty(Scene):
    """Holds nodata alone."""

    def sample(self, max_px: int) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels of which none is valid."""
        return self.pixels[:, None], np.zeros((1, self.pixels.shape[1]), bool)


def metadata(**changes: Any) -> CheckpointMetadata:
    return CheckpointMetadata(
        architecture=Architecture(backbone="b", decoder="d", num_classes=2, in_channels=3),
        classes=BUILDING_CLASSES, bands=HOME.bands, window_px=64, overlap=0.25, **changes,
    )  # fmt: skip


def test_what_a_checkpoint_says_is_read_from_its_description() -> None:
    assert HOME.profile is not None
    row = metadata(data={"imagery": HOME.profile.to_json()}, pixel_size_m=0.1).to_json()
    assert TrainingImagery.of(CheckpointMetadata.from_json(row)) == HOME


def test_a_checkpoint_of_an_older_ctrs_is_read() -> None:
    assert TrainingImagery.of(metadata(pixel_size_m=0.3)) == TrainingImagery(
        bands=HOME.bands, pixel_sizes_m=(0.3, 0.3), profile=None
    )
    assert TrainingImagery.of(metadata()).pixel_sizes_m is None
    with pytest.raises(DataError, match="the profile of the training imagery is damaged"):
        TrainingImagery.of(metadata(data={"imagery": {"levels": 3}}))


def test_differences_are_json_values() -> None:
    (difference,) = compare(imagery(5), HOME, pixel_size_m=0.5)
    row = difference.to_json()
    assert row["kind"] == "pixel size"
    assert row["figures"]["ratio"] == pytest.approx(5)


def read_scene(path: Path) -> tuple[np.ndarray, float]:
    with open_raster(path) as dataset:
        window = PixelWindow(col_off=0, row_off=0, width=dataset.width, height=dataset.height)
        pixels, valid = read_window(dataset, window)
        size = float(np.mean(ground_pixel_size_m(Grid.of(dataset))))
    return pixels[:, ::7, ::7][:, valid[::7, ::7]], size


def test_real_places_pass_and_real_mistakes_do_not(real_data: Path) -> None:
    """Trained on four towns: no other town warns; half the values, exchanged bands and twice the detail do, each."""
    folder = real_data / "oam_fair_buildings" / "scenes"
    homes = [folder / f"{name}_z20.tif" for name in ("zanzibar_a", "kampala_a", "kampala_b")]
    homes += [path for path in (real_data / "oam_banepa_urban" / "scene").glob("*.tif") if "mask" not in path.stem]
    read = [read_scene(path) for path in homes]
    known = trained_on(*(pixels for pixels, _ in read), sizes=tuple(size for _, size in read))
    for name in ("zanzibar_b", "catanduanes_a", "catanduanes_b", "banepa_rural_a", "banepa_rural_b"):
        pixels, size = read_scene(folder / f"{name}_z20.tif")
        assert compare(pixels, known, pixel_size_m=size) == (), name
        assert "values" in kinds(compare(pixels // 2, known)), name
        assert kinds(compare(pixels[::-1], known)) == ["band order"], name
        (difference,) = compare(pixels, known, pixel_size_m=size / 2)
        assert re.search(r"ground pixel [67]\.\d+ cm, training had 13.* finer", difference.text), difference.text
