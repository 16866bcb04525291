"""Where the scenes and labels of a source lie, and which split each scene belongs to."""

from __future__ import annotations

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ctrs.config import LabelKind, PrepareConfig, SplitName
from ctrs.errors import DataError, InputNotFoundError, LabelError, LabelWarning, UsageError
from ctrs.tiles.findings import Findings
from ctrs.tiles.pairing import IMAGE_MARKS, LABEL_MARKS, find_label, strip_mark
from ctrs.tiles.presets import Preset, load_preset, path_id, recognise
from ctrs.vector.rasterize import VECTOR_SUFFIXES

CLASS_FILE = "classes.toml"

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".vrt", ".img", ".webp", ".bmp"})
"""File name endings that are read as images or raster labels."""

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "scenes", "scene", "chips", "rgb")
LABEL_FOLDERS = ("labels", "label", "masks", "mask", "gt", "annotations", "chip_masks", "scene_masks")
SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip

_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class SceneSource:
    """A scene and its labels as found.

    Args:
        name: Unique name.
        split: Split by the benchmark, the folders or the options.
        image: The image.
        label: Raster or vector label.
        label_eroded: Raster label with eroded class borders.
        known_bad: Its labels are known to be wrong.
        aliases: Further names by which options may call it.
        extra: Further files of the scene that become bands, by name, in the order of the bands.
        image_parts: Files that ``image`` is a mosaic of; empty where it is a file itself.
        label_parts: Files that ``label`` is a mosaic of.
    """

    name: str
    split: SplitName
    image: Path
    label: Path
    label_eroded: Path | None = None
    known_bad: bool = False
    aliases: tuple[str, ...] = ()
    extra: Mapping[str, Path] = field(default_factory=dict, hash=False)
    image_parts: tuple[Path, ...] = ()
    label_parts: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A source with its scenes.

    Args:
        root: The source folder.
        scenes: In natural order of names.
        preset: The preset that it follows, None for other folders.
        band_names: Names of the bands by the preset, empty to take the files' own.
        class_file: TOML file with the class table, None for the preset's or none.
    """

    root: Path
    scenes: tuple[SceneSource, ...]
    preset: Preset | None
    band_names: tuple[str, ...] = ()
    class_file: Path | None = None


def find_layout(source: Path, config: PrepareConfig, findings: Findings, *, exclude: Path | None = None) -> Layout:
    """Find the scenes of a source.

    Args:
        source: A folder.
        config: Options: preset, classes, kind of labels, splits.
        findings: Takes warnings and notes.
        exclude: A folder below the source to leave alone (the output).

    Raises:
        InputNotFoundError: There is no such folder, or no image in it.
        LabelError: An image has no label, or several.
        DataError: The folder can be read in several ways.
    """
    if not source.exists():
        raise InputNotFoundError(f"{source}: not found; name a folder with images and labels")
    if not source.is_dir():
        advice = "unzip it and name the folder" if source.suffix.lower() == ".zip" else "name the folder that holds it"
        raise DataError(f"{source}: is a file, expected a folder with images and labels; {advice}")
    files = list_files(source, exclude=exclude)
    paths = [path.relative_to(source).as_posix() for path in files]
    preset = recognise(paths) if config.preset is None else load_preset(config.preset)
    layout = (
        _preset_layout(source, files, preset, findings)
        if preset
        else _generic_layout(source, files, config.label_kind, findings)
    )
    if config.classes is not None and not config.classes.is_file():
        raise InputNotFoundError(f"{config.classes}: not found; name a TOML file with [[class]] tables")
    own_classes = source / CLASS_FILE
    class_file = config.classes or (own_classes if own_classes.is_file() else None)
    scenes = _choose_splits(layout.scenes, config, source)
    return replace(layout, scenes=scenes, class_file=class_file)


def list_files(source: Path, *, exclude: Path | None = None) -> list[Path]:
    """Return the files below a folder in natural order; links are followed, hidden and prepared folders left out."""
    found: list[Path] = []
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(source, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or (exclude is not None and real == os.path.realpath(exclude)) or "prepared.json" in names:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda path: natural_key(path.as_posix()))


def natural_key(text: str) -> list[tuple[int, str]]:
    """Return a sort key by which ``area2`` comes before ``area10``.

    >>> sorted(["area10", "area2"], key=natural_key)
    ['area2', 'area10']
    """
    parts = re.split(r"(\d+)", text)
    return [(int(part), "") if number % 2 else (-1, part) for number, part in enumerate(parts)]


def _preset_layout(source: Path, files: Sequence[Path], preset: Preset, findings: Findings) -> Layout:
    """Pair images and labels by the ids that the preset's patterns find."""
    relative = {path.relative_to(source).as_posix(): path for path in files}
    image_pattern = preset.image_pattern(relative)
    if image_pattern is None:
        expected = " or ".join(pattern.pattern.pattern for pattern in preset.images)
        raise InputNotFoundError(f"{source}: no images of preset {preset.name} found, expected paths like {expected}")
    images: dict[str, Path] = {}
    splits: dict[str, SplitName] = {}
    for text, path in relative.items():
        match = image_pattern.pattern.fullmatch(text)
        if match is None:
            continue
        identifier = path_id(match)
        if identifier in images:
            raise DataError(f"{path}: the same scene {identifier} as {images[identifier]}; keep one of the two")
        images[identifier] = path
        folder = match.groupdict().get("split")
        splits[identifier] = preset.split_ids.get(identifier) or preset.split_folders.get(folder or "", "train")
    labels = _first_matches(relative, preset.label_patterns)
    eroded = _first_matches(relative, preset.eroded_patterns)
    missing = [identifier for identifier in images if identifier not in labels]
    left_out = {identifier for identifier in missing if splits[identifier] in preset.unlabelled}
    _require_labels([images[identifier] for identifier in missing if identifier not in left_out], preset.name)
    if left_out:
        findings.note(
            "files", f"{len(left_out)} images of the {preset.name} test split left out: its labels are not published"
        )
    strange = sorted(set(images) - set(preset.split_ids)) if preset.split_ids and not preset.split_folders else []
    if strange:
        findings.warn(
            "splits",
            f"{source}: scenes {', '.join(strange[:_SHOWN])} are not in the official split of {preset.name}; "
            "they are taken for training (choose with --val and --test)",
        )
    known_bad = sorted((set(images) & preset.known_bad) - left_out, key=natural_key)
    for identifier in known_bad:
        name = f"{preset.name}_{identifier}"
        findings.note("files", f"scene {name}: labels are known to be wrong", scene=name)
    scenes = tuple(
        SceneSource(
            name=f"{preset.name}_{identifier}",
            split=splits[identifier],
            image=image,
            label=labels[identifier],
            label_eroded=eroded.get(identifier),
            known_bad=identifier in preset.known_bad,
            aliases=(identifier, image.stem),
        )
        for identifier, image in sorted(images.items(), key=lambda item: natural_key(item[0]))
        if identifier in labels
    )
    return Layout(
        root=source,
        scenes=scenes,
        preset=preset,
        band_names=image_pattern.bands,
    )


def _first_matches(relative: dict[str, Path], patterns: Iterable[re.Pattern[str]]) -> dict[str, Path]:
    """Return the file of each id; earlier patterns win."""
    found: dict[str, Path] = {}
    for pattern in patterns:
        for text, path in relative.items():
            match = pattern.fullmatch(text)
            if match is not None:
                found.setdefault(path_id(match), path)
    return found


def _generic_layout(source: Path, files: Sequence[Path], kind: LabelKind, findings: Findings) -> Layout:
    """Pair images and labels of a folder by stem."""
    parts: list[tuple[Path, SplitName | None]] = [
        (source / entry.name, SPLIT_FOLDERS[entry.name.lower()])
        for entry in sorted(source.iterdir())
        if entry.is_dir() and entry.name.lower() in SPLIT_FOLDERS
    ]
    scenes: list[SceneSource] = []
    for folder, split in parts or [(source, None)]:
        inside = [path for path in files if path.is_relative_to(folder)]
        scenes += _pair_folder(folder, inside, kind, split, findings)
    twice = {name for name, number in Counter(scene.name for scene in scenes).items() if number > 1}
    unique = [
        replace(scene, name=f"{scene.split}_{scene.name}", aliases=(scene.name,)) if scene.name in twice else scene
        for scene in scenes
    ]
    counted: dict[str, Path] = {}
    for scene in unique:
        if scene.name in counted:
            raise DataError(f"{scene.image}: the same name as {counted[scene.name]}; rename one of the two")
        counted[scene.name] = scene.image
    return Layout(root=source, scenes=tuple(sorted(unique, key=lambda scene: natural_key(scene.name))), preset=None)


def _pair_folder(
    folder: Path, files: Sequence[Path], kind: LabelKind, split: SplitName | None, findings: Findings
) -> list[SceneSource]:
    """Pair the images and labels of one folder: in subfolders of known names, or side by side."""
    image_folder = _subfolder(folder, IMAGE_FOLDERS, "images")
    label_folder = _subfolder(folder, LABEL_FOLDERS, "labels")
    if image_folder is not None:
        images = [path for path in files if path.is_relative_to(image_folder) and _is_raster(path)]
    else:
        images = [path for path in files if path.parent == folder and _is_raster(path)]
    if label_folder is not None:
        labels = [path for path in files if path.is_relative_to(label_folder) and _is_label(path, kind)]
    elif image_folder is not None:
        labels = [path for path in files if path.parent == folder and _is_label(path, kind) and path.suffix != ".json"]
        if not labels:
            images, labels = _side_by_side(images, [path for path in files if path.parent == image_folder], kind)
    else:
        images, labels = _side_by_side(images, [path for path in files if path.parent == folder], kind)
    if not images:
        where = image_folder or folder
        zipped = any(path.suffix.lower() == ".zip" for path in files)
        raise InputNotFoundError(
            f"{where}: no images found; "
            + ("unzip the archives there first" if zipped else "put them into images/ and their labels into labels/")
        )
    image_root, label_root = image_folder or folder, label_folder or (labels[0].parent if labels else folder)
    label_of = _pair_by_name(images, labels, image_root, label_root)
    _require_labels([image for image in images if image not in label_of], None, looked_in=label_root)
    unused = sorted(set(labels) - set(label_of.values()))
    if unused:
        findings.warn(
            "files",
            f"{label_root}: {len(unused)} labels have no image and are left out, first {unused[0].name}",
            LabelWarning,
        )
    scenes = []
    for image in images:
        parts = list(image.parent.relative_to(image_root).parts)
        own = SPLIT_FOLDERS.get(parts[0].lower()) if parts else None
        name = "_".join([*(parts[1:] if own else parts), image.stem])
        scenes.append(SceneSource(name=name, split=own or split or "train", image=image, label=label_of[image]))
    return scenes


def _pair_by_name(
    images: Sequence[Path], labels: Sequence[Path], image_root: Path, label_root: Path
) -> dict[Path, Path]:
    """Return the label of each image that has one; a single vector file that names no image serves all."""
    by_folder: dict[Path, list[Path]] = {}
    for label in labels:
        by_folder.setdefault(label.parent.relative_to(label_root), []).append(label)
    found: dict[Path, Path] = {}
    for image in images:
        relative = image.parent.relative_to(image_root)
        match = find_label(image, by_folder.get(relative, by_folder.get(Path(), [])))
        if match is not None:
            found[image] = match
    if not found and len(labels) == 1 and _is_vector(labels[0]):
        return dict.fromkeys(images, labels[0])
    return found


def _side_by_side(images: Sequence[Path], files: Sequence[Path], kind: LabelKind) -> tuple[list[Path], list[Path]]:
    """Tell labels from images in one folder: vectors, rasters marked as labels, lossless files beside a JPEG."""
    vectors = [path for path in files if _is_vector(path) and path.suffix.lower() != ".json"]
    if kind == "polygons":
        return list(images), vectors
    cores = {strip_mark(path.stem, IMAGE_MARKS) for path in images} | {path.stem for path in images}
    marked = [path for path in images if strip_mark(path.stem, LABEL_MARKS) != path.stem]
    marked = [path for path in marked if strip_mark(path.stem, LABEL_MARKS) in cores]
    jpegs = {path.stem for path in images if path.suffix.lower() in {".jpg", ".jpeg"}}
    marked += [
        path
        for path in images
        if path.stem in jpegs and path.suffix.lower() not in {".jpg", ".jpeg"} and path not in marked
    ]
    rest = [path for path in images if path not in marked]
    return rest, marked if kind in ("values", "colors") else [*marked, *vectors]


def _subfolder(folder: Path, names: Sequence[str], wanted: str) -> Path | None:
    """Return the subfolder of the documented name, or the only one of similar names."""
    here = {entry.name.lower(): entry for entry in sorted(folder.iterdir()) if entry.is_dir()}
    if wanted in here:
        return here[wanted]
    found = [here[name] for name in names if name in here]
    if len(found) > 1:
        listed = " and ".join(f"{entry.name}/" for entry in found)
        raise DataError(f"{folder}: both {listed} found; rename the one that holds the {wanted} to {wanted}/")
    return found[0] if found else None


def _require_labels(images: Sequence[Path], preset: str | None, *, looked_in: Path | None = None) -> None:
    if not images:
        return
    names = ", ".join(path.name for path in images[:_SHOWN])
    more = f" and {len(images) - _SHOWN} more" if len(images) > _SHOWN else ""
    where = f"expected where preset {preset} has them" if preset else f"looked for the same stem in {looked_in}"
    noun = "image" if len(images) == 1 else "images"
    raise LabelError(
        f"{images[0].parent}: {len(images)} {noun} without a label: {names}{more}; {where}; "
        "add the labels, or move these images elsewhere"
    )


def _choose_splits(scenes: Sequence[SceneSource], config: PrepareConfig, source: Path) -> tuple[SceneSource, ...]:
    """Apply the glob patterns of the options; a split chosen by patterns holds what they match and nothing else."""
    if not (config.val or config.test):
        return tuple(scenes)
    for option, patterns in (("--val", config.val), ("--test", config.test)):
        for pattern in patterns:
            if not any(_matches(scene, (pattern,)) for scene in scenes):
                known = ", ".join(scene.name for scene in scenes[:_SHOWN])
                more = f" and {len(scenes) - _SHOWN} more" if len(scenes) > _SHOWN else ""
                raise UsageError(f"{option} {pattern!r} matches no scene of {source}; scenes: {known}{more}")
    chosen: list[SceneSource] = []
    for scene in scenes:
        in_val, in_test = _matches(scene, config.val), _matches(scene, config.test)
        if in_val and in_test:
            raise UsageError(f"scene {scene.name} matches both --val and --test; make the patterns exclude each other")
        split = scene.split
        if (config.val and split == "val") or (config.test and split == "test"):
            split = "train"
        chosen.append(replace(scene, split="val" if in_val else "test" if in_test else split))
    return tuple(chosen)


def _matches(scene: SceneSource, patterns: Sequence[str]) -> bool:
    names = (scene.name, *scene.aliases)
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _is_raster(path: Path) -> bool:
    return path.suffix.lower() in RASTER_SUFFIXES


def _is_vector(path: Path) -> bool:
    return path.suffix.lower() in VECTOR_SUFFIXES


def _is_label(path: Path, kind: LabelKind) -> bool:
    if kind == "polygons":
        return _is_vector(path)
    if kind == "auto":
        return _is_vector(path) or _is_raster(path)
    return _is_raster(path)
