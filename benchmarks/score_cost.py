"""Time of each score of ctrs.metrics, in nanoseconds a pixel, on a scene of six classes with areas of real sizes.

python benchmarks/score_cost.py [--size 3000] [--block 1024] [--noise 0.0] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from ctrs.metrics import (
    AreaCounts,
    BoundaryCounts,
    CalibrationCounts,
    ConfusionMatrix,
    ObjectCounts,
    ScoredBlock,
    scored_blocks,
)

NUM_CLASSES = 6


def make_masks(size: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return truth, prediction and confidence; ``noise`` is the share of predicted pixels that are random."""
    rng = np.random.default_rng(0)
    fields = np.stack([ndimage.uniform_filter(rng.random((size, size), np.float32), 41) for _ in range(NUM_CLASSES)])
    truth = fields.argmax(axis=0).astype(np.uint8)
    moved = np.stack([ndimage.uniform_filter(field, 5) for field in fields])
    pred = np.roll(moved.argmax(axis=0).astype(np.uint8), 2, axis=1)
    random = rng.random((size, size)) < noise
    pred[random] = rng.integers(0, NUM_CLASSES, int(random.sum()))
    truth[: size // 20] = 255
    return truth, pred, rng.uniform(0.3, 1, (size, size)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=3000)
    parser.add_argument("--block", type=int, default=1024)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    truth, pred, confidence = make_masks(args.size, args.noise)
    halo_px = BoundaryCounts(NUM_CLASSES).halo_px

    def confusion() -> Callable[[ScoredBlock], None]:
        matrix = ConfusionMatrix(NUM_CLASSES)
        return lambda block: matrix.update(block.core_truth, block.core_pred)

    scores: dict[str, Callable[[], Callable[[ScoredBlock], None]]] = {
        "confusion": confusion,
        "boundary IoU": lambda: BoundaryCounts(NUM_CLASSES, distances_px=()).update,
        "boundary IoU and F1": lambda: BoundaryCounts(NUM_CLASSES).update,
        "objects of a class": lambda: ObjectCounts(1).update,
        "area": lambda: AreaCounts(NUM_CLASSES, pixel_area_m2=0.01).update,
        "calibration": lambda: CalibrationCounts().update,
    }
    result = {name: float("inf") for name in scores}
    for _ in range(args.repeats):
        for name, create in scores.items():
            update = create()
            begin = time.process_time()
            for block in scored_blocks(truth, pred, confidence=confidence, block_px=args.block, halo_px=halo_px):
                update(block)
            result[name] = min(result[name], (time.process_time() - begin) / truth.size * 1e9)
    result["all"] = sum(result.values()) - result["boundary IoU"]
    if args.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:20} {value:7.1f} ns/px")


if __name__ == "__main__":
    main()
