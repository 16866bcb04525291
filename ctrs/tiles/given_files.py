"""Images and labels that the options name: patterns, single files, folders, URLs, names of GDAL's."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ctrs.config import PrepareConfig
from ctrs.errors import InputNotFoundError
from ctrs.raster.names import file_name, is_virtual, shown, source_path, split_layer, with_layer
from ctrs.tiles.findings import Findings
from ctrs.tiles.folder_layout import (
    IMAGE_FOLDERS,
    LABEL_FOLDERS,
    gather,
    is_label,
    pair_by_name,
    scene_name,
    tell_apart,
    unique_names,
)
from ctrs.tiles.listing import (
    FoundFile,
    Listing,
    list_entries,
    list_files,
    list_source,
    natural_key,
    require_source,
    unreadable,
)
from ctrs.tiles.preset_files import find_preset_files
from ctrs.tiles.preset_layout import report_unlabelled, report_unused
from ctrs.tiles.presets import Preset
from ctrs.tiles.scene_mosaic import mosaic_scene, note_no_eroded
from ctrs.tiles.scene_source import Layout, SceneSource

_MAGIC = re.compile(r"[*?\[]")

_SIDECARS = frozenset(
    {".tfw", ".tifw", ".pgw", ".jgw", ".j2w", ".wld", ".xml", ".ovr", ".msk", ".prj", ".dbf", ".shx", ".cpg", ".qix",
     ".sbn", ".sbx", ".txt", ".md", ".pdf", ".zip"}
)  # fmt: skip
"""Endings of files that a pattern also matches and that are neither images nor labels."""


def given_layout(
    source: Path, preset: Preset | None, config: PrepareConfig, findings: Findings, *, exclude: Path | None
) -> Layout:
    """Find what ``--images`` and ``--labels`` name, and pair it; what only one of them names is found by layout.

    Args:
        source: Folder or zip archive that relative names refer to.
        preset: Preset that gives classes, band names and splits; None for none.
        config: Options.
        findings: Takes what is missing or left over.
        exclude: A folder to leave alone (the output).

    Raises:
        InputNotFoundError: A name or pattern finds nothing.
        RasterError: Parts of a mosaic do not fit together.
    """
    require_source(source)
    search = _Search(source, findings, exclude)
    labels = search.find("--labels", config.labels)
    if config.images:
        own = {file.path for file in labels}
        images = [file for file in search.find("--images", config.images) if file.path not in own]
    else:
        images = _images_by_layout(search.listing, labels, preset, config, findings)
    known = find_preset_files(images, preset, lambda: search.listing, config, findings)
    own_labels = {} if config.labels else {file.path: path for file in images if (path := known.label(file.path))}
    if not config.labels:
        labels = _labels_by_layout([file for file in images if file.path not in own_labels], config)
    if config.mosaic:
        parts = [*own_labels.values(), *(file.path for file in labels)]
        paths = [file.path for file in images]
        scene = mosaic_scene(
            source,
            paths,
            parts,
            findings,
            name=_mosaic_name(images) if source == Path() else None,
            bidx=config.bidx,
            names=known.band_names,
        )
        if known.eroded:
            note_no_eroded(findings)
        return Layout(root=source, scenes=(scene,), preset=preset, band_names=known.band_names)
    image_root = _common_folder(images)
    others = [file for file in images if file.path not in own_labels]
    label_of, unclear = _pair(others, labels, image_root, findings) if others else ({}, {})
    label_of |= own_labels
    missing = [file.path for file in images if file.path not in label_of and file.path not in unclear]
    where = ", ".join(config.labels) if config.labels else "folders of labels beside the images"
    looked = f"looked for the same stem in {where} (choose with --labels)"
    if known.found and not config.labels and preset is not None:
        looked = f"expected where preset {preset.name} has them below {source}; {looked}"
    report_unlabelled(missing, looked, findings)
    used = {*label_of.values(), *(path for paths in unclear.values() for path in paths)}
    if config.labels and label_of:
        report_unused([file.path for file in labels if file.path not in used], findings)
    places = {file.path: file.place for file in labels}
    scenes: list[SceneSource] = []
    for file in images:
        if file.path in label_of:
            label = label_of[file.path]
            place = places.get(label, PurePosixPath(shown(label)))
            scenes.append(known.scene(file.path, label, place) or _scene(file, label, image_root))
    known.report_left_out(scenes, findings)
    return Layout(root=source, scenes=unique_names(scenes), preset=preset, band_names=known.band_names)


class _Search:
    """Looks for what options name, below the source and, where nothing is there, below the current folder."""

    def __init__(self, source: Path, findings: Findings, exclude: Path | None) -> None:
        self._source = source
        self._findings = findings
        self._exclude = exclude
        self._listing: Listing | None = None

    @property
    def listing(self) -> Listing:
        """All that lies in the source; looked for when first asked."""
        if self._listing is None:
            self._listing = list_source(self._source, self._findings, exclude=self._exclude)
        return self._listing

    def find(self, option: str, texts: Iterable[str]) -> list[FoundFile]:
        """Return the files that an option names, each once."""
        found: dict[Path, FoundFile] = {}
        for text in texts:
            layer = split_layer(Path(text))[1]
            pattern = text if layer is None else text[: text.index(f"|layername={layer}")]
            files = [replace(file, path=with_layer(file.path, layer)) for file in self._files(pattern)]
            if _MAGIC.search(text) or len(files) > 1:
                files = _wanted(files, vectors=option == "--labels")
            if not files:
                self._findings.raise_faults()
                raise InputNotFoundError(
                    f"{option} {text!r}: matches no file below {self._source}; check the pattern (** stands for any "
                    "folders), or give a path or URL"
                )
            found.update((file.path, file) for file in files)
        return list(found.values())

    def _files(self, text: str) -> list[FoundFile]:
        path = source_path(text)
        if is_virtual(path):
            return [FoundFile(path=path, place=PurePosixPath(file_name(path)))]
        bases = [self._source] if self._source.is_dir() else []
        bases += [base for base in [Path()] if not path.is_absolute()]
        for base in bases or [Path()]:
            try:
                files = self._below(base, path)
            except PermissionError as error:
                raise unreadable([Path(error.filename or base / path)], error) from error
            if files:
                return [FoundFile(path=file, place=self._place(file)) for file in files]
        if ":" in text[2:] and not _MAGIC.search(text):  # NETCDF:"x.nc":band, GPKG:x.gpkg:layer
            return [FoundFile(path=path, place=PurePosixPath(path.name))]
        if path.is_absolute():
            return []
        return self._in_archives(text)

    def _below(self, base: Path, path: Path) -> list[Path]:
        """Return the files that a path or pattern finds below a folder."""
        whole = base / path
        if whole.is_file():
            return [whole]
        if whole.is_dir():
            return [file.path for file in list_source(whole, self._findings, exclude=self._exclude).files]
        parts = path.parts
        plain = next((number for number, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
        folder, pattern = base.joinpath(*parts[:plain]), "/".join(parts[plain:])
        if not pattern or not folder.is_dir():
            return []
        if "**" not in pattern:
            _require_readable(folder, pattern)
            names = sorted(glob.glob(pattern, root_dir=folder), key=natural_key)  # noqa: PTH207 (keeps hidden ones out)
            return [folder / name for name in names if (folder / name).is_file()]
        matches = glob_pattern(pattern).fullmatch
        files = list_files(folder, exclude=self._exclude)
        return [file for file in files if matches(file.relative_to(folder).as_posix())]

    def _in_archives(self, text: str) -> list[FoundFile]:
        """Return the members of archives whose places a pattern matches, with or without the source archive's name."""
        matches = glob_pattern(text.removeprefix("./")).fullmatch
        inside = self._source.stem + "/" if self._source.is_file() else ""
        return [
            file
            for file in self.listing.files
            if matches(file.place.as_posix()) or matches(file.place.as_posix().removeprefix(inside))
        ]

    def _place(self, path: Path) -> PurePosixPath:
        if is_virtual(path):
            return PurePosixPath(file_name(path))
        if path.is_relative_to(self._source):
            return PurePosixPath(path.relative_to(self._source).as_posix())
        return PurePosixPath(*path.absolute().parts[1:])  # below the root, as others are below the source


def glob_pattern(text: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern in which ``**`` stands for any folders.

    >>> expression = glob_pattern("**/x_*.tif")
    >>> [bool(expression.fullmatch(name)) for name in ("x_1.tif", "a/b/x_1.tif", "x_1/b.tif")]
    [True, True, False]
    """
    out = ""
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", text):
        if token == "**/":
            out += "(?:[^/]+/)*"
        elif token == "**":
            out += ".*"
        elif token in "*?":
            out += "[^/]" + ("*" if token == "*" else "")
        elif len(token) > 1:
            body = token[1:-1].replace("\\", r"\\")
            out += f"[^{body[1:]}]" if body.startswith("!") else f"[{body}]"
        else:
            out += re.escape(token)
    return re.compile(out)


def _require_readable(folder: Path, pattern: str) -> None:
    """Refuse folders that a pattern goes through and that may not be looked into: a glob leaves them out silently.

    Raises:
        PermissionError: The first of them.
    """
    *folders, last = pattern.split("/")
    for number, part in enumerate([*folders, last]):
        if not _MAGIC.search(part):
            continue
        names = glob.glob("/".join(folders[:number]), root_dir=folder) if number else [""]  # noqa: PTH207
        for name in names:
            if (folder / name).is_dir():
                os.scandir(folder / name).close()


def _wanted(files: Sequence[FoundFile], *, vectors: bool) -> list[FoundFile]:
    """Return what a pattern is meant to find: images and labels of known endings, else all but sidecars."""
    known = [file for file in files if file.is_raster or (vectors and file.is_vector)]
    return known or [file for file in files if file.place.suffix.lower() not in _SIDECARS]


def _images_by_layout(
    listing: Listing,
    labels: Sequence[FoundFile],
    preset: Preset | None,
    config: PrepareConfig,
    findings: Findings,
) -> list[FoundFile]:
    """Return the images of a source whose labels are named."""
    own = {file.path for file in labels}
    if preset is not None:
        pattern = preset.image_pattern(file.place.as_posix() for file in listing.files)
        found = [file for file in listing.files if pattern and pattern.pattern.fullmatch(file.place.as_posix())]
    else:
        parts = gather(listing, config.label_kind, findings, images_only=True)
        found = [file for part in parts for file in part.images]
    images = [file for file in found if file.path not in own]
    if not images:
        findings.raise_faults()
        raise listing.nothing_found(str(listing.root))
    return images


def _labels_by_layout(images: Sequence[FoundFile], config: PrepareConfig) -> list[FoundFile]:
    """Return what may be labels of images whose labels are not named: beside them and in folders of labels."""
    own = {file.path for file in images}
    found: dict[Path, FoundFile] = {}
    for folder in dict.fromkeys(file.path.parent for file in images if not is_virtual(file.path)):
        entries = list_entries(folder)
        beside = [FoundFile(path=path, place=PurePosixPath(path.name)) for path in entries if path.is_file()]
        rasters = [file for file in beside if file.is_raster]
        _, labels = tell_apart(rasters, beside, config.label_kind)
        for near in (folder, folder.parent):
            for entry in list_entries(near):
                if entry.is_dir() and entry.name.lower() in LABEL_FOLDERS:
                    files = [FoundFile(path=path, place=PurePosixPath(path.name)) for path in list_files(entry)]
                    labels += [file for file in files if is_label(file, config.label_kind)]
        found.update((file.path, file) for file in labels if file.path not in own)
    return list(found.values())


def _pair(
    images: Sequence[FoundFile], labels: Sequence[FoundFile], image_root: PurePosixPath, findings: Findings
) -> tuple[dict[Path, Path], dict[Path, list[Path]]]:
    """Return the label of each image: a single vector file is that of all, a single raster that of a single image."""
    if len(labels) == 1 and (labels[0].is_vector or len(images) == 1):
        return {file.path: labels[0].path for file in images}, {}
    label_root = _common_folder(labels)
    folders = {file.place.parent.relative_to(label_root) for file in labels}
    if not {file.place.parent.relative_to(image_root) for file in images} <= folders:
        labels = [FoundFile(path=file.path, place=PurePosixPath(file.place.name)) for file in labels]
        label_root = PurePosixPath()
    return pair_by_name(images, labels, image_root, label_root, findings)


def _common_folder(files: Sequence[FoundFile]) -> PurePosixPath:
    """Return the folder that holds all files."""
    folders = [file.place.parent for file in files]
    common = folders[0] if folders else PurePosixPath()
    while not all(folder.is_relative_to(common) for folder in folders):
        common = common.parent
    return common


def _mosaic_name(images: Sequence[FoundFile]) -> str:
    """Return the name of the folder of the parts, that of the one above where it is called ``images``."""
    if any(is_virtual(file.path) for file in images):
        return "mosaic"
    folder = Path(_common_folder(images)).absolute()
    return folder.parent.name if folder.name.lower() in IMAGE_FOLDERS else folder.name


def _scene(file: FoundFile, label: Path, image_root: PurePosixPath) -> SceneSource:
    """Return the scene of an image whose name no preset knows."""
    name, split = scene_name(file, image_root)
    return SceneSource(name=name, split=split or "train", image=file.path, label=label)
