"""Scenes and labels become tiles on disk: ``prepare_tiles`` writes them, ``Manifest`` reads them."""

from ctrs.tiles.manifest import Manifest, Scene, SceneMosaic, Tile, scene_mosaics
from ctrs.tiles.tiling import prepare_tiles

__all__ = ["Manifest", "Scene", "SceneMosaic", "Tile", "prepare_tiles", "scene_mosaics"]
