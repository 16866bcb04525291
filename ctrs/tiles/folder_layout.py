"""The scenes of any folder or archive with images and labels, paired by their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ctrs.config import LabelKind, PrepareConfig, SplitName
from ctrs.errors import DataError, LabelError
from ctrs.raster.names import file_name, shown
from ctrs.tiles.findings import Findings
from ctrs.tiles.listing import FoundFile, Listing, natural_key
from ctrs.tiles.pairing import IMAGE_MARKS, LABEL_MARKS, LabelIndex, strip_mark
from ctrs.tiles.preset_layout import report_unlabelled, report_unused
from ctrs.tiles.scene_source import Layout, SceneSource

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "scenes", "scene", "chips", "rgb")
LABEL_FOLDERS = ("labels", "label", "masks", "mask", "gt", "annotations", "chip_masks", "scene_masks")
SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Images and labels that belong together, not yet paired.

    Args:
        images: The images.
        labels: The labels.
        image_root: Folder below which the images lie.
        label_root: Folder below which the labels lie.
        split: Split of the folder.
    """

    images: tuple[FoundFile, ...]
    labels: tuple[FoundFile, ...]
    image_root: PurePosixPath
    label_root: PurePosixPath
    split: SplitName | None = None


def folder_layout(listing: Listing, config: PrepareConfig, findings: Findings) -> Layout:
    """Pair the images and labels of a source by their names.

    Args:
        listing: What lies in the source.
        config: Options.
        findings: Takes what is missing or left over.

    Raises:
        InputNotFoundError: There are no images.
        DataError: The folder can be read in several ways.
    """
    scenes: list[SceneSource] = []
    for gathered in gather(listing, config.label_kind, findings):
        scenes += _pair(gathered, listing, findings)
    return Layout(root=listing.root, scenes=unique_names(scenes), preset=None)


def gather(listing: Listing, kind: LabelKind, findings: Findings, *, images_only: bool = False) -> list[Gathered]:
    """Tell images from labels, in each split's folder or in the whole source.

    Args:
        listing: What lies in the source.
        kind: Kind of the labels.
        findings: Raised where there are no images.
        images_only: The labels are known; folders of labels are not looked for.

    Raises:
        InputNotFoundError: There are no images.
        DataError: The folder can be read in several ways.
    """
    base = _base(listing)
    parts: list[tuple[PurePosixPath, SplitName | None]] = [
        (place, SPLIT_FOLDERS[name]) for name, place in listing.subfolders(base).items() if name in SPLIT_FOLDERS
    ]
    return [
        _gather_folder(listing, folder, kind, split, findings, images_only=images_only)
        for folder, split in parts or [(base, None)]
    ]


def unique_names(scenes: Sequence[SceneSource]) -> tuple[SceneSource, ...]:
    """Return scenes in natural order; where splits have scenes of one name, the split begins it.

    Raises:
        DataError: Two scenes of one split have the same name.
    """
    twice = {name for name, number in Counter(scene.name for scene in scenes).items() if number > 1}
    unique = [
        replace(scene, name=f"{scene.split}_{scene.name}", aliases=(*scene.aliases, scene.name))
        if scene.name in twice
        else scene
        for scene in scenes
    ]
    counted: dict[str, Path] = {}
    for scene in unique:
        if scene.name in counted:
            raise DataError(
                f"{shown(scene.image)}: the same name as {shown(counted[scene.name])}; rename one of the two"
            )
        counted[scene.name] = scene.image
    return tuple(sorted(unique, key=lambda scene: natural_key(scene.name)))


def pair_by_name(
    images: Sequence[FoundFile],
    labels: Sequence[FoundFile],
    image_root: PurePosixPath,
    label_root: PurePosixPath,
    findings: Findings,
) -> tuple[dict[Path, Path], dict[Path, list[Path]]]:
    """Return the label of each image that has one; a single vector file that names no image serves all.

    Images for which several labels fit equally well are a fault; they are returned with the candidates.

    Args:
        images: The images.
        labels: The candidates.
        image_root: Folder of the images: one in a subfolder is paired with labels in the same subfolder.
        label_root: Folder of the labels.
        findings: Takes images for which several labels fit.
    """
    by_folder: dict[PurePosixPath, list[Path]] = {}
    for label in labels:
        by_folder.setdefault(label.place.parent.relative_to(label_root), []).append(label.path)
    indices = {folder: LabelIndex(paths) for folder, paths in by_folder.items()}
    nothing = LabelIndex([])
    found: dict[Path, Path] = {}
    unclear: dict[Path, list[Path]] = {}
    for image in images:
        relative = image.place.parent.relative_to(image_root)
        index = indices.get(relative, indices.get(PurePosixPath(), nothing))
        try:
            match = index.find(image.path)
        except LabelError as error:
            findings.fault("files", error)
            unclear[image.path] = list(index.labels)
            continue
        if match is not None:
            found[image.path] = match
    if not found and not unclear and len(labels) == 1 and labels[0].is_vector:
        found = {image.path: labels[0].path for image in images}
    return found, unclear


def tell_apart(
    images: Sequence[FoundFile], files: Sequence[FoundFile], kind: LabelKind
) -> tuple[list[FoundFile], list[FoundFile]]:
    """Tell labels from images side by side: vectors, rasters marked as labels, lossless files beside a JPEG."""
    vectors = [file for file in files if file.is_vector and file.place.suffix.lower() != ".json"]
    if kind == "polygons":
        return list(images), vectors
    stems = {file: file_name(file.path).stem for file in images}
    cores = {strip_mark(stem, IMAGE_MARKS) for stem in stems.values()} | set(stems.values())
    marked = [file for file, stem in stems.items() if strip_mark(stem, LABEL_MARKS) != stem]
    marked = [file for file in marked if strip_mark(stems[file], LABEL_MARKS) in cores]
    jpegs = {stem for file, stem in stems.items() if _is_jpeg(file)}
    taken = set(marked)
    twins = [file for file, stem in stems.items() if stem in jpegs and not _is_jpeg(file) and file not in taken]
    marked += twins
    taken.update(twins)
    rest = [file for file in images if file not in taken]
    return rest, marked if kind in ("values", "colors") else [*marked, *vectors]


def is_label(file: FoundFile, kind: LabelKind) -> bool:
    """Tell whether a file's name is that of a label of a kind."""
    if kind == "polygons":
        return file.is_vector
    if kind == "auto":
        return file.is_vector or file.is_raster
    return file.is_raster


def scene_name(image: FoundFile, image_root: PurePosixPath) -> tuple[str, SplitName | None]:
    """Return the name of an image's scene, and the split that a folder below the images gives it."""
    parts = list(image.place.parent.relative_to(image_root).parts)
    split = SPLIT_FOLDERS.get(parts[0].lower()) if parts else None
    return "_".join([*(parts[1:] if split else parts), file_name(image.path).stem]), split


def _base(listing: Listing) -> PurePosixPath:
    """Return the folder that holds all: the source, or the only folder in it, and in that."""
    known = {*IMAGE_FOLDERS, *LABEL_FOLDERS, *SPLIT_FOLDERS}
    base = PurePosixPath()
    while True:
        used = [
            file.place.relative_to(base).parts
            for file in listing.files
            if (file.is_raster or file.is_vector) and file.place.is_relative_to(base)
        ]
        tops = {parts[0] for parts in used}
        deeper = all(len(parts) > 1 for parts in used)
        if len(tops) != 1 or not deeper or known & set(listing.subfolders(base)):
            return base
        base /= tops.pop()


def _gather_folder(
    listing: Listing,
    folder: PurePosixPath,
    kind: LabelKind,
    split: SplitName | None,
    findings: Findings,
    *,
    images_only: bool,
) -> Gathered:
    """Tell images from labels in one folder: in subfolders of known names, or side by side."""
    files = [file for file in listing.files if file.place.is_relative_to(folder)]
    image_folder = _subfolder(listing, folder, IMAGE_FOLDERS, "images")
    own_labels = None if images_only else _subfolder(listing, folder, LABEL_FOLDERS, "labels")
    if image_folder is not None:
        images = [file for file in files if file.place.is_relative_to(image_folder) and file.is_raster]
    else:
        images = [file for file in files if file.place.parent == folder and file.is_raster]
    if own_labels is not None:
        labels = [file for file in files if file.place.is_relative_to(own_labels) and is_label(file, kind)]
    elif image_folder is not None:
        labels = [file for file in files if file.place.parent == folder and is_label(file, kind)]
        labels = [file for file in labels if file.place.suffix.lower() != ".json"]
        if not labels:
            images, labels = tell_apart(images, [file for file in files if file.place.parent == image_folder], kind)
    else:
        images, labels = tell_apart(images, [file for file in files if file.place.parent == folder], kind)
    image_root = image_folder or folder
    if not images:
        findings.raise_faults()
        raise listing.nothing_found(listing.folder(image_root))
    label_root = own_labels or (labels[0].place.parent if labels else folder)
    return Gathered(
        images=tuple(images), labels=tuple(labels), image_root=image_root, label_root=label_root, split=split
    )


def _pair(gathered: Gathered, listing: Listing, findings: Findings) -> list[SceneSource]:
    """Pair the images and labels of one folder."""
    label_of, unclear = pair_by_name(
        gathered.images, gathered.labels, gathered.image_root, gathered.label_root, findings
    )
    missing = [file.path for file in gathered.images if file.path not in label_of and file.path not in unclear]
    report_unlabelled(missing, f"looked for the same stem in {listing.folder(gathered.label_root)}", findings)
    used = {*label_of.values(), *(path for paths in unclear.values() for path in paths)}
    report_unused([file.path for file in gathered.labels if file.path not in used], findings)
    scenes = []
    for image in gathered.images:
        if image.path not in label_of:
            continue
        name, own = scene_name(image, gathered.image_root)
        split = own or gathered.split or "train"
        scenes.append(SceneSource(name=name, split=split, image=image.path, label=label_of[image.path]))
    return scenes


def _subfolder(listing: Listing, folder: PurePosixPath, names: Sequence[str], wanted: str) -> PurePosixPath | None:
    """Return the subfolder of the documented name, or the only one of similar names."""
    here: Mapping[str, PurePosixPath] = listing.subfolders(folder)
    if wanted in here:
        return here[wanted]
    found = [here[name] for name in names if name in here]
    if len(found) > 1:
        listed = " and ".join(f"{entry.name}/" for entry in found)
        raise DataError(
            f"{listing.folder(folder)}: both {listed} found; rename the one that holds the {wanted} to {wanted}/, or "
            f"name them with --{wanted}"
        )
    return found[0] if found else None


def _is_jpeg(file: FoundFile) -> bool:
    return file.place.suffix.lower() in {".jpg", ".jpeg"}
