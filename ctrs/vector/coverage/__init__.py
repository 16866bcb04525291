"""Polygons that share borders: simplified, smoothed and joined so that borders stay common."""
