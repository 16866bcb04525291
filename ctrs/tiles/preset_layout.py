"""The scenes of a source that a preset describes: images and labels are paired by the ids that its patterns find."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

from ctrs.config import PrepareConfig, SplitName
from ctrs.errors import DataError, InputNotFoundError, LabelError, LabelWarning, UsageError
from ctrs.raster.names import file_name, shown
from ctrs.tiles.findings import Findings
from ctrs.tiles.listing import Listing, named, natural_key
from ctrs.tiles.path_example import path_example
from ctrs.tiles.presets import ImagePattern, Preset, path_id
from ctrs.tiles.scene_source import Layout, SceneSource
from ctrs.tiles.split_lists import read_listed_splits


def preset_layout(listing: Listing, preset: Preset, config: PrepareConfig, findings: Findings) -> Layout:
    """Pair the images and labels of a source.

    Args:
        listing: What lies in the source.
        preset: The preset that it follows.
        config: Options.
        findings: Takes what is missing or strange.

    Raises:
        InputNotFoundError: No image is where the preset has them.
        DataError: A scene is there twice.
        UsageError: The preset has no extra files of a name.
    """
    source = listing.root
    relative = {file.place.as_posix(): file.path for file in listing.files}
    image_pattern = preset.image_pattern(relative)
    if image_pattern is None:
        findings.raise_faults()
        expected = " or ".join(path_example(image.pattern) for image in preset.images)
        kind = "" if config.variant is None else f"variant {preset.variants[0]} of "
        raise InputNotFoundError(
            f"{source}: no images of {kind}preset {preset.name} found, expected paths like {expected}"
        )
    _note_variants(relative, image_pattern, preset, findings)
    images, splits = _images(relative, image_pattern, preset)
    listed = read_listed_splits(preset, relative, images, config, findings)
    splits.update(listed.scenes)
    labels = first_matches(relative, preset.label_patterns)
    eroded = first_matches(relative, preset.eroded_patterns)
    missing = [identifier for identifier in images if identifier not in labels]
    left_out = {identifier for identifier in missing if splits[identifier] in preset.unlabelled}
    # Not where an archive that may hold the labels cannot be read.
    held_back = [] if findings.faults else _held_back(splits, missing, left_out)
    expected_of = set(missing) - left_out - set(held_back)
    report_unlabelled(
        [images[identifier] for identifier in missing if identifier in expected_of],
        f"expected where preset {preset.name} has them",
        findings,
    )
    report_unused([labels[identifier] for identifier in labels if identifier not in images], findings)
    if held_back:
        findings.warn(
            "files",
            f"{source}: the {preset.name} test split has no labels; {len(held_back)} images are left out, and "
            "scores will be those of val (add the labels of the test split, if you have them)",
            LabelWarning,
            items=[shown(images[identifier]) for identifier in held_back],
        )
    if left_out:
        findings.note(
            "files",
            f"{len(left_out)} images of the {preset.name} test split left out: its labels are not published",
            items=[shown(images[identifier]) for identifier in sorted(left_out, key=natural_key)],
        )
    strange = sorted(set(images) - set(preset.split_ids)) if preset.split_ids and not preset.split_folders else []
    if strange:
        findings.warn(
            "splits",
            f"{source}: scenes {named(strange)} are not in the official split of {preset.name}; "
            "they are taken for training (choose with --val and --test)",
            items=strange,
        )
    extra = extra_files(relative, images, preset, config.extra, findings)
    scenes = [
        SceneSource(
            name=f"{preset.name}_{identifier}",
            split=splits[identifier],
            image=image,
            label=labels[identifier],
            label_eroded=eroded.get(identifier),
            known_bad=identifier in preset.known_bad,
            aliases=(identifier, file_name(image).stem),
            extra=extra.get(identifier, {}),
            chips=listed.chips.get(identifier),
        )
        for identifier, image in sorted(images.items(), key=lambda item: natural_key(item[0]))
        if identifier in labels
    ]
    return Layout(
        root=source, scenes=tuple(scenes), preset=preset, band_names=image_pattern.bands, list_files=listed.files
    )


def _held_back(splits: Mapping[str, SplitName], missing: Sequence[str], left_out: Set[str]) -> list[str]:
    """Return the ids of the test split if none of it has a label, as participants of a contest get the data."""
    test = [identifier for identifier, split in splits.items() if split == "test" and identifier not in left_out]
    others = len(splits) - len(test)
    return test if test and others and set(test) <= set(missing) else []


def without_known_bad(scenes: Iterable[SceneSource], config: PrepareConfig, findings: Findings) -> list[SceneSource]:
    """Leave out scenes whose labels are known to be wrong, or warn of them."""
    every = list(scenes)
    bad = [scene.name for scene in every if scene.known_bad]
    noun = "scene" if len(bad) == 1 else "scenes"
    if bad and config.skip_known_bad:
        findings.note("files", f"{len(bad)} {noun} left out, labels known to be wrong: {named(bad)}", items=bad)
        return [scene for scene in every if not scene.known_bad]
    if bad:
        findings.warn(
            "files",
            f"{noun} {named(bad)}: labels are known to be wrong; leave out with --skip-known-bad",
            LabelWarning,
            scene=bad[0] if len(bad) == 1 else None,
            items=bad,
        )
    return every


def preset_split(preset: Preset, identifier: str, folder: str | None) -> SplitName:
    """Return the split that a preset gives a scene."""
    return preset.split_ids.get(identifier) or preset.split_folders.get(folder or "", "train")


def report_unlabelled(images: Iterable[Path], looked_for: str, findings: Findings) -> None:
    """Gather the fault that images have no label.

    Args:
        images: The images.
        looked_for: Where labels were looked for, or how.
        findings: Takes the fault.
    """
    missing = list(images)
    if not missing:
        return
    noun = "image" if len(missing) == 1 else "images"
    error = LabelError(
        f"{shown(missing[0].parent)}: {len(missing)} {noun} without a label: {named(missing)}; {looked_for}; "
        "add the labels, or move these images elsewhere"
    )
    findings.fault("files", error, items=[shown(path) for path in missing])


def report_unused(labels: Iterable[Path], findings: Findings) -> None:
    """Warn of labels that have no image."""
    unused = sorted(labels, key=lambda path: natural_key(path.as_posix()))
    if not unused:
        return
    one = len(unused) == 1
    findings.warn(
        "files",
        f"{shown(unused[0].parent)}: {len(unused)} label{' has' if one else 's have'} no image and "
        f"{'is' if one else 'are'} left out: {named(unused)}",
        LabelWarning,
        items=[shown(path) for path in unused],
    )


def _images(
    relative: Mapping[str, Path], pattern: ImagePattern, preset: Preset
) -> tuple[dict[str, Path], dict[str, SplitName]]:
    """Return the image and the split of each id."""
    images: dict[str, Path] = {}
    splits: dict[str, SplitName] = {}
    for text, path in relative.items():
        match = pattern.pattern.fullmatch(text)
        if match is None:
            continue
        identifier = path_id(match)
        if identifier in images:
            raise DataError(
                f"{shown(path)}: the same scene {identifier} as {shown(images[identifier])}; keep one of the two"
            )
        images[identifier] = path
        splits[identifier] = preset_split(preset, identifier, match.groupdict().get("split"))
    return images, splits


def first_matches(relative: Mapping[str, Path], patterns: Iterable[re.Pattern[str]]) -> dict[str, Path]:
    """Return the file of each id; earlier patterns win."""
    found: dict[str, Path] = {}
    for pattern in patterns:
        for text, path in relative.items():
            match = pattern.fullmatch(text)
            if match is not None:
                found.setdefault(path_id(match), path)
    return found


def _note_variants(relative: Iterable[str], taken: ImagePattern, preset: Preset, findings: Findings) -> None:
    """Say which kinds of images were there to choose from."""
    paths = tuple(relative)
    there = [
        image.name for image in preset.images if image.name and any(image.pattern.fullmatch(path) for path in paths)
    ]
    if taken.name and len(there) > 1:
        findings.note(
            "bands",
            f"images of {' and '.join(there)} found: {taken.name} is taken (choose with --variant)",
            items=there,
        )


def extra_files(
    relative: Mapping[str, Path],
    images: Mapping[str, Path],
    preset: Preset,
    names: Iterable[str],
    findings: Findings,
) -> dict[str, dict[str, Path]]:
    """Return the extra files of each id, by name in the order asked for; a missing one is a fault of its scene.

    Args:
        relative: Files by their paths below the source.
        images: The image of each id.
        preset: Has the patterns.
        names: What is asked for.
        findings: Takes what is missing.

    Raises:
        UsageError: The preset has no extra files of a name.
    """
    extra: dict[str, dict[str, Path]] = {identifier: {} for identifier in images}
    for name in dict.fromkeys(names):
        patterns = preset.extras.get(name)
        if patterns is None:
            known = ", ".join(sorted(preset.extras)) or "none"
            raise UsageError(f"--extra {name!r} found, but preset {preset.name} has: {known}")
        found = first_matches(relative, patterns)
        for identifier, image in images.items():
            if identifier in found:
                extra[identifier][name] = found[identifier]
                continue
            error = InputNotFoundError(
                f"{shown(image)}: no {name} file found for scene {identifier}, expected where preset {preset.name} "
                f"has it; add it, or go without --extra {name}"
            )
            findings.fault("files", error, scene=f"{preset.name}_{identifier}")
    return extra
