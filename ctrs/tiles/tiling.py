"""``prepare_tiles``: a folder with images and labels becomes tiles, masks, splits and a manifest."""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.errors import NotGeoreferencedWarning

from ctrs.config import PrepareConfig, SplitName, to_plain
from ctrs.errors import CtrsWarning, DataError, DataWarning, LabelWarning, OutputExistsError
from ctrs.jobs import check_existing, describe_file, fingerprint, partial_work
from ctrs.progress import Progress, no_progress
from ctrs.raster.bands import Bands
from ctrs.raster.geotiff import open_raster, read_window
from ctrs.raster.units import ground_pixel_size_m
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.cutting import KINDS, CutTile, TileRow, cut_tiles, tile_rows
from ctrs.tiles.journal import Journal
from ctrs.tiles.layout import Layout, find_layout
from ctrs.tiles.manifest import FORMAT_VERSION, PREPARED_FILE, SPLITS, Manifest, Scene, SceneSplit, Tile, read_prepared
from ctrs.tiles.scenes import ReadyScene, ReadySource, check_source
from ctrs.tiles.splits import Place, choose_validation, shared_ground
from ctrs.tiles.statistics import band_statistics, join

logger = logging.getLogger(__name__)

DEFAULT_TILE_PX = 512
LEAK_SHARE = 0.01
"""Share of a scene that may lie in another split, where neighbouring files overlap by a seam."""


def prepare_tiles(
    source: Path,
    out_dir: Path,
    config: PrepareConfig | None = None,
    *,
    progress: Progress = no_progress,
) -> Manifest:
    """Cut scenes and labels into tiles with a manifest of their footprints, classes, splits and band statistics.

    Args:
        source: Folder in a known layout (ISPRS, LoveDA, UAVid, Inria) or any folder with images and labels.
        out_dir: Folder to write; it appears when everything in it is complete.
        config: Options; None for the defaults.
        progress: Called after each row of tiles.

    Returns:
        The manifest of what stands in ``out_dir``.

    Raises:
        CtrsError: The source cannot be used as it is, or the output cannot be written; the message says what to do.
    """
    config = config or PrepareConfig()
    notes: list[str] = []
    with _noting(notes):
        layout = find_layout(source, config, exclude=out_dir)
    job = fingerprint(_job(layout, config))
    if _is_finished(out_dir, job, overwrite=config.overwrite):
        logger.info("%s: already prepared from the same files with the same options", out_dir)
        return Manifest.open(out_dir)
    with partial_work(out_dir, job, overwrite=config.overwrite) as work:
        if work.resumed:
            logger.info("%s: going on with interrupted work", work.folder)
        with _noting(notes):
            ready = check_source(layout, config)
            splits = _scene_splits(ready)
        tile_px = config.tile_px or (layout.preset.tile_px if layout.preset else DEFAULT_TILE_PX)
        cut = _cut_all(ready, tile_px, work.folder, config.workers or os.cpu_count() or 1, progress)
        staged = work.folder / "result"
        with _noting(notes):
            placed = _place(cut, ready, splits, config)
            tiles = _arrange(placed, work.folder, staged, has_eroded=all(scene.eroded for scene in ready.scenes))
            bands = _measure_bands(ready, placed, tiles, progress)
            pixel_size_m = _pixel_size_m(ready.scenes)
            _warn_about(cut, placed, ready)
        Manifest(
            root=staged,
            name=out_dir.absolute().name,
            tiles=tuple(tiles),
            scenes=_describe_scenes(ready, placed, splits),
            classes=ready.classes,
            bands=bands,
            tile_px=tile_px,
            pixel_size_m=pixel_size_m,
            preset=layout.preset.name if layout.preset else None,
            fingerprint=job,
            config=replace(config, overwrite=False, workers=None),
            notes=(*layout.notes, *notes),
        ).save(staged)
        work.publish(staged)
    return Manifest.open(out_dir)


@contextmanager
def _noting(notes: list[str]) -> Iterator[None]:
    """Note our warnings that are raised in the block, then raise them; threads may not enter it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
    for entry in caught:
        if issubclass(entry.category, CtrsWarning):
            notes.append(str(entry.message))
        warnings.warn_explicit(entry.message, entry.category, entry.filename, entry.lineno)


def _job(layout: Layout, config: PrepareConfig) -> dict[str, Any]:
    """Return everything that determines the result."""
    options = to_plain(replace(config, overwrite=False, workers=None, classes=None))
    siblings = _Siblings()
    return {
        "format": FORMAT_VERSION,
        "options": options,
        "preset": None if layout.preset is None else repr(layout.preset),
        "classes": layout.class_file.read_text(encoding="utf-8") if layout.class_file else None,
        "scenes": [
            {
                "name": scene.name,
                "split": scene.split,
                "files": [
                    [describe_file(file) for file in siblings.of(path)]
                    for path in (scene.image, scene.label, scene.label_eroded)
                    if path is not None
                ],
            }
            for scene in layout.scenes
        ],
    }


class _Siblings:
    """Files that belong to a file: the same name up to the first dot (world files, .aux.xml, parts of a Shapefile)."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, list[Path]]] = {}

    def of(self, path: Path) -> list[Path]:
        """Return the file and its siblings, sorted."""
        if path.parent not in self._folders:
            table: dict[str, list[Path]] = {}
            for entry in sorted(path.parent.iterdir()):
                table.setdefault(entry.name.split(".")[0], []).append(entry)
            self._folders[path.parent] = table
        return [entry for entry in self._folders[path.parent][path.name.split(".")[0]] if entry.is_file()]


def _is_finished(out_dir: Path, job: str, *, overwrite: bool) -> bool:
    """Tell whether the output stands already; refuse to replace anything that is not prepared data."""
    if out_dir.is_dir() and not any(out_dir.iterdir()):
        return False
    if out_dir.exists() and not (out_dir / PREPARED_FILE).is_file():
        raise OutputExistsError(f"{out_dir}: exists and is not prepared data; choose another place with -o")
    found: str | None = None
    if out_dir.exists() and not overwrite:
        try:
            found = read_prepared(out_dir).get("fingerprint")
        except DataError:
            found = None
    return check_existing(out_dir, found, job, overwrite=overwrite)


def _scene_splits(ready: ReadySource) -> dict[str, SplitName]:
    """Return the split of each scene; refuse splits that share ground."""
    for shared in shared_ground([(scene.source.name, scene.source.split, scene.grid) for scene in ready.scenes]):
        split_of = {scene.source.name: scene.source.split for scene in ready.scenes}
        message = (
            f"scenes {shared.first} ({split_of[shared.first]}) and {shared.second} ({split_of[shared.second]}) share "
            f"{100 * shared.share:.2g} % of the smaller one's ground"
        )
        if shared.share >= LEAK_SHARE:
            raise DataError(f"{message}; put both into one split (--val, --test) or leave one out")
        warnings.warn(f"{message}; scores there are a little too good", DataWarning, stacklevel=3)
    return {scene.source.name: scene.source.split for scene in ready.scenes}


def _cut_all(ready: ReadySource, tile_px: int, folder: Path, workers: int, progress: Progress) -> list[CutTile]:
    """Cut all tiles that earlier, interrupted work has not cut."""
    for kind in KINDS:
        (folder / kind).mkdir(exist_ok=True)
    journal = Journal(folder / "journal.jsonl")
    places = {kind: [folder / kind, *(folder / "result" / kind / split for split in SPLITS)] for kind in KINDS}
    tasks = [task for scene in ready.scenes for task in tile_rows(scene, tile_px)]
    results: dict[str, list[CutTile]] = {}
    for task in tasks:
        tiles = journal.finished(task, places)
        if tiles is not None:
            results[task.key] = tiles
    total = sum(len(task.places) for task in tasks)
    done = sum(len(tiles) for tiles in results.values())
    progress(done, total, "tiling")

    def finish(task: TileRow, tiles: list[CutTile]) -> None:
        nonlocal done
        journal.add(task, tiles)
        results[task.key] = tiles
        done += len(tiles)
        progress(done, total, "tiling")

    pending = [task for task in tasks if task.key not in results]
    with warnings.catch_warnings():  # of the process: set here, before the threads that write tiles begin
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        _run(pending, partial(cut_tiles, classes=ready.classes, folder=folder), finish, workers)
    return [tile for task in tasks for tile in results[task.key]]


def _run(
    tasks: Sequence[TileRow],
    work: Callable[[TileRow], list[CutTile]],
    finish: Callable[[TileRow, list[CutTile]], None],
    workers: int,
) -> None:
    """Run tasks in threads (GDAL and zlib release the GIL); the first error, or Ctrl-C, drops what has not begun."""
    pool = ThreadPoolExecutor(max_workers=max(1, min(workers, len(tasks))))
    try:
        futures: dict[Future[list[CutTile]], TileRow] = {pool.submit(work, task): task for task in tasks}
        for future in as_completed(futures):
            finish(futures[future], future.result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


Placed = tuple[CutTile, SplitName]


def _place(
    cut: Sequence[CutTile], ready: ReadySource, splits: dict[str, SplitName], config: PrepareConfig
) -> list[Placed]:
    """Return the tiles that hold imagery with their splits; cut validation from training places where none is given."""
    filled = [tile for tile in cut if tile.valid_fraction > 0]
    if not filled:
        raise DataError(f"{ready.scenes[0].source.image}: no valid pixel in any scene; check nodata and alpha")
    placed: list[Placed] = [(tile, splits[tile.scene]) for tile in filled]
    if "val" in splits.values() or config.val_fraction == 0:
        return placed
    grids = {scene.source.name: scene.grid for scene in ready.scenes}
    training = [number for number, (_, split) in enumerate(placed) if split == "train"]
    places = [
        Place(
            scene=filled[number].scene,
            grid=grids[filled[number].scene],
            window=filled[number].window,
            class_counts=filled[number].class_counts,
        )
        for number in training
    ]
    chosen = choose_validation(places, val_fraction=config.val_fraction, seed=config.seed)
    for number, is_val in zip(training, chosen, strict=True):
        if is_val:
            placed[number] = filled[number], "val"
    if training and not any(chosen):
        warnings.warn(
            "no validation split: the training ground cannot be divided; the last epoch will be kept as the best "
            "(name scenes with --val, or choose smaller tiles)",
            DataWarning,
            stacklevel=3,
        )
    return placed


def _arrange(placed: Sequence[Placed], folder: Path, staged: Path, *, has_eroded: bool) -> list[Tile]:
    """Move the tiles to the folders of their splits; done again after a kill, it moves what is left."""
    kinds = KINDS if has_eroded else KINDS[:2]
    for kind in kinds:
        for split in {split for _, split in placed}:
            (staged / kind / split).mkdir(parents=True, exist_ok=True)
    tiles: list[Tile] = []
    for tile, split in placed:
        paths = [staged / kind / split / tile.file_name for kind in kinds]
        for kind, path in zip(kinds, paths, strict=True):
            fresh = folder / kind / tile.file_name
            if fresh.exists():
                fresh.replace(path)
        tiles.append(
            Tile(
                scene=tile.scene,
                split=split,
                window=tile.window,
                image=paths[0],
                mask=paths[1],
                mask_eroded=paths[2] if has_eroded else None,
                valid_fraction=tile.valid_fraction,
                class_counts=tile.class_counts,
            )
        )
    return tiles


def _warn_about(cut: Sequence[CutTile], placed: Sequence[Placed], ready: ReadySource) -> None:
    """Say what was changed, left out, or is missing."""
    near = Counter[str]()
    for tile in cut:
        near[tile.scene] += tile.num_near
    labels = {scene.source.name: scene.source.label for scene in ready.scenes}
    changed = {name: number for name, number in near.items() if number}
    if changed:
        first = next(iter(changed))
        warnings.warn(
            f"{labels[first]}: {changed[first]} px have colours a little off the legend and were read as the nearest "
            f"legend colour; {sum(changed.values())} px in {len(changed)} of {len(labels)} labels",
            LabelWarning,
            stacklevel=3,
        )
    empty = len(cut) - len(placed)
    if empty:
        logger.info("%d of %d tiles hold no imagery and are left out", empty, len(cut))
    counts = np.zeros(ready.classes.num_classes, np.int64)
    train = [tile for tile, split in placed if split == "train"]
    for tile in train:
        counts += tile.class_counts
    if not train:
        warnings.warn("no training tiles: this data set can only be scored on", DataWarning, stacklevel=3)
    elif not counts.all():
        absent = [name for name, number in zip(ready.classes.names, counts.tolist(), strict=True) if not number]
        warnings.warn(
            f"training tiles hold no pixel of class {', '.join(absent)}; a model cannot learn it",
            LabelWarning,
            stacklevel=3,
        )


def _describe_scenes(ready: ReadySource, placed: Sequence[Placed], splits: dict[str, SplitName]) -> tuple[Scene, ...]:
    present: dict[str, set[SplitName]] = {}
    for tile, split in placed:
        present.setdefault(tile.scene, set()).add(split)
    scenes: list[Scene] = []
    for scene in ready.scenes:
        name = scene.source.name
        held = present.get(name, {splits[name]})
        scene_split: SceneSplit = "train+val" if len(held) > 1 else next(iter(held))
        a, b, c, d, e, f = tuple(scene.grid.transform)[:6]
        scenes.append(
            Scene(
                name=name,
                split=scene_split,
                width=scene.grid.width,
                height=scene.grid.height,
                crs_wkt=None if scene.grid.crs is None else scene.grid.crs.to_wkt(),
                transform=(a, b, c, d, e, f),
                source_image=str(scene.source.image.absolute()),
                source_label=str(scene.source.label.absolute()),
                known_bad=scene.source.known_bad,
            )
        )
    return tuple(scenes)


def _measure_bands(ready: ReadySource, placed: Sequence[Placed], tiles: Sequence[Tile], progress: Progress) -> Bands:
    """Join the statistics of the training tiles; of all tiles where none is for training."""
    train = [number for number, (_, split) in enumerate(placed) if split == "train"] or list(range(len(placed)))
    moments = join(placed[number][0].moments for number in train)
    total = len(train)
    done = 0

    def read(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        nonlocal done
        done = done % total + 1
        progress(done, total, "band statistics")
        with open_raster(path) as dataset:
            return read_window(dataset, PixelWindow(col_off=0, row_off=0, width=dataset.width, height=dataset.height))

    readers = [partial(read, tiles[number].image) for number in train]
    return band_statistics(ready.band_names, ready.dtype, ready.nodata, moments, readers)


def _pixel_size_m(scenes: Sequence[ReadyScene]) -> float | None:
    """Return the median ground pixel, None where no scene has a CRS; warn where scenes differ much."""
    sizes = {
        scene.source.name: float(np.mean(ground_pixel_size_m(scene.grid)))
        for scene in scenes
        if scene.grid.crs is not None
    }
    if not sizes:
        return None
    finest, coarsest = min(sizes, key=lambda name: sizes[name]), max(sizes, key=lambda name: sizes[name])
    if sizes[coarsest] > 1.25 * sizes[finest]:
        warnings.warn(
            f"ground pixels differ: {sizes[finest]:.3g} m in {finest}, {sizes[coarsest]:.3g} m in {coarsest}; "
            "a model learns best from one resolution",
            DataWarning,
            stacklevel=3,
        )
    return float(median(sizes.values()))
