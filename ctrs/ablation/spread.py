"""How a score varies over seeds: mean, standard deviation, and differences between runs that share a seed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and standard deviation of some values.

    Args:
        mean: NaN without values.
        sd: Standard deviation of the sample (divided by n - 1); None with fewer than two values, which show no spread.
        count: Number of values, n.
    """

    mean: float
    sd: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Compute from values; those that are NaN are left out.

        >>> Spread.of([0.5, 0.75, 1.0])
        Spread(mean=0.75, sd=0.25, count=3)
        >>> Spread.of([0.5])
        Spread(mean=0.5, sd=None, count=1)
        """
        known = np.array([value for value in values if not math.isnan(value)], np.float64)
        return cls(
            mean=float(known.mean()) if len(known) else math.nan,
            sd=float(known.std(ddof=1)) if len(known) > 1 else None,
            count=len(known),
        )

    def describe(self, *, signed: bool = False, digits: int = 4) -> str:
        """Say it in a table's cell; a single value is named as such.

        >>> Spread.of([0.5, 0.75, 1.0]).describe(), Spread.of([0.25]).describe(signed=True), Spread.of([]).describe()
        ('0.7500 ± 0.2500', '+0.2500 (n = 1)', '–')
        """
        if not self.count:
            return "–"
        mean = f"{self.mean:{'+' if signed else ''}.{digits}f}"
        return f"{mean} (n = 1)" if self.sd is None else f"{mean} ± {self.sd:.{digits}f}"

    def to_json(self) -> dict[str, float | int | None]:
        """Return JSON values; NaN becomes None."""
        return {"mean": None if math.isnan(self.mean) else self.mean, "sd": self.sd, "n": self.count}


def paired_differences(values: Mapping[_Key, float], reference: Mapping[_Key, float]) -> dict[_Key, float]:
    """Return value minus reference for each key that both have.

    What seeds have in common (first weights, order of the data) cancels out, so that the spread of these differences
    is that of the comparison.

    Args:
        values: Score for each seed.
        reference: Score of what is compared with, for each seed.

    >>> paired_differences({0: 0.75, 1: 0.5, 2: 0.25}, {0: 0.5, 1: 0.5, 7: 0.5})
    {0: 0.25, 1: 0.0}
    """
    return {key: value - reference[key] for key, value in values.items() if key in reference}
