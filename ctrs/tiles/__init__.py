"""Scenes and labels become tiles on disk: ``prepare_tiles`` writes them, ``Manifest`` reads them.

``audit_source`` looks for every fault in a source beforehand.
"""

from ctrs.tiles.audit import Audit
from ctrs.tiles.manifest import Manifest, Scene, SceneMosaic, Tile, scene_mosaics
from ctrs.tiles.source_audit import audit_source
from ctrs.tiles.tiling import prepare_tiles

__all__ = ["Audit", "Manifest", "Scene", "SceneMosaic", "Tile", "audit_source", "prepare_tiles", "scene_mosaics"]
