"""The places that a report shows: chosen while scenes pass, with the few pixels that their pictures need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rasterio.errors import RasterioError

from ctrs.classes import ClassMap, Mask
from ctrs.config import EvalConfig
from ctrs.errors import RasterError
from ctrs.evaluation.error_map import strip_windows
from ctrs.evaluation.mask_reading import ReadMask
from ctrs.metrics import ScoredBlock
from ctrs.metrics.places import Place, PlaceCounts, best_places, pooled_places, worst_places
from ctrs.raster.bands import Bands
from ctrs.raster.geotiff import color_bands, error_line, open_raster, read_window
from ctrs.raster.windows import PixelWindow
from ctrs.report.pictures import Image, display_rgb
from ctrs.report.score_pictures import PlacePanels
from ctrs.report.thumbnails import shrink

PICTURE_PX = 320
"""Longest edge of the pictures of a place."""

OVERVIEW_PX = 480
"""Longest edge of the picture of a scene."""

_MOST_CELL_PX = 512
_FEWEST_CELL_PX = 64
_CELLS_PER_PLACE = 4
"""So many times as many cells as places are wanted, lest the best be the worst as well."""

_EMPTY = 208
"""Grey of pixels without imagery, on white and on black ground."""


@dataclass(frozen=True, kw_only=True)
class SceneMap:
    """A scene with the share of errors of its cells.

    Args:
        name: Name of the scene.
        shape: Rows and columns.
        cell_px: Edge of the cells.
        error_rates: Share of errors by cell, NaN where nothing counts; of all runs together.
        image: The scene made small, uint8 (3, h, w), None without imagery.
    """

    name: str
    shape: tuple[int, int]
    cell_px: int
    error_rates: npt.NDArray[np.float64]
    image: Image | None


@dataclass(frozen=True, kw_only=True)
class ShownPlace:
    """A place with what its picture needs.

    Args:
        place: Its pixels, of all runs together.
        errors: Wrong pixels of each run.
        panels: Made small.
        confused: True class, predicted class (None: not predicted) and wrong pixels of the commonest confusion, over
            the runs; None without errors.
    """

    place: Place
    errors: Mapping[str, int]
    panels: PlacePanels
    confused: tuple[int, int | None, int] | None

    @property
    def spread(self) -> int:
        """Difference between the runs with the most and the fewest errors."""
        return max(self.errors.values()) - min(self.errors.values())


def count_places(counts: PlaceCounts, shape: tuple[int, int], truth: ReadMask, pred: ReadMask) -> PlaceCounts:
    """Count the errors of a scene whose masks nobody else reads.

    Args:
        counts: Empty counts, which are returned.
        shape: Rows and columns of the scene.
        truth: Reads the true mask.
        pred: Reads the predicted mask.
    """
    for window in strip_windows(shape):
        counts.update(
            ScoredBlock(
                truth=truth(window),
                pred=pred(window),
                core=(slice(0, window.height), slice(0, window.width)),
                row_off=window.row_off,
                col_off=0,
                scene_shape=shape,
            )
        )
    return counts


def cell_edge(shapes: Sequence[tuple[int, int]], num_places: int) -> int:
    """Return the edge of places for scenes of some shapes: 512 px, less where that would give few of them.

    >>> cell_edge([(6000, 6000)] * 14, 6), cell_edge([(650, 900)], 6)
    (512, 64)
    """
    area = sum(height * width for height, width in shapes)
    edge = _MOST_CELL_PX
    while edge > _FEWEST_CELL_PX and area / edge**2 < _CELLS_PER_PLACE * 2 * num_places:
        edge //= 2
    return edge


def gallery_for(
    classes: ClassMap, config: EvalConfig, shapes: Sequence[tuple[int, int]], bands: Bands | None = None
) -> PlaceGallery | None:
    """Return an empty gallery as the options want it; None where they want no places.

    Args:
        classes: Class table of the masks.
        config: Options.
        shapes: Rows and columns of the scenes to come.
        bands: How image values become colours.
    """
    if config.pixels_only or not config.num_places:
        return None
    edge = cell_edge(shapes, config.num_places)
    return PlaceGallery(classes, num_places=config.num_places, cell_px=edge, bands=bands)


class PlaceGallery:
    """Keeps the worst, the best, and, of several runs, the most disputed places of all scenes added so far.

    Of two runs it keeps, in place of the disputed ones, those that the second maps better, and those it maps worse.

    Args:
        classes: Class table of the masks.
        num_places: How many are kept of each kind.
        cell_px: Edge of a place.
        bands: How image values become colours; None stretches each picture by itself.
    """

    def __init__(self, classes: ClassMap, *, num_places: int, cell_px: int, bands: Bands | None = None) -> None:
        self.classes = classes
        self.num_places = num_places
        self.cell_px = cell_px
        self._bands = bands
        self._counted = np.isin(np.arange(256), classes.scored_indices or range(classes.num_classes))
        self._places: dict[str, list[Place]] = {kind: [] for kind in ("worst", "best", "disputed", "better", "worse")}
        self._differences: dict[str, dict[Place, int]] = {kind: {} for kind in ("disputed", "better", "worse")}
        self._shown: dict[Place, ShownPlace] = {}
        self._maps: dict[str, SceneMap] = {}

    def counts(self) -> PlaceCounts:
        """Return an empty count of a scene's errors, as the headline counts them."""
        counted = np.flatnonzero(self._counted[: self.classes.num_classes]).tolist()
        return PlaceCounts(self.cell_px, num_classes=self.classes.num_classes, counted=counted)

    def add(
        self,
        scene: str,
        shape: tuple[int, int],
        *,
        image: Path | None,
        truth: ReadMask,
        runs: Mapping[str, tuple[ReadMask, PlaceCounts]],
    ) -> None:
        """Take the places of a scene into account.

        Args:
            scene: Its name.
            shape: Its rows and columns.
            image: Its imagery on the masks' grid, None without.
            truth: Reads the true mask.
            runs: For each run, what reads its mask, and its errors, from ``counts``; the same runs for each scene.

        Raises:
            RasterError: The imagery cannot be read.
        """
        of_runs = [counts.places(scene) for _, counts in runs.values()]
        pooled = pooled_places(of_runs)
        errors = {
            place: {name: found.errors for name, found in zip(runs, each, strict=True)}
            for place, each in zip(pooled, zip(*of_runs, strict=True), strict=True)
        }
        self._places["worst"] = worst_places([*self._places["worst"], *pooled], self.num_places)
        self._places["best"] = best_places([*self._places["best"], *pooled], self.num_places)
        if len(runs) == 2:
            first, second = runs
            less = {place: by_run[first] - by_run[second] for place, by_run in errors.items()}
            self._places["better"] = self._greatest("better", less)
            self._places["worse"] = self._greatest("worse", {place: -number for place, number in less.items()})
        elif len(runs) > 2:
            spreads = {place: max(by_run.values()) - min(by_run.values()) for place, by_run in errors.items()}
            self._places["disputed"] = self._greatest("disputed", spreads)
        kept = {place for places in self._places.values() for place in places}
        fresh = [place for place in pooled if place in kept]
        for place in fresh:
            panels, confused = self._read(place, image, truth, {name: read for name, (read, _) in runs.items()})
            self._shown[place] = ShownPlace(place=place, errors=errors[place], panels=panels, confused=confused)
        self._shown = {place: shown for place, shown in self._shown.items() if place in kept}
        if fresh:
            self._maps[scene] = SceneMap(
                name=scene,
                shape=shape,
                cell_px=self.cell_px,
                error_rates=_rates([counts for _, counts in runs.values()]),
                image=None if image is None else self._overview(image),
            )
        named = {place.scene for place in kept}
        self._maps = {name: entry for name, entry in self._maps.items() if name in named}

    def _greatest(self, kind: str, fresh: Mapping[Place, int]) -> list[Place]:
        """Return the places with the greatest difference of errors above 0, as a share of what counts there."""
        self._differences[kind] |= {place: number for place, number in fresh.items() if number > 0}
        found = self._differences[kind]
        chosen = sorted(found, key=lambda place: -found[place] / place.counted)[: self.num_places]
        self._differences[kind] = {place: found[place] for place in chosen}
        return chosen

    @property
    def worst(self) -> list[ShownPlace]:
        """Places with the greatest share of errors, the worst first."""
        return [self._shown[place] for place in self._places["worst"]]

    @property
    def best(self) -> list[ShownPlace]:
        """Places of more than one class with the least share of errors, the best first; none that is also a worst."""
        worst = set(self._places["worst"])
        return [self._shown[place] for place in self._places["best"] if place not in worst]

    @property
    def disputed(self) -> list[ShownPlace]:
        """Places in which three or more runs differ most in their errors."""
        return [self._shown[place] for place in self._places["disputed"]]

    @property
    def better(self) -> list[ShownPlace]:
        """Places in which the second of two runs has the greatest drop in errors against the first."""
        return [self._shown[place] for place in self._places["better"]]

    @property
    def worse(self) -> list[ShownPlace]:
        """Places in which the second of two runs has the greatest rise in errors against the first."""
        return [self._shown[place] for place in self._places["worse"]]

    @property
    def maps(self) -> list[SceneMap]:
        """Scenes in which the places lie."""
        return list(self._maps.values())

    def _read(
        self, place: Place, image: Path | None, truth: ReadMask, runs: Mapping[str, ReadMask]
    ) -> tuple[PlacePanels, tuple[int, int | None, int] | None]:
        window = PixelWindow(col_off=place.col_off, row_off=place.row_off, width=place.width, height=place.height)
        true = truth(window)
        masks = {name: read(window) for name, read in runs.items()}
        confused = self._commonest(true, list(masks.values()))
        picture = None if image is None else self._picture(image, window)
        small, small_true = shrink(
            np.zeros((3, *true.shape), np.uint8) if picture is None else picture, true, PICTURE_PX
        )
        panels = PlacePanels(
            image=None if picture is None else small,
            truth=small_true,
            runs=[(name, shrink_mask(mask, PICTURE_PX)) for name, mask in masks.items()],
            counted=self._counted[small_true],
        )
        return panels, confused

    def _commonest(self, truth: Mask, masks: Sequence[Mask]) -> tuple[int, int | None, int] | None:
        """Return the commonest confusion: true class, predicted one, pixels."""
        pairs = np.zeros(1 << 16, np.int64)
        for mask in masks:
            wrong = (mask != truth) & self._counted[truth]
            keys = (truth[wrong].astype(np.uint16) << 8) | mask[wrong]
            pairs += np.bincount(keys, minlength=pairs.size)
        most = int(pairs.argmax())
        if not pairs[most]:
            return None
        true, predicted = divmod(most, 256)
        return true, predicted if predicted < self.classes.num_classes else None, int(pairs[most])

    def _picture(self, image: Path, window: PixelWindow) -> Image:
        with open_raster(image) as dataset:
            pixels, valid = read_window(dataset, window)
        return self._display(pixels, valid)

    def _overview(self, image: Path) -> Image:
        """Read every n-th pixel of a scene, in memory that does not grow with it."""
        with open_raster(image) as dataset:
            scale = min(1.0, OVERVIEW_PX / max(dataset.shape))
            shape = tuple(max(1, math.floor(edge * scale)) for edge in dataset.shape)
            bands = color_bands(dataset)
            try:
                pixels = dataset.read(list(bands), out_shape=(len(bands), *shape))
                valid = dataset.dataset_mask(out_shape=shape) > 0
            except RasterioError as error:
                raise RasterError(
                    f"{image}: not readable ({error_line(error)}); the file is damaged or cut short: get it again"
                ) from error
        return self._display(pixels, valid)

    def _display(self, pixels: npt.NDArray[np.generic], valid: npt.NDArray[np.bool_]) -> Image:
        fits = self._bands is not None and self._bands.count == len(pixels) and self._bands.dtype == str(pixels.dtype)
        image = display_rgb(pixels, self._bands if fits else None, valid=valid)
        image[:, ~valid] = _EMPTY
        return image


def shrink_mask(mask: Mask, longest_px: int) -> Mask:
    """Return every n-th pixel of a mask, as ``shrink`` does beside an image."""
    return shrink(np.broadcast_to(np.uint8(0), (3, *mask.shape)), mask, longest_px)[1]


def _rates(counts: Sequence[PlaceCounts]) -> npt.NDArray[np.float64]:
    errors = np.sum([entry.errors for entry in counts], axis=0)
    total = np.sum([entry.counted for entry in counts], axis=0)
    rates: npt.NDArray[np.float64] = np.divide(errors, total, out=np.full(total.shape, np.nan), where=total > 0)
    return rates
