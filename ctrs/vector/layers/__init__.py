"""Polygons become files: columns, coordinates of the CRS, formats, styles."""
