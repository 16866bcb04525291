from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from ctrs.errors import ConfigError, OutputError, OutputExistsError
from ctrs.synthetic import TownConfig, make_town
from ctrs.synthetic.town import TEST_IDS, TRAIN_IDS, erode_label

COLORS = {
    (255, 255, 255): "impervious",
    (0, 0, 255): "building",
    (0, 255, 255): "low vegetation",
    (0, 255, 0): "tree",
    (255, 255, 0): "car",
    (255, 0, 0): "clutter",
}
SMALL = TownConfig(size_px=256, train_ids=("2_10", "2_11"), test_ids=("2_13",), seed=3)


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return np.moveaxis(source.read(), 0, -1)


def colors_of(label: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(int(c) for c in color) for color in np.unique(label.reshape(-1, 3), axis=0)}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_town(tmp_path_factory.mktemp("small") / "potsdam", SMALL)


def test_layout_is_that_of_the_unzipped_set(town: Path) -> None:
    found = sorted(path.relative_to(town).as_posix() for path in town.rglob("*") if path.is_file())
    expected = sorted(
        name
        for scene in ("2_10", "2_11", "2_13")
        for name in (
            f"2_Ortho_RGB/top_potsdam_{scene}_RGB.tif",
            f"2_Ortho_RGB/top_potsdam_{scene}_RGB.tfw",
            f"5_Labels_all/top_potsdam_{scene}_label.tif",
            f"5_Labels_all_noBoundary/top_potsdam_{scene}_label_noBoundary.tif",
        )
    )
    assert found == expected
    assert [path.name for path in town.parent.iterdir()] == ["potsdam"]


def test_columns_have_two_digits_in_file_names(tmp_path: Path) -> None:
    make_town(tmp_path / "t", TownConfig(size_px=64, train_ids=("6_7",), test_ids=()))
    assert (tmp_path / "t/2_Ortho_RGB/top_potsdam_6_07_RGB.tif").is_file()


def test_rasters_are_georeferenced_rgb(town: Path) -> None:
    for path in town.rglob("*.tif"):
        with rasterio.open(path) as source:
            assert (source.count, source.shape, source.dtypes[0]) == (3, (256, 256), "uint8")
            assert source.crs.to_epsg() == 32633
            assert source.res == (0.2, 0.2)
            assert source.compression.value == "DEFLATE"
            assert [c.name for c in source.colorinterp] == ["red", "green", "blue"]
            assert source.nodata is None


def test_image_and_labels_share_the_grid_and_neighbours_join(tmp_path: Path) -> None:
    config = TownConfig(size_px=64, train_ids=("2_10", "2_11", "3_10"), test_ids=("3_13",), pixel_size_m=0.3)
    folder = make_town(tmp_path / "t", config)
    bounds = {}
    for scene in (*config.train_ids, *config.test_ids):
        opened = [rasterio.open(path) for path in sorted(folder.rglob(f"*_{scene}_*.tif"))]
        assert len(opened) == 3
        assert len({source.transform for source in opened}) == 1
        bounds[scene] = opened[0].bounds
        for source in opened:
            source.close()
    edge = 64 * 0.3
    assert bounds["2_11"].left == pytest.approx(bounds["2_10"].right, abs=1e-6)
    assert bounds["2_11"].top == pytest.approx(bounds["2_10"].top, abs=1e-6)
    assert bounds["3_10"].top == pytest.approx(bounds["2_10"].bottom, abs=1e-6)
    assert bounds["3_10"].left == pytest.approx(bounds["2_10"].left, abs=1e-6)
    assert bounds["3_13"].left - bounds["2_10"].left == pytest.approx(3 * edge, abs=1e-6)
    assert bounds["2_10"].right - bounds["2_10"].left == pytest.approx(edge, abs=1e-6)


def test_world_file_gives_the_centre_of_the_first_pixel(town: Path) -> None:
    lines = (town / "2_Ortho_RGB/top_potsdam_2_10_RGB.tfw").read_text().split()
    with rasterio.open(town / "2_Ortho_RGB/top_potsdam_2_10_RGB.tif") as source:
        east, north = source.xy(0, 0)
    assert [float(line) for line in lines] == pytest.approx([0.2, 0.0, 0.0, -0.2, east, north], abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_classes_occur_in_scenes_of_100_m(tmp_path: Path, seed: int) -> None:
    config = TownConfig(size_px=500, seed=seed, train_ids=("2_10", "5_12"), test_ids=())
    labels = sorted((make_town(tmp_path / "t", config) / "5_Labels_all").iterdir())
    assert len(labels) == 2
    for path in labels:
        assert colors_of(read(path)) == set(COLORS)


def test_labels_hold_legal_colours_only(town: Path) -> None:
    for path in (town / "5_Labels_all").iterdir():
        assert colors_of(read(path)) <= set(COLORS)
    for path in (town / "5_Labels_all_noBoundary").iterdir():
        assert colors_of(read(path)) <= {*COLORS, (0, 0, 0)}


def as_index(label: np.ndarray) -> np.ndarray:
    index = np.full(label.shape[:2], 255, dtype=np.uint8)
    for number, color in enumerate(COLORS):
        index[(label == color).all(axis=-1)] = number
    return index


@pytest.mark.parametrize("radius", [0, 1, 3, 5])
def test_eroded_labels_are_black_within_the_radius_and_nowhere_else(tmp_path: Path, radius: int) -> None:
    config = TownConfig(size_px=128, train_ids=("2_10",), test_ids=(), boundary_px=radius, seed=3)
    folder = make_town(tmp_path / "t", config)
    full = read(folder / "5_Labels_all/top_potsdam_2_10_label.tif")
    eroded = read(folder / "5_Labels_all_noBoundary/top_potsdam_2_10_label_noBoundary.tif")
    index = as_index(full)
    # Independent: Euclidean distance to the nearest pixel of any other class.
    expected = np.zeros(index.shape, dtype=bool)
    for number in np.unique(index):
        own = index == number
        expected |= own & (ndimage.distance_transform_edt(own) <= radius)
    black = (eroded == 0).all(axis=-1)
    np.testing.assert_array_equal(black, expected)
    np.testing.assert_array_equal(eroded[~black], full[~black])
    assert black.any() == (radius > 0)


@settings(max_examples=60)
@given(
    label=hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)),
    radius=st.integers(0, 12),
)
def test_erode_label_equals_a_naive_loop(label: np.ndarray, radius: int) -> None:
    rows, cols = label.shape
    expected = np.zeros(label.shape, dtype=bool)
    for r in range(rows):
        for c in range(cols):
            for r2 in range(rows):
                for c2 in range(cols):
                    near = (r - r2) ** 2 + (c - c2) ** 2 <= radius**2
                    expected[r, c] |= near and label[r, c] != label[r2, c2]
    np.testing.assert_array_equal(erode_label(label, radius), expected)


def test_same_seed_gives_the_same_pixels_and_another_seed_does_not(town: Path, tmp_path: Path) -> None:
    again = make_town(tmp_path / "again", SMALL)
    other = make_town(tmp_path / "other", TownConfig(size_px=256, train_ids=("2_10",), test_ids=(), seed=4))
    for path in sorted(town.rglob("*.tif")):
        np.testing.assert_array_equal(read(path), read(again / path.relative_to(town)))
    for name in ("2_Ortho_RGB/top_potsdam_2_10_RGB.tif", "5_Labels_all/top_potsdam_2_10_label.tif"):
        assert (read(town / name) != read(other / name)).any(axis=-1).mean() > 0.2


def test_a_scene_does_not_depend_on_which_others_are_made(town: Path, tmp_path: Path) -> None:
    alone = make_town(tmp_path / "alone", TownConfig(size_px=256, train_ids=("2_11",), test_ids=(), seed=3))
    for path in sorted(alone.rglob("*.tif")):
        np.testing.assert_array_equal(read(path), read(town / path.relative_to(alone)))


def test_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"t: exists and is not empty; remove it or choose another folder"):
        make_town(tmp_path / "t", SMALL)
    assert [path.name for path in (tmp_path / "t").iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputExistsError, match="exists and is not empty"):
        make_town(tmp_path / "file", SMALL)


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    make_town(tmp_path / "t", TownConfig(size_px=64, train_ids=("2_10",), test_ids=()))
    assert len(list((tmp_path / "t").rglob("*.tif"))) == 3


def test_nothing_stands_under_the_final_name_when_interrupted(tmp_path: Path) -> None:
    config = TownConfig(size_px=64, train_ids=("2_10", "2_11"), test_ids=())

    def stop(done: int, total: int, what: str) -> None:
        assert not (tmp_path / "t").exists()
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_town(tmp_path / "t", config, progress=stop)
    assert not (tmp_path / "t").exists()
    make_town(tmp_path / "t", config)
    assert len(list((tmp_path / "t").rglob("*.tif"))) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file.*not writable"):
        make_town(tmp_path / "file" / "t", SMALL)


def test_progress_counts_scenes(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    config = TownConfig(size_px=64, train_ids=("2_10", "2_11"), test_ids=())
    make_town(tmp_path / "t", config, progress=lambda done, total, what: calls.append((done, total, what)))
    assert calls == [(n, 2, "building the town") for n in range(3)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size_px": 10}, "size_px = 10 found, expected a whole number from 64 to 6000"),
        ({"size_px": 256.0}, "size_px = 256.0 found, expected a whole number"),
        ({"seed": -1}, "seed = -1 found, expected a whole number from 0"),
        ({"seed": True}, "seed = True found"),
        ({"boundary_px": -3}, "boundary_px = -3 found"),
        ({"pixel_size_m": 0.0}, "pixel_size_m = 0.0 found, expected metres from 0.02 to 1"),
        ({"pixel_size_m": float("nan")}, "pixel_size_m = nan found"),
        ({"pixel_size_m": "0.2"}, "pixel_size_m = '0.2' found"),
        ({"train_ids": ("2_13",)}, "train_ids: '2_13' found, expected names from: 2_10, 2_11"),
        ({"test_ids": ("2_10",)}, "test_ids: '2_10' found, expected names from: 2_13, 2_14"),
        ({"train_ids": ("2_10", "2_10")}, "train_ids: 2_10, 2_10 found, expected each name once"),
        ({"train_ids": "2_10"}, "train_ids = '2_10' found, expected a list of scene names such as '2_10'"),
        ({"train_ids": (), "test_ids": ()}, "both are empty; name at least one scene"),
    ],
)
def test_wrong_configuration_is_refused_with_the_remedy(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        TownConfig(**change)  # type: ignore[arg-type]


def test_lists_of_scenes_are_those_of_the_benchmark() -> None:
    assert (len(TRAIN_IDS), len(TEST_IDS)) == (24, 14)
    assert not set(TRAIN_IDS) & set(TEST_IDS)
    assert {"2_10", "5_12", "6_7", "7_12"} <= set(TRAIN_IDS)
