"""What every label can do: give the mask of a window on its image's grid, and say what it could not read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from ctrs.classes import Mask
from ctrs.raster.windows import PixelWindow


@dataclass(frozen=True, kw_only=True)
class DecodedLabel:
    """The mask of a window and how it came about.

    Args:
        mask: Class indices (h, w); 255 where ignored or unknown.
        num_changed: Pixels whose colour was not in the legend and was read as a legend colour near it.
        unknown: Pixels of each value or colour that the class table does not hold, by its text.
        first_unknown: Row and column, in the window, of the first of them.
    """

    mask: Mask
    num_changed: int = 0
    unknown: Mapping[str, int] = field(default_factory=dict)
    first_unknown: tuple[int, int] | None = None


ReadLabel = Callable[[PixelWindow], DecodedLabel]


class Label(Protocol):
    """A label that can be read as a mask on its image's grid."""

    @property
    def block_px(self) -> tuple[int, int]:
        """Height and width of the blocks in which it is stored; (1, 1) where it is drawn, not stored."""

    @property
    def sequential(self) -> bool:
        """Whether it can only be read well from top to bottom (PNG, archives)."""

    def reader(self) -> AbstractContextManager[ReadLabel]:
        """Return a context manager that gives a reader of windows; each thread opens its own."""
