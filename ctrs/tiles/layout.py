"""Where the scenes and labels of a source lie, and which split each scene belongs to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ctrs.config import PrepareConfig
from ctrs.errors import InputNotFoundError, UsageError
from ctrs.tiles.findings import Findings
from ctrs.tiles.folder_layout import folder_layout
from ctrs.tiles.given_files import given_layout
from ctrs.tiles.listing import list_source
from ctrs.tiles.preset_layout import preset_layout, without_known_bad
from ctrs.tiles.presets import Preset, load_preset, recognise
from ctrs.tiles.scene_mosaic import mosaic_layout
from ctrs.tiles.scene_source import Layout, SceneSource
from ctrs.tiles.split_choice import choose_splits, list_files_of

__all__ = ["CLASS_FILE", "Layout", "SceneSource", "find_layout"]

CLASS_FILE = "classes.toml"


def find_layout(source: Path, config: PrepareConfig, findings: Findings, *, exclude: Path | None = None) -> Layout:
    """Find the scenes of a source.

    Images without labels, damaged archives in a folder and missing extra files are gathered as faults.

    Args:
        source: A folder, or a zip archive; what it holds in archives is found too.
        config: Options: preset, files, classes, kind of labels, splits.
        findings: Takes faults, warnings and notes.
        exclude: A folder below the source to leave alone (the output).

    Raises:
        InputNotFoundError: There is no such folder, or no image in it.
        LabelError: No image has a label.
        DataError: The folder can be read in several ways.
        UsageError: Options do not fit the source.
    """
    preset = None if config.preset is None else load_preset(config.preset)
    if config.mosaic and config.extra:
        raise UsageError("--extra found with --mosaic, which joins images and labels alone; go without one of the two")
    if config.images or config.labels:
        if config.variant is not None and config.images:
            raise UsageError(f"--variant {config.variant!r} found with --images, which names the images; go without it")
        if preset is None and config.extra:
            raise UsageError(
                f"--extra {config.extra[0]!r} found, which is a file of a preset; name it with --preset, too"
            )
        preset = _of_variant(preset, config, source)
        layout = given_layout(source, preset, config, findings, exclude=exclude)
    else:
        listing = list_source(source, findings, exclude=exclude)
        if config.preset is None and not config.mosaic:
            preset = recognise(file.place.as_posix() for file in listing.files)
        if preset is None and config.extra:
            raise UsageError(f"--extra {config.extra[0]!r} found, but {source} follows no preset; choose with --preset")
        preset = _of_variant(preset, config, source)
        if config.mosaic:
            layout = mosaic_layout(listing, preset, config, findings)
        elif preset is not None:
            layout = preset_layout(listing, preset, config, findings)
        else:
            layout = folder_layout(listing, config, findings)
    if not layout.scenes:
        findings.raise_faults()
    if config.classes is not None and not config.classes.is_file():
        raise InputNotFoundError(f"{config.classes}: not found; name a TOML file with [[class]] tables")
    own_classes = source / CLASS_FILE
    class_file = config.classes or (own_classes if own_classes.is_file() else None)
    scenes = choose_splits(without_known_bad(layout.scenes, config, findings), config, source)
    return replace(
        layout, scenes=scenes, class_file=class_file, list_files=(*layout.list_files, *list_files_of(config))
    )


def _of_variant(preset: Preset | None, config: PrepareConfig, source: Path) -> Preset | None:
    """Return the preset with the kind of images that is asked for alone.

    Raises:
        UsageError: There is no preset, or it has no such kind.
    """
    if config.variant is None:
        return preset
    if preset is None:
        raise UsageError(f"--variant {config.variant!r} found, but {source} follows no preset; choose with --preset")
    chosen = preset.of_variant(config.variant)
    if chosen is None:
        known = ", ".join(preset.variants) or "none"
        raise UsageError(f"--variant {config.variant!r} found, but preset {preset.name} has: {known}")
    return chosen
