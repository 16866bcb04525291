"""How far a label lies from its image, estimated from class borders and edges in the image.

Where a label fits, its class borders run along edges of the image, and in their direction. The mean strength of the
image's edges along the label's borders, as a function of how far the label is moved, therefore has its peak at the
displacement. Shadows, leaning buildings and borders that no edge marks (grass to bush) blur the peak, and among a
thousand displacements one always comes out best by chance. So the borders are dealt out to two halves, by squares of a
chessboard, and an estimate is worth something only where both halves give the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from ctrs.classes import IGNORE_INDEX, Mask
from ctrs.tiles.audit import Shift

MAX_SHIFT_PX = 16
"""Largest displacement that is looked for, along rows and columns."""

MIN_BORDER_PX = 200
"""Fewest border pixels from which a displacement is estimated."""

_PEAK_PX = 3
"""Shifts this near to the peak belong to it and not to what it is compared with; the halves may differ by as much."""

_VERTEX_PX = 0.75
"""Farthest from its peak, along rows and columns, that the top of a surface is looked for."""

_SQUARE_PX = 64
"""Edge of the squares by which borders are dealt out to two halves."""

_LEVELS = 1024


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """Strength of the image's edges along a label's borders, for each displacement of the label.

    Args:
        strength: Sum over the border pixels of each half (2, n, n), by row and column of displacement from
            ``-MAX_SHIFT_PX`` on.
        border: Border pixels that met valid imagery, alike.
    """

    strength: npt.NDArray[np.float64]
    border: npt.NDArray[np.float64]

    def __add__(self, other: Correlation) -> Correlation:
        return Correlation(strength=self.strength + other.strength, border=self.border + other.border)


def no_correlation() -> Correlation:
    """Return the sum of nothing."""
    zeros = np.zeros((2, 2 * MAX_SHIFT_PX + 1, 2 * MAX_SHIFT_PX + 1))
    return Correlation(strength=zeros, border=zeros)


def correlate(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_], mask: Mask) -> Correlation:
    """Correlate the borders of a mask with the edges of an image, by Fourier transforms.

    The strength of an edge is its rank among the gradients of the image (0 weakest, 1 strongest), times the squared
    cosine of the angle between the gradient and the normal of the border.

    Args:
        pixels: (C, h, w).
        valid: (h, w), True = valid.
        mask: (h, w), class indices, 255 where ignored.
    """
    borders = _borders(mask)
    usable, edges = _edges(pixels, valid)
    if not borders[0].any() or not usable.any():
        return no_correlation()
    shape = tuple(scipy.fft.next_fast_len(size + MAX_SHIFT_PX, real=True) for size in mask.shape)

    def transform(field: npt.NDArray[np.float32]) -> npt.NDArray[np.complex64]:
        return scipy.fft.rfft2(field, s=shape)  # type: ignore[no-any-return]

    def around_zero(spectrum: npt.NDArray[np.complex64]) -> npt.NDArray[np.float64]:
        surface = scipy.fft.irfft2(spectrum, s=shape)
        reach = np.arange(-MAX_SHIFT_PX, MAX_SHIFT_PX + 1)
        return np.asarray(surface[np.ix_(reach, reach)], np.float64)

    edge_spectra, usable_spectrum = [transform(field) for field in edges], transform(usable)
    rows, cols = np.ogrid[: mask.shape[0], : mask.shape[1]]
    odd = ((rows // _SQUARE_PX + cols // _SQUARE_PX) % 2).astype(np.float32)
    strength, border = [], []
    for half in (odd, 1 - odd):
        spectra = [transform(field * half).conj() for field in borders]
        total = np.sum([one * other for one, other in zip(spectra, edge_spectra, strict=True)], axis=0)
        strength.append(around_zero(total))
        border.append(around_zero(spectra[0] * usable_spectrum).clip(0))
    return Correlation(strength=np.stack(strength), border=np.stack(border))


def shift_of(correlation: Correlation) -> Shift | None:
    """Return the displacement at the peak, None where there is too little border."""
    centre = MAX_SHIFT_PX
    if correlation.border.sum(axis=0)[centre, centre] < MIN_BORDER_PX:
        return None
    surface = correlation.strength.sum(axis=0) / correlation.border.sum(axis=0).clip(1)
    row, col = _peak(surface)
    halves = correlation.strength / correlation.border.clip(1)
    agree = all(max(abs(place - row), abs(other - col)) <= _PEAK_PX for place, other in map(_peak, halves))
    # The mean of two such halves rises sqrt(2) times as high above its spread as each of them.
    score = float(np.sqrt(2)) * min(_height(half, row, col) for half in halves) if agree else 0.0
    down, right = _vertex(surface, row, col)
    return Shift(cols=col - centre + right, rows=row - centre + down, score=max(0.0, score))


def estimate_shift(windows: Iterable[tuple[npt.NDArray[Any], npt.NDArray[np.bool_], Mask]]) -> Shift | None:
    """Return the displacement that fits several windows best: pixels (C, h, w), valid mask and class mask of each."""
    total = no_correlation()
    for pixels, valid, mask in windows:
        total += correlate(pixels, valid, mask)
    return shift_of(total)


def border_px(mask: Mask) -> int:
    """Return the number of pixels that have a neighbour of another class; ignored pixels are no class."""
    return int(np.count_nonzero(_borders(mask)[0]))


def _peak(surface: npt.NDArray[np.float64]) -> tuple[int, int]:
    row, col = np.unravel_index(int(surface.argmax()), surface.shape)
    return int(row), int(col)


def _height(surface: npt.NDArray[np.float64], row: int, col: int) -> float:
    """Return the height of a place above those that are not near it, in their standard deviations."""
    rows, cols = np.ogrid[: surface.shape[0], : surface.shape[1]]
    others = surface[(np.abs(rows - row) > _PEAK_PX) | (np.abs(cols - col) > _PEAK_PX)]
    spread = float(others.std())
    return 0.0 if spread == 0 else (float(surface[row, col]) - float(others.mean())) / spread


def _vertex(surface: npt.NDArray[np.float64], row: int, col: int) -> tuple[float, float]:
    """Return the top of the paraboloid that fits a peak and its eight neighbours best, from the peak, down and right.

    One parabola along each axis would be off by half a pixel where the peak is a ridge that runs slantwise. But where
    the ridge is so flat that the paraboloid's top lies beyond the peak's own pixel, these are all that can be told.
    """
    around = surface[max(0, row - 1) : row + 2, max(0, col - 1) : col + 2]
    if around.shape != (3, 3):
        return 0.0, 0.0
    slope = np.array([(around[2] - around[0]).mean(), (around[:, 2] - around[:, 0]).mean()]) / 2
    down = float((around[0] - 2 * around[1] + around[2]).mean())
    right = float((around[:, 0] - 2 * around[:, 1] + around[:, 2]).mean())
    slant = float(around[2, 2] - around[2, 0] - around[0, 2] + around[0, 0]) / 4
    if down < 0 and down * right > slant**2:
        top = np.linalg.solve([[down, slant], [slant, right]], -slope)
        if np.abs(top).max() <= _VERTEX_PX:
            return float(top[0]), float(top[1])
    return _parabola(around[:, 1]), _parabola(around[1])


def _parabola(line: npt.NDArray[np.float64]) -> float:
    """Return the top of the parabola through three values, from the middle one, which is the greatest."""
    before, top, after = (float(value) for value in line)
    bend = before - 2 * top + after
    return 0.0 if bend == 0 else 0.5 * (before - after) / bend


def _borders(mask: Mask) -> tuple[npt.NDArray[np.float32], ...]:
    """Return where class borders run, and the cosine and sine of twice the angle of their normals."""
    down = np.zeros(mask.shape, np.float32)
    across = np.zeros(mask.shape, np.float32)
    known = mask != IGNORE_INDEX
    for field, here, there in (
        (down, np.s_[:-1, :], np.s_[1:, :]),
        (across, np.s_[:, :-1], np.s_[:, 1:]),
    ):
        differs = (mask[here] != mask[there]) & known[here] & known[there]
        field[here] += differs
        field[there] += differs
    return _doubled(across, down, (across + down > 0).astype(np.float32))


def _edges(
    pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], tuple[npt.NDArray[np.float32], ...]]:
    """Return where gradients can be told, their ranks, and these times cosine and sine of twice their angles."""
    grey = np.where(valid, pixels.mean(axis=0, dtype=np.float32), np.float32(0))
    usable = valid.copy()
    for step in (-1, 1):
        for axis in (0, 1):
            usable &= np.roll(valid, step, axis)
    usable[[0, -1], :] = False
    usable[:, [0, -1]] = False
    down, across = np.zeros_like(grey), np.zeros_like(grey)
    down[1:-1] = grey[2:] - grey[:-2]
    across[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    strength = np.where(usable, np.hypot(down, across), np.float32(0))
    return usable.astype(np.float32), _doubled(across, down, _ranks(strength, usable))


def _doubled(
    across: npt.NDArray[np.float32], down: npt.NDArray[np.float32], weight: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], ...]:
    """Return a weight, and it times cosine and sine of twice the angle of a vector, so that opposite ones are alike."""
    squares = across**2 + down**2
    factor = np.divide(weight, squares, out=np.zeros_like(weight), where=squares > 0)
    return weight, factor * (across**2 - down**2), factor * (2 * across * down)


def _ranks(strength: npt.NDArray[np.float32], usable: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Return the rank of each value among the usable ones, 0 to 1: no roof of tin outweighs the others."""
    values = strength[usable]
    if not values.size or values.max() == 0:
        return np.zeros_like(strength)
    # Of the square root, because most gradients are small.
    scaled = np.sqrt(strength / values.max()) * (_LEVELS - 1)
    levels = scaled.astype(np.int64)
    counts = np.bincount(levels[usable], minlength=_LEVELS)
    ranks = ((np.cumsum(counts) - counts) / values.size).astype(np.float32)
    return np.where(usable, ranks[levels], np.float32(0))
