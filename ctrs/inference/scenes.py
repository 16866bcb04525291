"""Which rasters a command maps, and where each mask goes."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ctrs.errors import InputNotFoundError, RasterError, UsageError
from ctrs.raster.cog import CLASSES_TAG
from ctrs.raster.confidence import CONFIDENCE_TAG
from ctrs.raster.geotiff import open_raster
from ctrs.raster.names import file_name, is_virtual, local_file, shown, source_path
from ctrs.report.png import is_own_png
from ctrs.tiles.archives import is_zip, list_archive

SCENE_SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".jpg", ".jpeg", ".png", ".jp2", ".img"})
"""Endings by which rasters are found in folders, archives and by patterns; a file that is named may end in anything."""

_MASK_SUFFIX = "_mask"
_OWN_SUFFIXES = (_MASK_SUFFIX, "_confidence", "_probabilities")
_OWN_TAGS = {
    CLASSES_TAG: "a mask",
    CONFIDENCE_TAG: "a confidence",
    "CTRS_PROBABILITIES": "a raster of probabilities",
    "CTRS_ERRORS": "an error map",
}
"""Tags by which ctrs knows the rasters that it wrote, and what they are."""

_GEOTIFF_SUFFIXES = frozenset({".tif", ".tiff"})

_PACKED = ("zip://", "zip+", "/vsizip/")
"""Beginnings of names of archives and their members, in the manner of rasterio and GDAL."""

_HEAD_BYTES = 2**16
"""Beginning of a GeoTIFF in which the names of its tags are looked for; ctrs writes them there."""


def mask_path(scene: Path | str, out: Path | None = None) -> Path:
    """Return where the mask of a scene goes: beside the scene, unless told otherwise.

    Args:
        scene: The input raster; the mask of a raster on the network goes to the current folder, that of a member of
            an archive beside the archive.
        out: A folder that exists, for ``SCENE_mask.tif`` in it, or else the mask's own path.

    >>> mask_path(Path("city/scene.tif")).as_posix()
    'city/scene_mask.tif'
    >>> mask_path("https://example.org/scene.tif?key=a/b").as_posix()
    'scene_mask.tif'
    """
    path = source_path(str(scene))
    name = f"{file_name(path).stem}{_MASK_SUFFIX}.tif"
    if out is not None:
        return out / name if out.is_dir() else out
    if not is_virtual(path):
        return path.with_name(name)
    archive = local_file(path)
    return Path(name) if archive is None else archive.with_name(name)


def mask_paths(paths: Iterable[Path | str], out: Path | None = None) -> list[tuple[Path | str, Path]]:
    """Return every scene of some paths with the place of its mask.

    Args:
        paths: What ``scenes_in`` takes.
        out: With one file: the mask's path (``.tif``), or a folder. Else a folder. Folders are made when needed.

    Raises:
        InputNotFoundError: A folder or archive holds no raster, or a pattern fits none.
        UsageError: Two scenes would have the same mask, or ``out`` is one file for several or no name of a GeoTIFF.
    """
    given = list(paths)
    scenes = scenes_in(given)
    as_folder = out is not None and (not out.suffix or len(scenes) > 1 or any(Path(path).is_dir() for path in given))
    if out is not None and as_folder and (out.is_file() or out.suffix.lower() in SCENE_SUFFIXES):
        if len(scenes) == 1 and out.is_file():
            raise UsageError(f"{out}: is a file, expected a folder or the name of a .tif; choose with -o")
        raise UsageError(f"{out}: one file for {len(scenes)} scenes; name a folder instead")
    if out is not None and not as_folder and not out.is_dir():
        check_mask_name(out)
    pairs: dict[Path, Path | str] = {}
    for scene in scenes:
        mask = out / mask_path(scene).name if out is not None and as_folder else mask_path(scene, out)
        if mask in pairs:
            raise UsageError(
                f"{mask}: would be the mask of {shown(pairs[mask])} and of {shown(scene)}; map them one by one with -o"
            )
        pairs[mask] = scene
    return [(scene, mask) for mask, scene in pairs.items()]


def check_mask_name(out: Path) -> None:
    """Refuse a name for a mask that is none of a GeoTIFF.

    Raises:
        UsageError: With what is expected.
    """
    if out.suffix.lower() not in _GEOTIFF_SUFFIXES:
        raise UsageError(
            f"{out}: {out.suffix or 'no ending'} found, expected .tif (masks are GeoTIFF) or a folder; choose with -o"
        )


def scenes_in(paths: Iterable[Path | str]) -> list[Path | str]:
    """Return the rasters that some paths stand for, each once; what ctrs itself wrote is passed over.

    Args:
        paths: Rasters; folders and zip archives, for the rasters that lie in them; patterns such as ``city/*.tif`` and
            ``city/**/*.tif`` (any depth), for the files that fit, by name; names that GDAL alone understands, which
            are passed on as they are, as are files whose names look like patterns.

    Raises:
        InputNotFoundError: A folder or archive holds no raster, or a pattern fits none.
    """
    scenes: list[Path | str] = []
    for given in paths:
        path = source_path(given) if isinstance(given, str) and given.lower().startswith(_PACKED) else given
        if "://" in str(path) or is_virtual(path) or Path(path).is_file():
            archive = is_zip(Path(path)) and Path(path).is_file()
            scenes.extend(_scenes_in_archive(Path(path)) if archive else [path])
        elif Path(path).is_dir():
            scenes.extend(_scenes_in_folder(Path(path)))
        elif glob.has_magic(str(path)):
            scenes.extend(_scenes_of_pattern(str(path)))
        else:
            scenes.append(path)
    return list({str(path): path for path in scenes}.values())


def _scenes_of_pattern(pattern: str) -> Sequence[Path]:
    # Path.glob takes no pattern that begins at the root.
    matches = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
    any_ending = not Path(pattern).suffix or glob.has_magic(Path(pattern).suffix)
    files = [path for path in matches if path.is_file() and (not any_ending or path.suffix.lower() in SCENE_SUFFIXES)]
    scenes = [path for path in files if not _is_own(path)]
    if not scenes:
        found = f"{len(files)} files, all written by ctrs" if files else "no raster"
        raise InputNotFoundError(
            f"{pattern}: {found} found that fits; check the pattern (** stands for folders of any depth)"
        )
    return scenes


def _scenes_in_folder(folder: Path) -> Sequence[Path]:
    rasters = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SCENE_SUFFIXES and path.is_file() and not path.name.startswith(".")
    ]
    scenes = [path for path in rasters if not _is_own(path)]
    if not scenes:
        masks = f" but {len(rasters)} files that ctrs wrote" if rasters else ""
        raise InputNotFoundError(
            f"{folder}: no rasters found{masks}; expected files ending in {', '.join(sorted(SCENE_SUFFIXES))}"
        )
    return scenes


def _scenes_in_archive(archive: Path) -> Sequence[Path]:
    members = [member for member in list_archive(archive) if member.path.suffix.lower() in SCENE_SUFFIXES]
    for member in members:
        if member.problem is not None:
            raise RasterError(f"{shown(member.path)}: {member.problem}; unpack {archive} and name the folder")
    scenes = [member.path for member in sorted(members, key=lambda member: member.place)]
    if not scenes:
        raise InputNotFoundError(
            f"{archive}: no rasters found; expected files ending in {', '.join(sorted(SCENE_SUFFIXES))}"
        )
    return scenes


def own_product(tags: Mapping[str, str]) -> str | None:
    """Return what ctrs wrote, by the tags of a raster; None where it is not from ctrs.

    >>> own_product({"CTRS_CLASSES": "[]"})
    'a mask'
    """
    return next((product for tag, product in _OWN_TAGS.items() if tag in tags), None)


def _is_own(path: Path) -> bool:
    """Tell whether a file is a mask, confidence, probabilities, error map or figure that ctrs wrote."""
    if path.suffix.lower() == ".png":
        return is_own_png(path)
    if path.suffix.lower() not in _GEOTIFF_SUFFIXES:
        return False
    if not path.stem.endswith(_OWN_SUFFIXES):
        try:
            with path.open("rb") as stream:
                head = stream.read(_HEAD_BYTES)
        except OSError:
            return False
        if not any(tag.encode() in head for tag in _OWN_TAGS):
            return False
    try:
        with open_raster(path) as dataset:
            return own_product(dataset.tags()) is not None
    except RasterError:
        return False
