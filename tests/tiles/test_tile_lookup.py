"""Which tile people mean by a path or a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctrs.classes import BUILDING_CLASSES
from ctrs.errors import InputNotFoundError
from ctrs.raster.bands import Bands
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.manifest import Manifest, Scene, Tile
from ctrs.tiles.tile_lookup import find_tile, is_path, prepared_folder_of


@pytest.fixture
def town(tmp_path: Path) -> Manifest:
    """Two scenes of two tiles; the files are empty, for nobody reads them."""
    root = tmp_path / "town"
    tiles = []
    for scene in ("north", "south"):
        for row, counts in enumerate(((4096, 0), (3000, 1096))):
            name = f"{scene}_{row:03}_000.tif"
            paths = {kind: root / kind / "train" / name for kind in ("images", "masks", "masks_eroded")}
            for path in paths.values():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            tiles.append(
                Tile(
                    scene=scene, split="train", window=PixelWindow(col_off=0, row_off=64 * row, width=64, height=64),
                    image=paths["images"], mask=paths["masks"], mask_eroded=paths["masks_eroded"],
                    valid_fraction=1.0, class_counts=counts,
                )
            )  # fmt: skip
    scenes = tuple(
        Scene(
            name=name, split="train", width=64, height=128, crs_wkt=None, transform=(1, 0, 0, 0, -1, 0),
            source_image="", source_label="",
        )
        for name in ("north", "south")
    )  # fmt: skip
    bands = Bands(names=("grey",), dtype="uint8", low=(0,), high=(255,), mean=(100,), std=(50,))
    manifest = Manifest(
        root=root, name="town", tiles=tuple(tiles), scenes=scenes, classes=BUILDING_CLASSES, bands=bands, tile_px=64,
        pixel_size_m=None, preset=None, fingerprint="x",
    )  # fmt: skip
    manifest.save(root)
    return manifest


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_image_and_mask_stand_for_their_tile(town: Manifest, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = town.root / kind / "train" / "south_001_000.tif"
    assert find_tile(path, town) is town.tiles[3]
    monkeypatch.chdir(town.root / kind)
    assert find_tile("train/south_001_000.tif", town) is town.tiles[3]
    monkeypatch.chdir("train")
    assert find_tile("south_001_000.tif", town) is town.tiles[3]
    link = town.root.parent / "link.tif"
    link.symlink_to(path)
    assert find_tile(link, town) is town.tiles[3]


def test_names_stand_for_a_tile_and_the_most_varied_tile_of_a_scene(town: Manifest) -> None:
    assert find_tile("north_000_000", town) is town.tiles[0]
    assert find_tile("north", town) is town.tiles[1]


def test_prepared_data_are_found_from_a_path_in_them(town: Manifest) -> None:
    assert prepared_folder_of(town.root / "images" / "train" / "north_000_000.tif") == town.root
    assert prepared_folder_of(town.root.parent / "scene.tif") is None
    assert is_path("a/b")
    assert is_path(Path("b.TIFF"))
    assert not is_path("b")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("north_000_00", r"no tile or scene 'north_000_00'; did you mean north_000_000\?"),
        ("nroth", "did you mean north"),
        ("xyzzy", "it has north, south, north_000_000, ..."),
        ("images/train/north_100_000.tif", r"north_100_000\.tif: not found; did you mean north_00"),
        ("images/train", "no tile of .*; name an image or a mask that stands in its manifest"),
        ("masks_eroded/train/north_000_000.tif", "eroded borders, which training never sees; name .*masks/train/north"),
    ],
)
def test_what_is_no_tile_is_named(town: Manifest, name: str, part: str) -> None:
    with pytest.raises(InputNotFoundError, match=part):
        find_tile(town.root / name if "/" in name else name, town)
