"""Straight buildings from outlines that wobble: walls are straight in truth, so what is straightened is also nearer.

The way of an outline; what has its own module is named:

1. ``sampling``: even samples of the exact outline of the cleaned mask, the staircase of pixels smoothed away.
2. ``directions``: each building's main direction modulo 90 degrees, and a second one where enough of the outline
   follows neither the first nor its diagonals. ``shared_directions``: uncertain ones lean on their neighbours'.
3. ``gaps``: neighbours that the mask has fused are parted where the gap still shows in its ``pixels``.
4. ``walls``: which lines (direction, offset) the outline follows, by least cost around the closed ring: truncated
   squared distance, a price for each corner, a higher one for diagonals and free angles.
5. ``fitting``: one rotation for each set of directions and one offset for each wall, all rings of a building at once,
   by robust least squares away from corners. Corners are where consecutive walls meet. How far the outline strays from
   its walls then decides what corners and diagonals cost, and how wide a court must be (``straightening``).
6. ``circles``: an outline that follows a circle is one where that costs less than walls.
7. ``buildings``: what is invalid, changes the area by more than is allowed, or agrees too little with the outline falls
   back to the simplified outline, and says so; ``areas`` compares the two.
8. ``neighbors`` that share borders are straightened as one building and divided by ``party_walls``, or else each
   stretch between junctions by itself (``wall_arcs``).
9. ``overlaps`` are cut last, and only where the fit made them.

``subpixel`` moves exact outlines to where classes are equally probable, for masks that come with probabilities.

Lengths are ground metres along the pixel axes (``ctrs.vector.regions.cleaning.ground_pixel_size``): tolerances mean the
same in any CRS and at any pixel size. Modules with loops over samples are compiled by numba at first use; importing
this package imports none of them.
"""

from ctrs.vector.regularize.subpixel import SubpixelOutlines, refine_outlines

__all__ = ["SubpixelOutlines", "refine_outlines"]
