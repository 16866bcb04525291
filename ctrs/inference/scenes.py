"""Which rasters a command maps, and where each mask goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ctrs.errors import InputNotFoundError, RasterError, UsageError
from ctrs.raster.cog import CLASSES_TAG
from ctrs.raster.confidence import CONFIDENCE_TAG
from ctrs.raster.geotiff import open_raster

SCENE_SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".jpg", ".jpeg", ".png", ".jp2", ".img"})
"""Endings by which rasters are found in folders; a file that is named may end in anything."""

_MASK_SUFFIX, _CONFIDENCE_SUFFIX = "_mask", "_confidence"
_GEOTIFF_SUFFIXES = frozenset({".tif", ".tiff"})


def mask_path(scene: Path | str, out: Path | None = None) -> Path:
    """Return where the mask of a scene goes: beside the scene, unless told otherwise.

    Args:
        scene: The input raster; the mask of a raster on the network goes to the current folder.
        out: A folder that exists, for ``SCENE_mask.tif`` in it, or else the mask's own path.

    >>> mask_path(Path("city/scene.tif")).as_posix()
    'city/scene_mask.tif'
    >>> mask_path("https://example.org/scene.tif").as_posix()
    'scene_mask.tif'
    """
    path = Path(scene)
    name = f"{path.stem}{_MASK_SUFFIX}.tif"
    if out is not None:
        return out / name if out.is_dir() else out
    remote = "://" in str(scene) or str(scene).startswith("/vsi")
    return Path(name) if remote else path.with_name(name)


def mask_paths(paths: Iterable[Path | str], out: Path | None = None) -> list[tuple[Path | str, Path]]:
    """Return every scene of some paths with the place of its mask.

    Args:
        paths: Files, folders of rasters, and names that only GDAL understands.
        out: With one file: the mask's path (``.tif``), or a folder. Else a folder. Folders are made when needed.

    Raises:
        InputNotFoundError: A folder holds no raster.
        UsageError: Two scenes would have the same mask, or ``out`` is one file for several or no name of a GeoTIFF.
    """
    given = list(paths)
    scenes = scenes_in(given)
    as_folder = out is not None and (not out.suffix or len(scenes) > 1 or any(Path(path).is_dir() for path in given))
    if out is not None and as_folder and (out.is_file() or out.suffix.lower() in SCENE_SUFFIXES):
        raise UsageError(f"{out}: one file for {len(scenes)} scenes; name a folder instead")
    if out is not None and not as_folder and not out.is_dir() and out.suffix.lower() not in _GEOTIFF_SUFFIXES:
        raise UsageError(f"{out}: {out.suffix} found, expected .tif (masks are GeoTIFF) or a folder; choose with -o")
    pairs: dict[Path, Path | str] = {}
    for scene in scenes:
        mask = out / mask_path(scene).name if out is not None and as_folder else mask_path(scene, out)
        if mask in pairs:
            raise UsageError(f"{mask}: would be the mask of {pairs[mask]} and of {scene}; map them one by one with -o")
        pairs[mask] = scene
    return [(scene, mask) for mask, scene in pairs.items()]


def scenes_in(paths: Iterable[Path | str]) -> list[Path | str]:
    """Expand folders to the rasters that lie in them, by name; masks that ctrs wrote there are left out.

    Args:
        paths: Files, folders, and names that only GDAL understands, which are passed on as they are.

    Raises:
        InputNotFoundError: A folder holds no raster.
    """
    scenes: list[Path | str] = []
    for path in paths:
        if Path(path).is_dir():
            scenes.extend(_scenes_in_folder(Path(path)))
        else:
            scenes.append(path)
    return scenes


def _scenes_in_folder(folder: Path) -> Sequence[Path]:
    rasters = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SCENE_SUFFIXES and path.is_file() and not path.name.startswith(".")
    ]
    own = (_MASK_SUFFIX, _CONFIDENCE_SUFFIX)
    scenes = [path for path in rasters if not (path.stem.endswith(own) and _is_mask_or_confidence(path))]
    if not scenes:
        masks = f" but {len(rasters)} masks of ctrs" if rasters else ""
        raise InputNotFoundError(
            f"{folder}: no rasters found{masks}; expected files ending in {', '.join(sorted(SCENE_SUFFIXES))}"
        )
    return scenes


def _is_mask_or_confidence(path: Path) -> bool:
    try:
        with open_raster(path) as dataset:
            return not {CLASSES_TAG, CONFIDENCE_TAG}.isdisjoint(dataset.tags())
    except RasterError:
        return False
