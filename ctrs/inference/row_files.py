"""Finished rows of a mask on disk, with those of all that is wanted beside it: what a stopped work goes on from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from ctrs.errors import OutputError, OutputExistsError, RasterError
from ctrs.inference.products import Products
from ctrs.inference.provenance import existing_job
from ctrs.inference.rows import FinishedRows
from ctrs.jobs import PartialWork, check_existing, sync
from ctrs.raster.cog import publish_class_cog, write_class_cog
from ctrs.raster.confidence import confidence_kind, confidence_path, to_steps, write_confidence_cog
from ctrs.raster.creation_options import CreationOptions
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.raster.probabilities import (
    PROBABILITIES_TAG,
    probabilities_path,
    set_nodata,
    write_probabilities_cog,
)
from ctrs.raster.row_bands import RowBands

MIN_ROWS = 256
"""Rows that are written at a time, at least."""


@dataclass(frozen=True, kw_only=True)
class StagedFiles:
    """Finished files in the folder of unfinished work.

    Args:
        mask: The mask.
        beside: Each other file, and its final name.
    """

    mask: Path
    beside: tuple[tuple[Path, Path], ...]

    def publish(self, work: PartialWork, job: str, *, before_mask: Callable[[], object] = lambda: None) -> None:
        """Move files that are whole to their final names, the mask last.

        Confidence and probabilities of another mask, which stood there under the same name, go.

        Args:
            work: Unfinished work on the mask.
            job: Fingerprint of the mask's job.
            before_mask: Called when all but the mask stand under their names.

        Raises:
            OutputError: They cannot be moved.
        """
        try:
            for path, final in self.beside:
                sync(path)
                path.replace(final)
            for stale in (confidence_path(work.final), probabilities_path(work.final)):
                if existing_job(stale) not in (None, job):
                    stale.unlink()
            before_mask()
            publish_class_cog(work, self.mask)
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(
                f"{work.final}: cannot be written ({error.strerror or error}); choose another place with -o"
            ) from error


class RowFiles:
    """Rows that were predicted, from the top down in each block of columns, in files that survive a kill.

    Args:
        folder: Of the unfinished work.
        products: What is wanted.
        columns: Blocks of columns beside each other, which together are the scene's width; one after the other is
            mapped over the whole height.
    """

    def __init__(self, folder: Path, products: Products, columns: Sequence[slice]) -> None:
        self.products = products
        self._blocks = [_Block(folder, products, part, alone=len(columns) == 1) for part in columns]

    def num_rows(self, block: int = 0) -> int:
        """Return the number of rows of a block of columns, counted from the top, that are finished on disk."""
        return self._blocks[block].num_rows

    def append(self, rows: FinishedRows, block: int = 0) -> None:
        """Take the next rows of a block and write them once they are enough; those known already are passed over.

        Args:
            rows: Rows in the block's columns. Their arrays are the receiver's.
            block: Number of the block of columns.

        Raises:
            OutputError: They cannot be written.
        """
        self._blocks[block].append(rows)

    def flush(self) -> None:
        """Write the rows that wait for others, at the end of a block.

        Raises:
            OutputError: They cannot be written.
        """
        for block in self._blocks:
            block.flush()

    def write(
        self, work: PartialWork, grid: Grid, tags: Mapping[str, str], *, creation_options: CreationOptions = ()
    ) -> StagedFiles:
        """Write the finished files into the folder of unfinished work.

        Args:
            work: Unfinished work on the mask.
            grid: CRS, transform and size.
            tags: Tags of all files, names beginning with ``CTRS_``.
            creation_options: For GDAL's COG driver, checked by ``check_creation_options``.

        Raises:
            OutputError: They cannot be written.
        """
        products, final = self.products, work.final
        mask = write_class_cog(
            work.folder / final.name,
            [block.mask for block in self._blocks],
            grid,
            products.written,
            tags,
            values=products.values,
            creation_options=creation_options,
        )
        beside: list[tuple[Path, Path]] = []
        if products.probabilities is not None:
            place = probabilities_path(final)
            bands = [block.probabilities for block in self._blocks if block.probabilities is not None]
            names, number_format = products.probability_names, products.probabilities
            path = work.folder / place.name
            write_probabilities_cog(path, bands, grid, names, number_format, tags, creation_options)
            beside.append((path, place))
        if products.confidence is not None:
            place = confidence_path(final)
            bands = [block.confidence for block in self._blocks if block.confidence is not None]
            path, kind = work.folder / place.name, products.confidence
            write_confidence_cog(path, bands, grid, tags, kind=kind, creation_options=creation_options)
            beside.append((path, place))
        return StagedFiles(mask=mask, beside=tuple(beside))


class _Block:
    """Rows of a block of columns: those on disk, and those that wait to be more."""

    def __init__(self, folder: Path, products: Products, columns: slice, *, alone: bool) -> None:
        def bands(name: str) -> RowBands:
            place = folder / name if alone else folder / name / f"{columns.start}_{columns.stop}"
            return RowBands(place, columns.stop - columns.start, col_off=columns.start)

        self.mask = bands("rows")
        # Rows of another kind, which an earlier attempt at the same mask may have left, are not taken for these.
        self.confidence = bands(f"confidence_{products.confidence}") if products.confidence else None
        self.probabilities = bands(_probabilities_folder(products)) if products.probabilities else None
        self._all = [kind for kind in (self.mask, self.confidence, self.probabilities) if kind is not None]
        # A kill between two kinds, or an earlier attempt without one, leaves more rows of the others.
        while len({kind.num_rows for kind in self._all}) > 1:
            fewest = min(kind.num_rows for kind in self._all)
            for kind in self._all:
                kind.truncate(fewest)
        self._waiting: list[FinishedRows] = []
        self._next = self.num_rows

    @property
    def num_rows(self) -> int:
        return self.mask.num_rows

    def append(self, rows: FinishedRows) -> None:
        known = self._next - rows.row_off
        if known < 0:
            raise ValueError(f"rows from {rows.row_off} on found, expected from {self._next} on")
        if known >= len(rows.mask):
            return
        self._waiting.append(_without_first(rows, known) if known else rows)
        self._next = rows.row_off + len(rows.mask)
        if sum(len(part.mask) for part in self._waiting) >= MIN_ROWS:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        rows = self._waiting[0] if len(self._waiting) == 1 else _joined(self._waiting)
        self._waiting.clear()
        # The mask goes last: that it is there mostly means that the others are.
        if self.probabilities is not None and rows.probabilities is not None:
            set_nodata(rows.probabilities, rows.valid)
            self.probabilities.append(rows.probabilities)
        if self.confidence is not None and rows.confidence is not None:
            self.confidence.append(to_steps(rows.confidence, rows.valid))
        self.mask.append(rows.mask)


def outputs(mask: Path, products: Products) -> list[Path]:
    """Return the rasters that are written for a mask, the mask last."""
    beside = [confidence_path(mask)] if products.confidence is not None else []
    if products.probabilities is not None:
        beside.append(probabilities_path(mask))
    return [*beside, mask]


def is_finished(
    dst: Path, job: str, products: Products, *, overwrite: bool, made_from: Callable[[Path], str] | None = None
) -> bool:
    """Tell whether the mask, and all that is wanted beside it, stand there as the result of a job.

    Args:
        dst: The mask.
        job: Fingerprint of the job.
        products: What is wanted.
        overwrite: The user allows replacement of what ctrs wrote.
        made_from: Tells of a mask of another job what it was made from.

    Raises:
        OutputExistsError: Another result stands there and ``overwrite`` is False, or a file that ctrs did not write.
    """
    _refuse_foreign(dst, products)
    found = existing_job(dst)
    told = {} if made_from is None or found in (None, job) else {"made_from": made_from(dst)}
    done = check_existing(dst, found, job, overwrite=overwrite, **told)
    if products.confidence is not None:
        beside = confidence_path(dst)
        found = existing_job(beside) if _holds_confidence(beside, products) else None
        done &= check_existing(beside, found, job, overwrite=overwrite)
    if products.probabilities is not None:
        beside = probabilities_path(dst)
        found = existing_job(beside) if _holds_probabilities(beside, products) else None
        done &= check_existing(beside, found, job, overwrite=overwrite)
    return done


def _refuse_foreign(dst: Path, products: Products) -> None:
    """Refuse to replace files that ctrs did not write, whatever the user allows: they may be imagery or truth.

    Raises:
        OutputExistsError: Such a file stands where an output goes.
    """
    for path in outputs(dst, products):
        if path.exists() and existing_job(path) is None:
            raise OutputExistsError(
                f"{path}: stands there and was not written by ctrs predict, so it is not replaced; choose another name "
                "with -o, or move it away"
            )


def _holds_confidence(path: Path, products: Products) -> bool:
    """Tell whether a file is a confidence of the kind that is wanted."""
    try:
        with open_raster(path) as dataset:
            return confidence_kind(dataset) == products.confidence
    except (RasterError, OSError):
        return False


def _holds_probabilities(path: Path, products: Products) -> bool:
    """Tell whether a file holds the probabilities that are wanted, in the number format that is wanted."""
    try:
        with open_raster(path) as dataset:
            found = dataset.tags().get(PROBABILITIES_TAG), dataset.descriptions
    except (RasterError, OSError):
        return False
    return found == (products.probabilities, products.probability_names)


def _probabilities_folder(products: Products) -> str:
    names = hashlib.sha256("\n".join(products.probability_names).encode()).hexdigest()[:8]
    return f"probabilities_{products.probabilities}_{names}"


def _joined(parts: Sequence[FinishedRows]) -> FinishedRows:
    """Join rows that follow each other."""
    arrays = {
        entry.name: np.concatenate([getattr(part, entry.name) for part in parts], axis=-2)
        for entry in fields(FinishedRows)
        if entry.name != "row_off" and getattr(parts[0], entry.name) is not None
    }
    return FinishedRows(row_off=parts[0].row_off, **arrays)


def _without_first(rows: FinishedRows, count: int) -> FinishedRows:
    """Leave out the first rows."""
    arrays = {
        entry.name: getattr(rows, entry.name)[..., count:, :]
        for entry in fields(FinishedRows)
        if entry.name != "row_off" and getattr(rows, entry.name) is not None
    }
    return FinishedRows(row_off=rows.row_off + count, **arrays)
