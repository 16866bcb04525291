"""What is drawn of a scene while it is scored: its error map, and its places for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from ctrs.classes import ClassMap
from ctrs.evaluation.error_map import ErrorMapWriter
from ctrs.evaluation.mask_reading import ReadMask, index_reader
from ctrs.evaluation.score_places import PlaceGallery, count_places
from ctrs.evaluation.scoring import SceneMasks
from ctrs.metrics import ScoredBlock
from ctrs.metrics.places import PlaceCounts
from ctrs.tiles.manifest import SceneMosaic

ERRORS = "errors"
"""Folder of the error maps beside a report."""

ERRORS_SUFFIX = "_errors.tif"


class ScenePicturing:
    """Watches the blocks of a scene that is being scored.

    Args:
        masks: What is compared.
        classes: Class table of the masks.
        gallery: Is given the scene's places at the end; None where none are shown.
        error_map: GeoTIFF to write, in a folder for unfinished work; None writes none.
        scratch: Folder for the rows of the error map that are finished.
    """

    def __init__(
        self,
        masks: SceneMasks,
        classes: ClassMap,
        *,
        gallery: PlaceGallery | None,
        error_map: Path | None,
        scratch: Path,
    ) -> None:
        self._masks = masks
        self._gallery = gallery
        self._counts = None if gallery is None else gallery.counts()
        self._error_map = error_map
        self._writer = None if error_map is None else ErrorMapWriter(scratch, masks.grid, classes)

    @property
    def watchers(self) -> list[Callable[[ScoredBlock], None]]:
        """What wants to be given each block of the scene."""
        return [watcher.update for watcher in (self._writer, self._counts) if watcher is not None]

    def finish(self, *, image: Path | None = None) -> None:
        """Write the error map and choose places, after all blocks have passed; the masks are still open.

        Args:
            image: The scene's imagery on the grid of the masks, None without.

        Raises:
            OutputError: The error map cannot be written.
            RasterError: The imagery cannot be read.
        """
        if self._writer is not None and self._error_map is not None:
            self._writer.write(self._error_map)
        if self._gallery is not None and self._counts is not None:
            masks = self._masks
            self._gallery.add(
                masks.name,
                masks.grid.shape,
                image=image,
                truth=masks.truths["strict"],
                runs={"prediction": (masks.pred, self._counts)},
            )


def add_scene(gallery: PlaceGallery, mosaic: SceneMosaic, masks: Mapping[str, Path]) -> None:
    """Let a gallery choose places of a scene that was mapped before.

    Args:
        gallery: Of all scenes.
        mosaic: Imagery and truth.
        masks: Predicted mask of each run.

    Raises:
        RasterError: A file cannot be read.
    """
    with ExitStack() as stack:
        truth, grid = stack.enter_context(index_reader(mosaic.mask))
        runs: dict[str, tuple[ReadMask, PlaceCounts]] = {}
        for name, path in masks.items():
            pred, _ = stack.enter_context(index_reader(path))
            runs[name] = pred, count_places(gallery.counts(), grid.shape, truth, pred)
        gallery.add(mosaic.scene.name, grid.shape, image=mosaic.image, truth=truth, runs=runs)
