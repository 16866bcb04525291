"""Means, standard deviations and paired differences, checked by hand."""

from __future__ import annotations

import math

import pytest

from ctrs.ablation.spread import Spread, paired_differences


def test_mean_and_sample_standard_deviation_by_hand() -> None:
    # 2, 4, 4, 4, 5, 5, 7, 9: mean 5, squared deviations 9 1 1 1 0 0 4 16 = 32, 32 / 7
    spread = Spread.of([2, 4, 4, 4, 5, 5, 7, 9])
    assert (spread.mean, spread.count) == (5.0, 8)
    assert spread.sd == pytest.approx(math.sqrt(32 / 7), abs=1e-15)


def test_what_is_not_known_is_left_out() -> None:
    spread = Spread.of([0.5, math.nan, 0.7])
    assert (spread.mean, spread.count) == (pytest.approx(0.6), 2)
    assert spread.sd == pytest.approx(math.sqrt(0.02))
    assert spread.describe() == "0.6000 ± 0.1414"


def test_one_value_claims_no_spread() -> None:
    spread = Spread.of([0.25])
    assert (spread.mean, spread.sd, spread.count) == (0.25, None, 1)
    assert spread.describe() == "0.2500 (n = 1)"
    assert spread.to_json() == {"mean": 0.25, "sd": None, "n": 1}


def test_no_value_is_no_number() -> None:
    spread = Spread.of([])
    assert math.isnan(spread.mean)
    assert (spread.sd, spread.count, spread.describe()) == (None, 0, "–")
    assert spread.to_json() == {"mean": None, "sd": None, "n": 0}


def test_pairs_are_those_that_both_have() -> None:
    # Seeds differ by 0.2 from each other, the two losses by 0.01, 0.02 and 0.03: only pairs show that.
    none = {0: 0.40, 1: 0.60, 2: 0.80, 3: 0.10}
    contrast = {2: 0.83, 0: 0.41, 1: 0.62, 4: 0.99}
    differences = paired_differences(contrast, none)
    assert differences == {0: pytest.approx(0.01), 1: pytest.approx(0.02), 2: pytest.approx(0.03)}
    spread = Spread.of(list(differences.values()))
    assert (spread.mean, spread.sd, spread.count) == (pytest.approx(0.02), pytest.approx(0.01), 3)
    assert spread.describe(signed=True) == "+0.0200 ± 0.0100"
    assert Spread.of(list(paired_differences(none, contrast).values())).describe(signed=True) == "-0.0200 ± 0.0100"
    assert paired_differences({}, none) == {}
