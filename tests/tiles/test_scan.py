"""The pass: each block is read once, facts are those of the pixels, and neither threads nor kills change a byte."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from ctrs.classes import ClassMap, LandClass
from ctrs.errors import RasterError
from ctrs.raster.geotiff import Grid
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.counting import LabelCounts
from ctrs.tiles.cutting import cut_tile
from ctrs.tiles.decoding import MAX_UNKNOWN_KINDS
from ctrs.tiles.findings import Findings
from ctrs.tiles.imagery import ReadPixels
from ctrs.tiles.labels import DecodedLabel, ReadLabel
from ctrs.tiles.layout import SceneSource
from ctrs.tiles.scan import Scan, scan
from ctrs.tiles.scenes import ReadyScene, ReadySource
from ctrs.tiles.streams import SceneLayout

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctrs.raster.windows import PixelWindow as Window

CLASSES = ClassMap(classes=tuple(LandClass(value=n, name=f"c{n}", color=(n, n, n)) for n in range(3)))


class Touches:
    """Notes, block by block, how often a raster is read, and refuses to be read backwards or by two threads."""

    def __init__(self, block: tuple[int, int]) -> None:
        self.block = block
        self.blocks: Counter[tuple[int, int]] = Counter()
        self.num_readers = 0
        self._lock = threading.Lock()

    def add(self, window: Window) -> None:
        rows, cols = window.slices
        with self._lock:
            for row in range(rows.start // self.block[0], -(-rows.stop // self.block[0])):
                for col in range(cols.start // self.block[1], -(-cols.stop // self.block[1])):
                    self.blocks[row, col] += 1


@dataclasses.dataclass
class FakeImagery:
    """Pixels in memory that count how they are read."""

    pixels: np.ndarray
    valid: np.ndarray
    block_px: tuple[int, int]
    sequential: bool = False
    nodata: float | None = None
    breaks_at: int | None = None

    def __post_init__(self) -> None:
        self.touches = Touches(self.block_px)
        height, width = self.valid.shape
        self.grid = Grid(crs=None, transform=Affine.identity(), width=width, height=height)
        self.names = tuple(f"band_{number}" for number in range(1, len(self.pixels) + 1))
        self.colors = (rasterio.enums.ColorInterp.undefined,) * len(self.pixels)
        self.dtype = self.pixels.dtype.name

    @contextmanager
    def reader(self) -> Iterator[ReadPixels]:
        self.touches.num_readers += 1
        thread, last = threading.get_ident(), [-1]

        def read(window: PixelWindow) -> tuple[np.ndarray, np.ndarray]:
            assert threading.get_ident() == thread
            assert window.row_off > last[0] or not self.sequential
            last[0] = window.row_off
            if self.breaks_at is not None and window.row_off + window.height > self.breaks_at:
                raise RasterError("image.tif: the file is damaged")
            self.touches.add(window)
            rows, cols = window.slices
            return self.pixels[:, rows, cols].copy(), self.valid[rows, cols].copy()

        yield read


@dataclasses.dataclass
class FakeLabel:
    """A label in memory: 7 is unknown, 8 is read as 1."""

    values: np.ndarray
    block_px: tuple[int, int]
    sequential: bool = False

    def __post_init__(self) -> None:
        self.touches = Touches(self.block_px)

    @contextmanager
    def reader(self) -> Iterator[ReadLabel]:
        self.touches.num_readers += 1

        def read(window: PixelWindow) -> DecodedLabel:
            self.touches.add(window)
            values = self.values[window.slices]
            mask = np.where(values == 7, 255, np.where(values == 8, 1, values)).astype(np.uint8)
            places = np.argwhere(values == 7)
            first = (int(places[0][0]), int(places[0][1])) if len(places) else None
            unknown = {"7": len(places)} if len(places) else {}
            return DecodedLabel(mask=mask, num_changed=int((values == 8).sum()), unknown=unknown, first_unknown=first)

        yield read


def a_scene(
    name: str = "a",
    shape: tuple[int, int] = (230, 190),
    *,
    seed: int = 0,
    block: tuple[int, int] = (64, 64),
    label_block: tuple[int, int] = (32, 32),
    tile: int = 64,
    stride: int | None = None,
    dtype: str = "uint8",
    count: int = 3,
    eroded: bool = False,
    **options: Any,
) -> ReadyScene:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, *shape)).astype(dtype)
    valid = np.ones(shape, bool)
    valid[: shape[0] // 2, : shape[1] // 3] = False
    valid[shape[0] // 2 :, -5:] = rng.random((shape[0] - shape[0] // 2, 5)) > 0.5
    values = rng.integers(0, 3, shape)
    values[rng.random(shape) < 0.02] = 255
    values[rng.random(shape) < 0.01] = 7
    values[rng.random(shape) < 0.01] = 8
    other = np.where(rng.random(shape) < 0.1, 255, np.where(values > 2, 255, values))
    source = SceneSource(name=name, image=Path(f"{name}.tif"), label=Path(f"{name}_label.tif"), split="train")
    return ReadyScene(
        source=source,
        imagery=FakeImagery(pixels, valid, block, **options),
        label=FakeLabel(values, label_block),
        eroded=FakeLabel(other, label_block) if eroded else None,
        tile_px=tile,
        stride_px=stride or tile,
    )


def a_source(*scenes: ReadyScene) -> ReadySource:
    imagery = scenes[0].imagery
    return ReadySource(
        scenes=scenes, classes=CLASSES, band_names=imagery.names, dtype=imagery.dtype, nodata=imagery.nodata
    )


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.tif"))
    }


def assert_same(first: Scan, second: Scan) -> None:
    assert first.tiles == second.tiles
    assert first.facts.keys() == second.facts.keys()
    for name, facts in first.facts.items():
        for field in dataclasses.fields(facts):
            if field.name != "preview":
                assert getattr(facts, field.name) == getattr(second.facts[name], field.name), field.name
        other = second.facts[name].preview
        assert facts.preview.step == other.step
        for key in ("pixels", "valid", "mask"):
            np.testing.assert_array_equal(getattr(facts.preview, key), getattr(other, key))


def check_facts(scene: ReadyScene, found: Scan) -> None:
    """Compare the facts of a scene with what whole arrays say."""
    imagery, facts = scene.imagery, found.facts[scene.name]
    assert isinstance(imagery, FakeImagery)
    assert isinstance(scene.label, FakeLabel)
    values, valid = scene.label.values, imagery.valid
    mask = np.where(values == 7, 255, np.where(values == 8, 1, values))
    times, kept_times = np.zeros(valid.shape, int), np.zeros(valid.shape, int)
    for tile in found.tiles:
        if tile.scene == scene.name:
            times[tile.window.slices] += 1
            kept_times[tile.window.slices] += tile.kept
    assert times.min() >= 1
    assert facts.num_px == valid.size
    assert facts.valid_px == valid.sum()
    assert facts.label_counts == tuple(((mask == index) & valid).sum() for index in range(3))
    assert facts.ignored_px == ((mask == 255) & valid).sum()
    assert facts.tiled_counts == tuple(((mask == index) & valid & (kept_times > 0)).sum() for index in range(3))
    assert facts.left_out_counts == tuple(((mask == index) & valid & (kept_times == 0)).sum() for index in range(3))
    assert facts.coverage == tuple(((kept_times == n) & valid).sum() for n in range(len(facts.coverage)))
    assert sum(facts.coverage) == facts.valid_px
    assert facts.num_changed == (values == 8).sum()
    assert facts.unknown == {"7": (values == 7).sum()}
    assert facts.first_unknown == tuple(np.argwhere(values == 7)[0])
    limits = np.iinfo(imagery.dtype) if imagery.pixels.dtype.kind in "iu" else None
    for number, band in enumerate(imagery.pixels):
        assert facts.low_px[number] == (((band == limits.min) & valid).sum() if limits else 0)
        assert facts.high_px[number] == (((band == limits.max) & valid).sum() if limits else 0)
    step = facts.preview.step
    np.testing.assert_array_equal(facts.preview.pixels, imagery.pixels[:, ::step, ::step])
    np.testing.assert_array_equal(facts.preview.valid, valid[::step, ::step])
    np.testing.assert_array_equal(facts.preview.mask, mask[::step, ::step])


LAYOUTS = [
    ((64, 64), (32, 32), 64, 64),
    ((64, 64), (128, 64), 64, 64),
    ((64, 64), (64, 64), 50, 50),
    ((50, 50), (64, 64), 64, 64),
    ((64, 64), (64, 64), 64, 32),
    ((64, 64), (1, 1), 64, 23),
    ((3, 190), (1, 190), 50, 50),
    ((512, 512), (256, 256), 64, 48),
    ((64, 64), (64, 64), 256, 256),
]


@pytest.mark.parametrize(("block", "label_block", "tile", "stride"), LAYOUTS)
@pytest.mark.parametrize("min_valid", [0.0, 0.6])
def test_blocks_are_read_once_and_pixels_counted_right(
    tmp_path: Path, block: tuple[int, int], label_block: tuple[int, int], tile: int, stride: int, min_valid: float
) -> None:
    scene = a_scene(block=block, label_block=label_block, tile=tile, stride=stride, eroded=True)
    found = scan(a_source(scene), tmp_path, write=False, min_valid=min_valid, workers=3)
    for source in (scene.imagery, scene.label, scene.eroded):
        assert isinstance(source, FakeImagery | FakeLabel)
        assert set(source.touches.blocks.values()) == {1}
        assert len(source.touches.blocks) == -(-230 // source.block_px[0]) * -(-190 // source.block_px[1])
    check_facts(scene, found)
    left_out = [tile for tile in found.tiles if not tile.kept]
    assert all(tile.valid_fraction == 0 or tile.valid_fraction < min_valid for tile in left_out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_other_dtypes(tmp_path: Path, dtype: str) -> None:
    scene = a_scene(dtype=dtype, count=2)
    assert isinstance(scene.imagery, FakeImagery)
    if dtype != "float32":
        scene.imagery.pixels[0, 100:110, 100:105] = np.iinfo(dtype).max
        scene.imagery.pixels[1, 100:110, 100:105] = np.iinfo(dtype).min
    check_facts(scene, scan(a_source(scene), tmp_path, write=False))


def test_threads_blocks_and_writing_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts: list[dict[str, Any]] = [
        {"block": (64, 64)},
        {"block": (32, 190), "label_block": (1, 190)},
        {"block": (100, 100), "label_block": (1, 1)},
        {"block": (1, 190), "sequential": True},
    ]
    first: Scan | None = None
    for number, layout in enumerate(layouts):
        for workers in (1, 4):
            source = a_source(
                a_scene(tile=48, stride=40, eroded=True, **layout), a_scene("b", (70, 300), seed=1, tile=48, stride=40)
            )
            if number == 2:
                monkeypatch.setattr("ctrs.tiles.streams.CHUNK_BYTES", 1)  # a tile at a time
            folder = tmp_path / f"{number}_{workers}"
            found = scan(source, folder, write=True, min_valid=0.1, workers=workers)
            first = first or found
            assert_same(first, found)
            assert digest(folder) == digest(tmp_path / "0_1")
            checked = scan(source, tmp_path / "none", write=False, min_valid=0.1, workers=workers)
            assert [dataclasses.replace(tile, sizes=()) for tile in found.tiles] == checked.tiles
    kept = {tile.file_name for tile in first.tiles if tile.kept} if first else set()
    assert {Path(name).name for name in digest(tmp_path / "0_1")} == kept
    assert not (tmp_path / "none").exists()


def test_sequential_files_are_opened_once(tmp_path: Path) -> None:
    scene = a_scene(block=(1, 190), label_block=(1, 190), sequential=True)
    scan(a_source(scene), tmp_path, write=False, workers=4)
    assert isinstance(scene.imagery, FakeImagery)
    assert scene.imagery.touches.num_readers == 1
    scene = a_scene(label_block=(1, 190), eroded=True)
    assert isinstance(scene.eroded, FakeLabel)
    scene.eroded.sequential = True
    scan(a_source(scene), tmp_path, write=False, workers=4)
    assert scene.eroded.touches.num_readers == 1


def test_a_big_scene_is_read_by_all_threads_where_blocks_allow() -> None:
    def segments(block: int, tile: int, stride: int, parts: int) -> list[range]:
        scene = a_scene(shape=(640, 64), block=(block, block), label_block=(1, 1), tile=tile, stride=stride)
        plan = _plan_of(scene)
        return SceneLayout.of(scene, plan, CLASSES).segments(parts)

    assert segments(64, 64, 64, 100) == [range(number, number + 1) for number in range(10)]
    assert segments(32, 64, 64, 4) == [range(3), range(3, 6), range(6, 9), range(9, 10)]
    assert segments(64, 50, 50, 100) == [range(13)]
    assert segments(64, 64, 32, 100) == [range(19)]
    assert segments(128, 64, 64, 100) == [range(number, number + 2) for number in range(0, 10, 2)]


def test_where_kept_pixels_would_not_fit_blocks_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = scan(a_source(a_scene(tile=50)), tmp_path, write=False)
    monkeypatch.setattr("ctrs.tiles.streams.READ_BYTES", 190 * 64 * 5 - 1)
    scene = a_scene(tile=50)
    assert_same(expected, scan(a_source(scene), tmp_path, write=False, workers=2))
    assert isinstance(scene.imagery, FakeImagery)
    assert set(scene.imagery.touches.blocks.values()) <= {1, 2, 3}


@pytest.mark.parametrize("layout", [{}, {"tile": 50}, {"tile": 64, "stride": 40}, {"sequential": True, "tile": 50}])
@pytest.mark.parametrize("stop_at", [1, 7, 12])
def test_interrupted_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: dict[str, Any], stop_at: int
) -> None:
    whole = scan(a_source(a_scene(**layout)), tmp_path / "whole", write=True, min_valid=0.3)
    calls: list[object] = []

    def stops(*args: Any, **options: Any) -> object:
        calls.append(args)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return cut_tile(*args, **options)

    monkeypatch.setattr("ctrs.tiles.crew.cut_tile", stops)
    with pytest.raises(KeyboardInterrupt):
        scan(a_source(a_scene(**layout)), tmp_path / "stopped", write=True, min_valid=0.3)
    monkeypatch.setattr("ctrs.tiles.crew.cut_tile", cut_tile)
    again = scan(a_source(a_scene(**layout)), tmp_path / "stopped", write=True, min_valid=0.3, workers=2)
    assert_same(whole, again)
    assert digest(tmp_path / "whole") == digest(tmp_path / "stopped")
    third = a_source(a_scene(**layout))
    assert_same(whole, scan(third, tmp_path / "stopped", write=True, min_valid=0.3))
    assert isinstance(third.scenes[0].imagery, FakeImagery)
    assert not third.scenes[0].imagery.touches.blocks


def test_rows_lost_in_the_middle_are_cut_again(tmp_path: Path) -> None:
    layout: dict[str, Any] = {"tile": 50, "label_block": (64, 64)}
    whole = scan(a_source(a_scene(**layout)), tmp_path / "whole", write=True)
    scan(a_source(a_scene(**layout)), tmp_path / "holes", write=True)
    lines = (tmp_path / "holes/journal.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "holes/journal.jsonl").write_text("".join(lines[0::2]))
    scene = a_scene(**layout)
    assert_same(whole, scan(a_source(scene), tmp_path / "holes", write=True))
    assert isinstance(scene.imagery, FakeImagery)
    assert sum(scene.imagery.touches.blocks.values()) < 2 * 4 * 3


def test_a_broken_scene_is_gathered_and_the_others_go_on(tmp_path: Path) -> None:
    scenes = [a_scene("a"), a_scene("b", breaks_at=150, tile=50), a_scene("c", seed=2)]
    findings = Findings()
    calls: list[int] = []
    found = scan(
        a_source(*scenes),
        tmp_path,
        write=True,
        workers=2,
        findings=findings,
        progress=lambda done, total, what: calls.append(done),
    )
    assert [(finding.scene, finding.message) for finding in findings.entries] == [
        ("b", "image.tif: the file is damaged")
    ]
    assert set(found.facts) == {tile.scene for tile in found.tiles} == {"a", "c"}
    assert calls == sorted(calls)
    with pytest.raises(RasterError, match="damaged"):
        scan(a_source(*scenes), tmp_path / "other", write=True, workers=2)


def test_too_many_kinds_of_unknown_values_are_counted_together() -> None:
    counts = LabelCounts()
    mask = np.zeros((1, 1), np.uint8)
    for part in range(20):
        unknown = {str(value): 1 + (value == 3) for value in range(500 * part, 500 * part + 500)}
        counts.add(DecodedLabel(mask=mask, unknown=unknown), PixelWindow(col_off=0, row_off=0, width=1, height=1))
    assert sum(counts.unknown.values()) == 20 * 500 + 1
    assert len(counts.unknown) <= 4 * MAX_UNKNOWN_KINDS < 20 * 500
    assert counts.unknown["3"] == 2
    assert counts.unknown["others"] > 0


def test_previews_of_many_scenes_are_small(tmp_path: Path) -> None:
    scenes = [a_scene(f"s{number}", (40, 40), block=(40, 40), count=20, dtype="float32") for number in range(3)]
    found = scan(a_source(*scenes), tmp_path, write=False)
    assert {facts.preview.step for facts in found.facts.values()} == {1}
    for scene in scenes:
        check_facts(scene, found)


def _plan_of(scene: ReadyScene) -> Any:
    from ctrs.tiles.counting import CountPlan
    from ctrs.tiles.tile_grid import TileGrid

    grid = TileGrid.over(scene.grid.height, scene.grid.width, scene.tile_px, scene.stride_px)
    return CountPlan(grid=grid, num_classes=3, num_bands=3, dtype="uint8", step=1)


def test_tiles_that_no_split_takes_are_left_out(tmp_path: Path) -> None:
    scene = a_scene(stride=40)
    found = scan(a_source(scene), tmp_path, write=False)
    placed = [tile for tile in found.tiles if tile.kept and tile.row != 2]
    tiles = [dataclasses.replace(tile, kept=tile in placed) for tile in found.tiles]
    facts = found.facts_of(placed)
    check_facts(scene, dataclasses.replace(found, tiles=tiles, facts=facts))
    assert sum(facts["a"].left_out_counts) > 0
    assert found.facts_of([tile for tile in found.tiles if tile.kept])["a"] is found.facts["a"]


def test_moments_and_hashes_are_those_of_the_pixels(tmp_path: Path) -> None:
    scene, copy = a_scene("a"), a_scene("b")
    found = scan(a_source(scene, copy), tmp_path, write=True, workers=2)
    hashes = {name: [tile.hash for tile in found.tiles if tile.scene == name] for name in ("a", "b")}
    assert hashes["a"] == hashes["b"]
    kept = [tile for tile in found.tiles if tile.scene == "a" and tile.kept]
    assert len({tile.hash for tile in kept}) == len(kept)
    assert isinstance(scene.imagery, FakeImagery)
    for tile in kept:
        inside = scene.imagery.pixels[(slice(None), *tile.window.slices)]
        values = inside[:, scene.imagery.valid[tile.window.slices]].astype(float)
        np.testing.assert_allclose(tile.moments.mean, values.mean(axis=1))
        assert tile.valid_fraction == pytest.approx(values.shape[1] / inside[0].size)
        with rasterio.open(tmp_path / "images" / tile.file_name) as image:
            assert np.array_equal(image.read(), inside)


@pytest.mark.parametrize("error", [OSError("disk on fire"), KeyboardInterrupt()])
def test_the_first_error_drops_what_has_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    calls: list[object] = []

    def fails(*args: Any, **options: Any) -> object:
        calls.append(args)
        raise error

    make: Callable[[], ReadySource] = lambda: a_source(*(a_scene(f"s{n}") for n in range(10)))  # noqa: E731
    monkeypatch.setattr("ctrs.tiles.crew.cut_tile", fails)
    with pytest.raises(type(error)):
        scan(make(), tmp_path, write=True, workers=3)
    assert len(calls) <= 3
