"""Finished rows of a mask on disk, with those of its confidence where wanted: what a stopped work goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ctrs.classes import IGNORE_INDEX, ClassMap, Mask
from ctrs.errors import OutputError
from ctrs.inference.provenance import existing_job
from ctrs.inference.rows import FinishedRows
from ctrs.jobs import PartialWork, check_existing, sync
from ctrs.raster.cog import publish_class_cog, write_class_cog
from ctrs.raster.confidence import confidence_path, to_steps, write_confidence_cog
from ctrs.raster.geotiff import Grid
from ctrs.raster.row_bands import RowBands

MIN_ROWS = 256
"""Rows that are written at a time, at least."""


@dataclass(frozen=True, kw_only=True)
class MaskRows:
    """Rows of a mask in memory.

    Args:
        mask: uint8 (n, W).
        confidence: Probability of the predicted class, float32 (n, W); None where it is not wanted.
    """

    mask: Mask
    confidence: npt.NDArray[np.float32] | None


class RowFiles:
    """Rows that were predicted, from the top down, in files that survive a kill.

    Args:
        folder: Of the unfinished work.
        width: Columns of the scene.
        confidence: Whether the confidence is wanted too.
    """

    def __init__(self, folder: Path, width: int, *, confidence: bool) -> None:
        self._mask = RowBands(folder / "rows", width)
        self._confidence = RowBands(folder / "confidence", width) if confidence else None
        # A kill between the two, or an earlier attempt without confidence, leaves more rows of the one.
        while self._confidence is not None and self._mask.num_rows != self._confidence.num_rows:
            num_rows = min(self._mask.num_rows, self._confidence.num_rows)
            self._mask.truncate(num_rows)
            self._confidence.truncate(num_rows)

    @property
    def num_rows(self) -> int:
        """Number of rows, counted from the top, that are finished on disk."""
        return self._mask.num_rows

    def rows_of(self, finished: FinishedRows, *, first: int) -> MaskRows | None:
        """Take from finished rows what is stored, from the scene row ``first`` on; None if they end above it."""
        skipped = max(first - finished.row_off, 0)
        mask = finished.mask[skipped:]
        if not len(mask):
            return None
        surely = None if self._confidence is None or finished.confidence is None else finished.confidence[skipped:]
        return MaskRows(mask=mask, confidence=surely)

    def append(self, rows: MaskRows) -> None:
        """Write the next rows.

        Raises:
            OutputError: They cannot be written.
        """
        if self._confidence is not None and rows.confidence is not None:
            self._confidence.append(to_steps(rows.confidence, rows.mask != IGNORE_INDEX))
        self._mask.append(rows.mask)

    def publish(self, work: PartialWork, grid: Grid, classes: ClassMap, tags: Mapping[str, str]) -> None:
        """Write the finished files and move them to their final names, the mask last.

        Raises:
            OutputError: They cannot be written.
        """
        dst = work.final
        staged = write_class_cog(work.folder / dst.name, self._mask, grid, classes, tags)
        beside = confidence_path(dst)
        try:
            if self._confidence is not None:
                surely = write_confidence_cog(work.folder / beside.name, self._confidence, grid, tags)
                sync(surely)
                surely.replace(beside)
            publish_class_cog(work, staged)
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(
                f"{dst}: cannot be written ({error.strerror or error}); choose another place with -o"
            ) from error


def joined(parts: list[MaskRows]) -> MaskRows:
    """Join rows that follow each other."""
    surely = [part.confidence for part in parts if part.confidence is not None]
    return MaskRows(
        mask=np.concatenate([part.mask for part in parts]), confidence=np.concatenate(surely) if surely else None
    )


def is_finished(dst: Path, job: str, *, confidence: bool, overwrite: bool) -> bool:
    """Tell whether the mask, and its confidence where that is wanted, stand there as the result of a job.

    Raises:
        OutputExistsError: Another result stands there and ``overwrite`` is False.
    """
    done = check_existing(dst, existing_job(dst), job, overwrite=overwrite)
    if not confidence:
        return done
    beside = confidence_path(dst)
    return check_existing(beside, existing_job(beside), job, overwrite=overwrite) and done
