"""Pixels on a grid: windows, GeoTIFF reading and writing, bands, ground metres."""
