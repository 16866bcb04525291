"""Where the tiles of a scene lie, and which ground each is the first to hold: integers only, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from ctrs.raster.windows import PixelWindow, window_starts

Span = tuple[int, int]
"""First pixel and the one behind the last."""


@dataclass(frozen=True, kw_only=True)
class TileAxis:
    """Spans of tiles along one axis; each begins behind the one before and ends behind it.

    Args:
        spans: Of the tiles.
    """

    spans: tuple[Span, ...]

    @classmethod
    def along(cls, length: int, size: int, stride: int) -> TileAxis:
        """Lay tiles along an axis, the last one shifted inwards."""
        starts = window_starts(length, size, stride)
        return cls(spans=tuple((start, min(start + size, length)) for start in starts))

    def own(self, number: int) -> Span:
        """Return the pixels that a tile holds and none before it does: those of all tiles make up the axis.

        >>> [TileAxis.along(20, 8, 6).own(number) for number in range(3)]
        [(0, 8), (8, 14), (14, 20)]
        """
        return (self.spans[number - 1][1] if number else 0), self.spans[number][1]

    def cells(self, number: int) -> tuple[Span, ...]:
        """Cut a tile's own pixels into spans that lie in the same tiles throughout.

        >>> TileAxis.along(20, 8, 6).cells(0)
        ((0, 6), (6, 8))
        """
        start, end = self.own(number)
        borders = [start]
        for later, _ in self.spans[number + 1 :]:
            if later >= end:
                break
            if later > start:
                borders.append(later)
        return tuple(zip(borders, [*borders[1:], end], strict=True))

    def holders(self, number: int, pixel: int) -> range:
        """Return the numbers of the tiles that hold a pixel of a tile's own.

        >>> TileAxis.along(20, 8, 6).holders(0, 7)
        range(0, 2)
        """
        last = number
        while last + 1 < len(self.spans) and self.spans[last + 1][0] <= pixel:
            last += 1
        return range(number, last + 1)


@dataclass(frozen=True, kw_only=True)
class TileGrid:
    """The tiles of a scene in rows and columns."""

    rows: TileAxis
    cols: TileAxis

    @classmethod
    def over(cls, height: int, width: int, size: int, stride: int) -> TileGrid:
        """Lay square tiles over a scene."""
        return cls(rows=TileAxis.along(height, size, stride), cols=TileAxis.along(width, size, stride))

    @property
    def num_tiles(self) -> int:
        """Number of tiles."""
        return len(self.rows.spans) * len(self.cols.spans)

    def window(self, row: int, col: int) -> PixelWindow:
        """Return the place of a tile."""
        (top, bottom), (left, right) = self.rows.spans[row], self.cols.spans[col]
        return PixelWindow(col_off=left, row_off=top, width=right - left, height=bottom - top)
