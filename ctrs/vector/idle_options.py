"""Options that change nothing on the mask they were given with: said, not passed over."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from ctrs.config import VectorizeConfig
from ctrs.config.vectorize import BUILDING
from ctrs.errors import OptionWarning
from ctrs.raster.cog import MaskClass
from ctrs.raster.geotiff import Grid
from ctrs.vector.regions.cleaning import ground_pixel_size
from ctrs.vector.regions.morphology import disc_radius_m


def warn_idle_options(
    config: VectorizeConfig, grid: Grid, wanted: Sequence[MaskClass], *, all_wanted: bool, mask: Path
) -> None:
    """Warn of each option that changes nothing about the polygons of a mask.

    Args:
        config: Valid in itself; what no mask could give a meaning to it refuses.
        grid: Of the mask.
        wanted: Classes that are drawn.
        all_wanted: The mask has no others.
        mask: The file, for messages.
    """
    for idle in _idle(config, grid, [entry.name for entry in wanted], all_wanted=all_wanted):
        warnings.warn(f"{mask}: {idle}", OptionWarning, stacklevel=3)


def _idle(config: VectorizeConfig, grid: Grid, names: Sequence[str], *, all_wanted: bool) -> list[str]:
    found = []
    drawn = ", ".join(names)
    if config.smooth_m > 0 and set(names) == {BUILDING}:
        found.append("--smooth changes nothing: it evens out borders of other classes than building, and none is drawn")
    for option, value in (("--regularize", config.regularize), ("--split", config.split)):
        if value != "none" and BUILDING not in names:
            found.append(f"{option} changes nothing: it is for the class building, and {drawn} are drawn")
    sampling = ground_pixel_size(grid)
    for option, width in (("--opening", config.opening_m), ("--closing", config.closing_m)):
        if width > 0 and disc_radius_m(width, sampling) < min(sampling):
            least = 2 * min(sampling) + (sampling[0] * sampling[1]) ** 0.5
            found.append(f"{option} {width:g} changes nothing: on these pixels widths below {least:.2g} m do not show")
    if all_wanted and disc_radius_m(config.closing_m, sampling) >= min(sampling):
        found.append("--closing changes nothing: it fills gaps with classes that are not drawn, and all are")
    return found
