"""Polygons from class rasters and class rasters from polygons (geopandas, shapely)."""

from ctrs.vector.polygonize import polygonize
from ctrs.vector.vectorize import VectorizeResult, check_mask, polygons_path, vectorize

__all__ = ["VectorizeResult", "check_mask", "polygonize", "polygons_path", "vectorize"]
