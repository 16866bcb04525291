"""How much scores would differ on other scenes: percentile intervals by resampling scenes with replacement.

Scenes are drawn, not pixels: pixels of a scene are alike, and an interval from single pixels would be far too narrow
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13). Scores are functions of counts that
add over scenes, so that a sample is one weighted sum; average precision of objects is none, and has no interval.

With few scenes such intervals are too narrow still: in the simulation of tests/metrics/test_bootstrap.py a nominal 95 %
holds in 90 % of the cases with 14 scenes, in 93 % with 40. They say how scores vary between scenes like these, with
this network; not how they vary with the seed of training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.errors import UsageError
from ctrs.metrics.confusion import Scores

Statistic = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""Turns summed counts (B, ...) into B scores (B,) or B arrays of scores (B, ...), each from its own counts."""

_CHUNK_VALUES = 1 << 22  # resampled counts held at a time, 32 MiB


@dataclass(frozen=True, kw_only=True, eq=False)
class Interval:
    """A score with the interval that its scenes allow.

    Args:
        estimate: The score over all scenes, of the statistic's shape (a 0-d array for a single score).
        low: Lower end of the interval, likewise; None where there is no interval.
        high: Upper end, likewise.
        defined: Share of the samples in which the score is a number; the interval is over these.
        confidence: Probability that the interval is meant to cover.
        num_scenes: Scenes.
        samples: Bootstrap samples.
        reason: Why there is no interval; None where there is one.
    """

    estimate: Scores
    low: Scores | None
    high: Scores | None
    defined: Scores | None
    confidence: float
    num_scenes: int
    samples: int
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PairedDifference:
    """How much better a run scores than another on the same scenes.

    Args:
        difference: Score of A less score of B over all scenes, with its interval.
        share_above: Share of the samples in which A scores above B, of those in which both have a score; None without
            samples.
        share_below: Share in which A scores below B.
        two_sided: Twice the smaller of the shares in which A is not above, and not below, B; at most 1. Small values
            speak against "no difference on scenes like these", but it is no p-value of a test: it only tells how many
            samples lie on the other side of 0, and is 0 where none does. It is below 1 - ``confidence`` where the
            interval leaves 0 out, up to single samples.
    """

    difference: Interval
    share_above: Scores | None
    share_below: Scores | None
    two_sided: Scores | None


def bootstrap_interval(
    counts: npt.ArrayLike,
    statistic: Statistic,
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return a score with its percentile interval over scenes.

    Args:
        counts: (S, ...) counts of each scene, which add over scenes.
        statistic: Score of summed counts, for a whole batch of sums at once; NaN where there is none.
        samples: Bootstrap samples; 0: no interval.
        confidence: Probability to cover, below 1.
        seed: Of the draws; the same seed and number of scenes draw the same scenes.

    Raises:
        UsageError: There is no scene, or an option is out of range.

    >>> from ctrs.metrics import iou_of
    >>> scenes = np.array([[[8, 1, 0], [1, 9, 0]], [[5, 4, 0], [2, 9, 0]], [[9, 1, 0], [0, 4, 0]]])
    >>> building = bootstrap_interval(scenes, lambda counts: iou_of(counts)[:, 1])
    >>> f"{building.estimate:.3f} [{building.low:.3f}, {building.high:.3f}]"
    '0.710 [0.600, 0.818]'
    """
    array = _checked(counts, samples, confidence)
    estimate = np.asarray(statistic(array.sum(axis=0, keepdims=True)), np.float64)[0]
    reason = _reason(len(array), samples)
    if reason is not None:
        return _no_interval(estimate, confidence, len(array), samples, reason)
    draws = np.concatenate([statistic(totals[0]) for totals in _resampled([array], samples, seed)])
    return _interval(estimate, np.asarray(draws, np.float64), confidence, len(array))


def paired_bootstrap(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    statistic: Statistic,
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Return the difference of two runs' scores over the same scenes; each sample draws the same scenes for both.

    Args:
        a: (S, ...) counts of each scene, of one run.
        b: (S, ...) counts of the same scenes in the same order, of the other.
        statistic: As for ``bootstrap_interval``.
        samples: Bootstrap samples; 0: no interval.
        confidence: Probability to cover, below 1.
        seed: Of the draws.

    Raises:
        UsageError: The runs have other scenes, or an option is out of range.

    >>> from ctrs.metrics import accuracy_of
    >>> a = np.array([[[9, 1]], [[8, 2]], [[7, 3]]])
    >>> b = np.array([[[8, 2]], [[8, 2]], [[5, 5]]])
    >>> better = paired_bootstrap(a, b, accuracy_of)
    >>> round(float(better.difference.estimate), 3), float(better.share_below)
    (0.1, 0.0)
    """
    first, second = _checked(a, samples, confidence), _checked(b, samples, confidence)
    if first.shape != second.shape:
        raise UsageError(
            f"paired bootstrap: counts of shapes {first.shape} and {second.shape} found, expected the same; "
            "compare runs on the same scenes and classes"
        )
    ours, theirs = (np.asarray(statistic(array.sum(axis=0, keepdims=True)), np.float64)[0] for array in (first, second))
    reason = _reason(len(first), samples)
    if reason is not None:
        none = _no_interval(ours - theirs, confidence, len(first), samples, reason)
        return PairedDifference(difference=none, share_above=None, share_below=None, two_sided=None)
    draws = np.concatenate(
        [
            np.asarray(statistic(totals[0]), np.float64) - np.asarray(statistic(totals[1]), np.float64)
            for totals in _resampled([first, second], samples, seed)
        ]
    )
    held = (~np.isnan(draws)).sum(axis=0)
    above, below = (_share((sign * draws > 0).sum(axis=0), held) for sign in (1, -1))
    return PairedDifference(
        difference=_interval(ours - theirs, draws, confidence, len(first)),
        share_above=above,
        share_below=below,
        two_sided=np.minimum(1.0, 2 * np.minimum(1 - above, 1 - below)),
    )


def _checked(counts: npt.ArrayLike, samples: int, confidence: float) -> npt.NDArray[Any]:
    array = np.asarray(counts)
    if array.ndim < 1 or len(array) < 1:
        raise UsageError(f"bootstrap: counts of shape {array.shape} found, expected those of one scene or more")
    if samples < 0 or not 0 < confidence < 1:
        raise UsageError(
            f"bootstrap: samples {samples} and confidence {confidence} found, expected 0 or more, and above 0 below 1"
        )
    return array


def _reason(num_scenes: int, samples: int) -> str | None:
    if num_scenes < 2:
        return "a single scene says nothing about how scores vary between scenes"
    return None if samples else "no samples were asked for"


def _resampled(runs: list[npt.NDArray[Any]], samples: int, seed: int) -> Iterator[list[npt.NDArray[np.float64]]]:
    """Yield each run's counts summed over drawn scenes, (B, ...), the same scenes for all runs."""
    num_scenes = len(runs[0])
    # Whole counts below 2^53 add exactly in float64, whatever the order.
    flat = [run.reshape(num_scenes, -1).astype(np.float64) for run in runs]
    rng = np.random.default_rng(seed)
    batch = max(1, _CHUNK_VALUES // max(num_scenes, flat[0].shape[1]))
    for start in range(0, samples, batch):
        size = min(batch, samples - start)
        weights = rng.multinomial(num_scenes, np.full(num_scenes, 1 / num_scenes), size=size).astype(np.float64)
        yield [(weights @ values).reshape(size, *run.shape[1:]) for values, run in zip(flat, runs, strict=True)]


def _interval(estimate: Scores, draws: Scores, confidence: float, num_scenes: int) -> Interval:
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    flat = draws.reshape(len(draws), -1)
    ends = np.full((2, flat.shape[1]), np.nan)
    for column in range(flat.shape[1]):
        held = flat[~np.isnan(flat[:, column]), column]
        if held.size:
            ends[:, column] = np.quantile(held, tails)
    low, high = ends.reshape(2, *estimate.shape)
    return Interval(
        estimate=estimate,
        low=np.asarray(low),
        high=np.asarray(high),
        defined=np.asarray((~np.isnan(draws)).mean(axis=0)),
        confidence=confidence,
        num_scenes=num_scenes,
        samples=len(draws),
    )


def _no_interval(estimate: Scores, confidence: float, num_scenes: int, samples: int, reason: str) -> Interval:
    return Interval(
        estimate=np.asarray(estimate),
        low=None,
        high=None,
        defined=None,
        confidence=confidence,
        num_scenes=num_scenes,
        samples=samples,
        reason=reason,
    )


def _share(part: Any, whole: Any) -> Scores:
    shares: Scores = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
    return shares
