"""What a setting gains over another, paired by seed, with an interval over scenes and seeds at once.

Scenes and seeds are crossed: each seed's networks are scored on all scenes. A bootstrap sample draws scenes and,
independently, seeds, both with replacement, and uses the same draws for the two settings (Owen 2007, "The pigeonhole
bootstrap", Ann. Appl. Stat. 1(2)). With the three or five seeds of an ablation such an interval is rather too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.ablation.spread import Spread, paired_differences
from ctrs.evaluation.protocols import plain_number
from ctrs.evaluation.score_intervals import headline_counts, headline_statistic
from ctrs.evaluation.score_report import EvaluationReport

SAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A difference in mean IoU of the headline protocol.

    Args:
        spread: Of the differences of the seeds that both settings have.
        low: Lower end of the interval over scenes and seeds; NaN where there is none.
        high: Upper end, likewise.
        num_scenes: Scenes that were drawn from.
        reason: Why there is no interval; None where there is one.
    """

    spread: Spread
    low: float = math.nan
    high: float = math.nan
    num_scenes: int = 0
    reason: str | None = None

    def describe(self) -> str:
        """Say it in a table's cell.

        >>> Gain(spread=Spread(mean=0.012, sd=0.004, count=3), low=0.002, high=0.02, num_scenes=5).describe()
        '+0.0120 ± 0.0040 [+0.002, +0.020]'
        """
        text = self.spread.describe(signed=True)
        return text if math.isnan(self.low) else f"{text} [{self.low:+.3f}, {self.high:+.3f}]"

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            **self.spread.to_json(),
            "low": plain_number(self.low),
            "high": plain_number(self.high),
            "confidence": CONFIDENCE,
            "samples": SAMPLES,
            "num_scenes": self.num_scenes,
            "reason": self.reason,
        }


def paired_gain(
    ours: Mapping[int, EvaluationReport],
    reference: Mapping[int, EvaluationReport],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Gain:
    """Compare two settings over the seeds that both were trained with.

    Args:
        ours: Report of each seed.
        reference: Likewise, of what it is compared with.
        samples: Bootstrap samples.
        seed: Of the draws.
    """
    scores = [{key: report.mean_iou for key, report in side.items()} for side in (ours, reference)]
    differences = paired_differences(scores[0], scores[1])
    spread, seeds = Spread.of(list(differences.values())), sorted(differences)
    reports = [side[key] for key in seeds for side in (ours, reference)]
    num_scenes = len(reports[0].scenes) if reports else 0
    reason = _why_none(reports, len(seeds))
    if reason is not None:
        return Gain(spread=spread, num_scenes=num_scenes, reason=reason)
    statistic = headline_statistic(reports[0].classes)
    rng = np.random.default_rng(seed)
    scenes = rng.multinomial(num_scenes, np.full(num_scenes, 1 / num_scenes), size=samples)
    draws = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=samples)
    gains = np.empty((samples, len(seeds)))
    for column, key in enumerate(seeds):
        a, b = (statistic(np.tensordot(scenes, _counts(side[key]), axes=1))[:, 0] for side in (ours, reference))
        gains[:, column] = a - b
    means = (gains * draws).sum(axis=1) / len(seeds)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(means, [tail, 100 - tail])
    return Gain(spread=spread, low=float(low), high=float(high), num_scenes=num_scenes)


def _why_none(reports: Sequence[EvaluationReport], num_seeds: int) -> str | None:
    if num_seeds < 2:
        return "one seed" if num_seeds else "no seed in common"
    scenes = {tuple(scene.name for scene in report.scenes) for report in reports}
    if len(scenes) > 1:
        return "other scenes were scored"
    if len(reports[0].scenes) < 2:
        return "one scene"
    return None


def _counts(report: EvaluationReport) -> npt.NDArray[np.int64]:
    return headline_counts([scene.confusions["strict"] for scene in report.scenes], report.classes)
