"""How often the blocks of real files are read, from the beginning of a command to its end."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from ctrs.config import PrepareConfig
from ctrs.raster import geotiff
from ctrs.tiles import audit_source, prepare_tiles
from ctrs.tiles.displacement import TILES_PER_SCENE
from ctrs.tiles.samples import MAX_SAMPLES

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

CLASSES = "\n".join(f'[[class]]\nname = "class_{value}"\nvalue = {value}\n' for value in range(6))
HEIGHT, WIDTH = 1300, 1124
BLOCKS: dict[str, dict[str, Any]] = {
    "512": {"tiled": True, "blockxsize": 512, "blockysize": 512},
    "256": {"tiled": True, "blockxsize": 256, "blockysize": 256},
    "strips": {"blockysize": 8},
}

Block = tuple[int, int]


class Watched:
    """An open dataset that notes the blocks of each read."""

    def __init__(self, dataset: rasterio.DatasetReader, reads: Counter[Block]) -> None:
        self._dataset, self._reads = dataset, reads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def __enter__(self) -> Watched:
        self._dataset.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self._dataset.__exit__(*reason)

    def read(self, *arguments: Any, window: Window | None = None, **options: Any) -> Any:
        height, width = self._dataset.block_shapes[0]
        place = window or Window(0, 0, self._dataset.width, self._dataset.height)
        for row in range(place.row_off // height, -(-(place.row_off + place.height) // height)):
            for col in range(place.col_off // width, -(-(place.col_off + place.width) // width)):
                self._reads[row, col] += 1
        return self._dataset.read(*arguments, window=window, **options)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> dict[Path, Counter[Block]]:
    """Reads of each block, by file, of everything that is opened from now on."""
    found: dict[Path, Counter[Block]] = {}
    really_open = geotiff.open_quietly

    def watch(path: Path | str, **options: Any) -> Any:
        return Watched(really_open(path, **options), found.setdefault(Path(path), Counter()))

    monkeypatch.setattr(geotiff, "open_quietly", watch)
    return found


def write_scene(make: Maker, source: Path, image: dict[str, Any], label: dict[str, Any], *, size: Block) -> list[Path]:
    place = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 366000, 0, -0.5, 5808000)}
    (source / "images").mkdir(parents=True)
    (source / "classes.toml").write_text(CLASSES)
    return [
        make.raster(source / "images/a.tif", make.noise(*size), **place, **image),
        make.raster(source / "labels/a.tif", make.indices(*size), **place, **label),
    ]


def beyond_one(reads: Counter[Block], path: Path) -> dict[Block, int]:
    """Return further reads of blocks, but for that of the last pixel, by which a file that was cut short is found."""
    with rasterio.open(path) as dataset:
        height, width = dataset.block_shapes[0]
        rows, cols = -(-dataset.height // height), -(-dataset.width // width)
    assert set(reads) == {(row, col) for row in range(rows) for col in range(cols)}
    counts = reads - Counter([(rows - 1, cols - 1)])
    return {block: count - 1 for block, count in counts.items() if count > 1}


@pytest.mark.parametrize("tile", [512, 500])
@pytest.mark.parametrize(("image", "label"), [("512", "512"), ("256", "256"), ("strips", "strips"), ("512", "strips")])
def test_prepare_reads_each_block_once(
    reads: dict[Path, Counter[Block]], make: Maker, tmp_path: Path, image: str, label: str, tile: int
) -> None:
    files = write_scene(make, tmp_path / "src", BLOCKS[image], BLOCKS[label], size=(HEIGHT, WIDTH))
    prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=tile, workers=2))
    for file in files:
        assert beyond_one(reads[file], file) == {}


def test_check_reads_again_only_the_tiles_that_it_shows_and_compares(
    reads: dict[Path, Counter[Block]], make: Maker, tmp_path: Path
) -> None:
    blocks = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    files = write_scene(make, tmp_path / "src", blocks, blocks, size=(640, 768))
    audit_source(tmp_path / "src", tmp_path / "check.html", PrepareConfig(tile_px=64))
    for file in files:
        again = beyond_one(reads[file], file)
        assert 0 < sum(again.values()) <= TILES_PER_SCENE + MAX_SAMPLES
        assert max(again.values()) <= 2


def test_labels_without_a_class_table_are_surveyed_first(
    reads: dict[Path, Counter[Block]], make: Maker, tmp_path: Path
) -> None:
    image, label = write_scene(make, tmp_path / "src", BLOCKS["256"], BLOCKS["256"], size=(HEIGHT, WIDTH))
    (tmp_path / "src/classes.toml").unlink()
    prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=512))
    assert beyond_one(reads[image], image) == {}
    assert set(beyond_one(reads[label], label).values()) == {1}
