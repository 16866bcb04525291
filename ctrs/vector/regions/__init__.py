"""From a mask to the regions and outlines that polygons are drawn from."""
