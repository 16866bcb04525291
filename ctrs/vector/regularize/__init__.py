"""Straight buildings from outlines that wobble: walls are straight in truth, so what is straightened is also nearer.

The way of an outline, over all buildings of a block at once where arrays allow. Steps that name a module stand; the
others are the plan:

1. ``subpixel``: the exact outlines of the cleaned mask (``ctrs.vector.outlines``) go, edge by edge, to where the
   probabilities of the class and of its strongest rival are equal. Rings, labels and holes are those of the exact
   outlines, so nothing has to be joined where the raster is read in bands.
2. ``directions``: each building's main direction modulo 90 degrees, from chords of its outline, and a second one where
   enough of the outline follows neither the first nor its diagonals. Neighbours in a block that agree within the error
   of the estimate are to share one.
3. Walls: which lines (direction, offset) the outline follows, by least cost around the closed ring: truncated squared
   distance, a price for each corner, a higher one for diagonals and free angles. Truncation makes trees and pinholes
   cost alike however deep they bite.
4. Fit: one rotation for each set of directions and one offset for each wall, all walls of a building at once, by robust
   least squares on the subpixel outline away from corners; holes share the directions of their shell. A party wall is
   one line of the system of both its buildings.
5. Corners are where consecutive walls meet. What is invalid, changes the area by more than is allowed, or loses more
   IoU than is stated falls back to the simplified outline, and says so.
6. Circles: rings that a circle explains better, at the same price for each parameter, become one.
7. Overlaps are cut last, and only where the fit made them.

Lengths are ground metres along the pixel axes (``ctrs.vector.cleaning.ground_pixel_size``): tolerances mean the same in
any CRS and at any pixel size.
"""

from ctrs.vector.regularize.directions import Directions, find_directions
from ctrs.vector.regularize.subpixel import SubpixelOutlines, refine_outlines

__all__ = ["Directions", "SubpixelOutlines", "find_directions", "refine_outlines"]
