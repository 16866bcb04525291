"""What a preset knows of images that the options name: their ids and bands, and the files that belong to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ctrs.config import PrepareConfig
from ctrs.errors import DataError, InputNotFoundError
from ctrs.raster.names import file_name, shown
from ctrs.tiles.findings import Findings
from ctrs.tiles.listing import FoundFile, Listing
from ctrs.tiles.preset_layout import extra_files, first_matches, preset_split
from ctrs.tiles.presets import ImagePattern, Preset, path_id
from ctrs.tiles.scene_source import SceneSource


@dataclass(frozen=True, kw_only=True)
class PresetFiles:
    """Files that belong to named images whose names a preset knows.

    Args:
        preset: The preset, None for none.
        found: What its pattern found in the name of each image that it knows.
        band_names: Names of the bands, empty to take the files' own.
        labels: Label of each id.
        eroded: Label with eroded class borders of each id.
        extra: Further files of each id that become bands.
    """

    preset: Preset | None = None
    found: Mapping[Path, re.Match[str]] = field(default_factory=dict)
    band_names: tuple[str, ...] = ()
    labels: Mapping[str, Path] = field(default_factory=dict)
    eroded: Mapping[str, Path] = field(default_factory=dict)
    extra: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)

    def label(self, image: Path) -> Path | None:
        """Return the label that lies where the preset has it."""
        match = self.found.get(image)
        return None if match is None else self.labels.get(path_id(match))

    def scene(self, image: Path, label: Path, label_place: PurePosixPath) -> SceneSource | None:
        """Return the scene of an image with its id, split and further files, None where the preset does not know it.

        Args:
            image: The image.
            label: Its label, of the preset or not.
            label_place: Where the label lies below the source.
        """
        match = self.found.get(image)
        if match is None or self.preset is None:
            return None
        identifier = path_id(match)
        return SceneSource(
            name=f"{self.preset.name}_{identifier}",
            split=preset_split(self.preset, identifier, match.groupdict().get("split")),
            image=image,
            label=label,
            label_eroded=self.eroded.get(identifier) if self._is_label(label_place, identifier) else None,
            known_bad=identifier in self.preset.known_bad,
            aliases=(identifier, file_name(image).stem),
            extra=self.extra.get(identifier, {}),
        )

    def report_left_out(self, scenes: Sequence[SceneSource], findings: Findings) -> None:
        """Say which labels with eroded borders are not taken, because they are those of other labels."""
        ids = {image: path_id(match) for image, match in self.found.items()}
        left_out = [scene for scene in scenes if ids.get(scene.image, "") in self.eroded and scene.label_eroded is None]
        if left_out and self.preset is not None:
            findings.note(
                "files",
                f"{len(left_out)} labels with eroded borders left out: preset {self.preset.name} has them for other "
                "labels than --labels names",
                items=[shown(self.eroded[ids[scene.image]]) for scene in left_out],
            )

    def _is_label(self, place: PurePosixPath, identifier: str) -> bool:
        """Tell whether a file is the preset's own label of a scene."""
        patterns = () if self.preset is None else self.preset.label_patterns
        matches = (pattern.fullmatch(place.as_posix()) for pattern in patterns)
        return any(match is not None and path_id(match) == identifier for match in matches)


def find_preset_files(
    images: Sequence[FoundFile],
    preset: Preset | None,
    listing: Callable[[], Listing],
    config: PrepareConfig,
    findings: Findings,
) -> PresetFiles:
    """Find what belongs to images, by the patterns of a preset below the source.

    Args:
        images: What the options name, or what the preset found.
        preset: The preset, None for none.
        listing: Looks at what lies in the source.
        config: Options.
        findings: Takes missing further files.

    Raises:
        DataError: The images are of several kinds.
        UsageError: The preset has no extra files of a name.
    """
    if preset is None:
        return PresetFiles()
    patterns: dict[Path, ImagePattern] = {}
    found: dict[Path, re.Match[str]] = {}
    for file in images:
        for pattern in preset.images:
            match = pattern.pattern.fullmatch(file.place.as_posix()) or pattern.pattern.fullmatch(shown(file.path))
            if match is not None:
                patterns[file.path], found[file.path] = pattern, match
                break
    _check_one_kind(patterns, preset)
    of_id = {path_id(match): image for image, match in found.items()}
    wants_files = bool(found) and (not config.labels or bool(preset.eroded_patterns))
    relative = {file.place.as_posix(): file.path for file in listing().files} if wants_files or config.extra else {}
    for file in images:
        if config.extra and file.path not in found:
            error = InputNotFoundError(
                f"{shown(file.path)}: preset {preset.name} does not know this name, so that no {config.extra[0]} file "
                f"can be found for it; expected a name as the preset has it, or go without --extra {config.extra[0]}"
            )
            findings.fault("files", error)
    return PresetFiles(
        preset=preset,
        found=found,
        band_names=next((pattern.bands for pattern in patterns.values()), ()),
        labels=first_matches(relative, preset.label_patterns),
        eroded=first_matches(relative, preset.eroded_patterns),
        extra=extra_files(relative, of_id, preset, config.extra, findings),
    )


def _check_one_kind(patterns: Mapping[Path, ImagePattern], preset: Preset) -> None:
    """Refuse images whose bands are others in each kind of the preset."""
    first: dict[tuple[str, ...], Path] = {}
    for image, pattern in patterns.items():
        first.setdefault(pattern.bands, image)
    if len(first) > 1:
        (bands, one), (others, other) = list(first.items())[:2]
        raise DataError(
            f"{shown(other)}: bands {', '.join(others)} by preset {preset.name}, but {', '.join(bands)} in "
            f"{shown(one)}; name images of one kind with --images"
        )
