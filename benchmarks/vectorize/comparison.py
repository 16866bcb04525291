"""What the comparisons of building polygons share: masks on disk, and rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from ctrs.raster.probabilities import PROBABILITIES_TAG, UINT8_NODATA, UINT8_STEPS, probabilities_path
from ctrs.synthetic.mask_noise import NoisyMask
from ctrs.vector.quality import PolygonQuality


@dataclass(frozen=True)
class Run:
    """One row of the table."""

    level: str
    method: str
    quality: PolygonQuality
    seconds: float | None
    peak_mb: float | None


def write_mask(noisy: NoisyMask, path: Path, *, probabilities: bool = False) -> None:
    """Write the mask of 0 and 1, band by band, and if wanted the probabilities it is made of, where ctrs looks."""
    grid = noisy.grid
    profile = {"width": grid.width, "height": grid.height, "count": 1, "dtype": "uint8"}
    options = {"tiled": True, "compress": "deflate", "zlevel": 1, "crs": grid.crs, "transform": grid.transform}
    with ExitStack() as stack:
        dataset = stack.enter_context(rasterio.open(path, "w", driver="GTiff", **profile, **options))
        beside = None
        if probabilities:
            place = probabilities_path(path)
            beside = stack.enter_context(
                rasterio.open(place, "w", driver="GTiff", **profile, **options, nodata=UINT8_NODATA)
            )
            beside.descriptions = ("building",)
            beside.update_tags(**{PROBABILITIES_TAG: "uint8"})
        for row, probability in noisy.bands():
            window = Window(0, row, grid.width, len(probability))
            dataset.write((probability > 0.5).astype(np.uint8), 1, window=window)
            if beside is not None:
                beside.write(np.rint(probability * UINT8_STEPS).astype(np.uint8), 1, window=window)


def table(runs: Sequence[Run]) -> str:
    """Return two Markdown tables: the main figures, and the others."""

    def text(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    lines = [
        "| level | method | IoU | F1 at 0.9 | C-IoU | PoLiS m | Hausdorff m | wall angle | within 1° | "
        "vertices / truth | overlaps, invalid | holes lost / spurious | seconds | MB |",
        "|---" * 14 + "|",
    ]
    for run in runs:
        q = run.quality
        cells = [
            run.level,
            run.method,
            text(q.iou, 3),
            text(q.f1_at(0.9), 3),
            text(q.c_iou, 3),
            text(q.polis_m, 3),
            text(q.hausdorff_m, 2),
            f"{text(q.wall_angle_error_deg, 1)}°",
            text(q.parallel_share, 2),
            text(q.corner_ratio, 3),
            f"{q.num_overlaps}, {q.num_invalid}",
            f"{q.num_lost_holes} / {q.num_spurious_holes}",
            text(run.seconds, 1),
            text(run.peak_mb, 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| level | method | predicted / truth | matched | split | merged | F1 at 0.5 | exact corners | N-ratio | "
        "corner F1 | boundary IoU | boundary F | tangent angle | direction | right angles (truth) |",
        "|---" * 15 + "|",
    ]
    for run in runs:
        q = run.quality
        cells = [
            run.level,
            run.method,
            f"{q.num_predicted} / {q.num_truth}",
            str(q.num_matched),
            str(q.num_split),
            str(q.num_merged),
            text(q.f1_at(0.5), 3),
            text(q.exact_corner_count, 2),
            text(q.n_ratio, 2),
            text(q.corner_f1, 3),
            text(q.boundary_iou, 3),
            text(q.boundary_f, 3),
            f"{text(q.tangent_angle_error_deg, 1)}°",
            f"{text(q.direction_error_deg, 2)}°",
            f"{text(q.right_angle_share, 3)} ({text(q.true_right_angle_share, 3)})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
