"""Runs against pixel-wise computations."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from ctrs.config import Connectivity
from ctrs.vector.regions.runs import Runs

LABELS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2))


@given(LABELS, st.integers(1, 12))
def test_runs_return_the_raster_whatever_the_bands(labels: npt.NDArray[np.uint8], rows: int) -> None:
    height, width = labels.shape
    whole = Runs.from_array(labels)
    bands = Runs.from_bands((labels[i : i + rows] for i in range(0, height, rows)), height=height, width=width)
    np.testing.assert_array_equal(whole.to_array(), labels)
    np.testing.assert_array_equal(bands.firsts, whole.firsts)
    np.testing.assert_array_equal(bands.values, whole.values)


@given(LABELS)
def test_neighbouring_runs_share_as_many_columns_as_pixels_say(labels: npt.NDArray[np.uint8]) -> None:
    runs = Runs.from_array(labels)
    number = np.repeat(np.arange(runs.count), runs.lengths).reshape(labels.shape)
    expected = Counter(zip(number[:-1].ravel().tolist(), number[1:].ravel().tolist(), strict=True))
    upper, lower, shared = (part.tolist() for part in runs.stacked)
    assert len(set(zip(upper, lower, strict=True))) == len(upper)
    assert dict(zip(zip(upper, lower, strict=True), shared, strict=True)) == dict(expected)


@given(LABELS, st.sampled_from([4, 8]))
def test_regions_equal_those_of_scipy(labels: npt.NDArray[np.uint8], connectivity: Connectivity) -> None:
    runs = Runs.from_array(labels)
    found = np.repeat(runs.regions(connectivity), runs.lengths).reshape(labels.shape)
    structure = np.ones((3, 3)) if connectivity == 8 else None
    expected = np.zeros(labels.shape, int)
    for value in np.unique(labels):
        parts, count = ndimage.label(labels == value, structure=structure)
        expected += np.where(parts > 0, parts + expected.max(), 0)
        assert count > 0
    pairs = set(zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    first_seen = list(dict.fromkeys(found.ravel().tolist()))
    assert first_seen == sorted(first_seen), "regions are numbered by first pixel"


def test_bands_that_do_not_fill_the_raster_are_refused() -> None:
    with pytest.raises(ValueError, match="bands hold 4 pixels, expected 3 x 2"):
        Runs.from_bands([np.zeros((2, 2), np.uint8)], height=3, width=2)
