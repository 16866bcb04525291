"""Polygons from class rasters and class rasters from polygons (geopandas, shapely)."""

from ctrs.vector.polygonize import polygonize
from ctrs.vector.vectorize import VectorizeResult, polygons_path, vectorize

__all__ = ["VectorizeResult", "polygonize", "polygons_path", "vectorize"]
