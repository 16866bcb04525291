"""Some polygons of a layer with their columns: what blocks of a mask are drawn to, and what layers are written from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.vector.regions.runs import IntArray

Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class LayerPart:
    """Polygons and their columns.

    Args:
        polygons: In coordinates of the CRS, shells counter-clockwise; shape (P,).
        columns: Name and values of each column, all but ``id``, in the order of the layer; each of shape (P,).
        firsts: First pixel (``row * width + column`` of the mask) of the region that each polygon was drawn from, which
            orders the polygons of a layer; shape (P,).
    """

    polygons: npt.NDArray[np.object_]
    columns: Columns
    firsts: IntArray

    def __len__(self) -> int:
        return len(self.polygons)

    def take(self, places: npt.NDArray[Any] | slice) -> LayerPart:
        """Return chosen polygons; ``places`` as numpy takes them."""
        columns = {name: values[places] for name, values in self.columns.items()}
        return LayerPart(polygons=self.polygons[places], columns=columns, firsts=self.firsts[places])

    @classmethod
    def joined(cls, parts: Sequence[LayerPart]) -> LayerPart:
        """Return the polygons of several parts (at least one) in the order of their first pixels."""
        whole = cls(
            polygons=np.concatenate([part.polygons for part in parts]),
            columns={name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
            firsts=np.concatenate([part.firsts for part in parts]),
        )
        return whole.take(np.argsort(whole.firsts, kind="stable"))
