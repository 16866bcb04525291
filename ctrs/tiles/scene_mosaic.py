"""Many files as one scene: all images are parts of its image, all raster labels parts of its label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ctrs.config import PrepareConfig
from ctrs.errors import DataError, LabelError
from ctrs.raster.geotiff import Grid, color_bands, open_raster
from ctrs.raster.mosaic import MosaicSource
from ctrs.raster.mosaic_overlaps import contradictions
from ctrs.raster.mosaic_parts import join_parts
from ctrs.raster.names import shown
from ctrs.tiles.findings import Findings
from ctrs.tiles.folder_layout import gather, pair_by_name
from ctrs.tiles.imagery import chosen_bands
from ctrs.tiles.listing import FoundFile, Listing, is_vector, named
from ctrs.tiles.preset_layout import first_matches
from ctrs.tiles.presets import Preset
from ctrs.tiles.scene_source import Layout, SceneSource


def mosaic_layout(listing: Listing, preset: Preset | None, config: PrepareConfig, findings: Findings) -> Layout:
    """Make one scene of all images of a source and one label of all its labels.

    Args:
        listing: What lies in the source.
        preset: The preset that says which files are images and labels; None to tell by names.
        config: Options.
        findings: Takes what is strange.

    Raises:
        InputNotFoundError: There are no images.
        RasterError: They do not fit together.
        LabelError: There is no label, or several vector files.
        DataError: The source is divided into splits.
    """
    if preset is not None:
        relative = {file.place.as_posix(): file.path for file in listing.files}
        pattern = preset.image_pattern(relative)
        if pattern is None:
            findings.raise_faults()
            raise listing.nothing_found(str(listing.root))
        images = tuple(first_matches(relative, [pattern.pattern]).values())
        labels = tuple(first_matches(relative, preset.label_patterns).values())
        if first_matches(relative, preset.eroded_patterns):
            note_no_eroded(findings)
        scene = mosaic_scene(listing.root, images, labels, findings, bidx=config.bidx, names=pattern.bands)
        return Layout(root=listing.root, scenes=(scene,), preset=preset, band_names=pattern.bands)
    parts = gather(listing, config.label_kind, findings)
    if len(parts) > 1:
        names = ", ".join(str(part.split) for part in parts)
        raise DataError(
            f"{listing.root}: folders of the splits {names} found, but --mosaic makes one scene; prepare each alone"
        )
    (part,) = parts
    images, labels = (tuple(file.path for file in files) for files in (part.images, part.labels))
    scene = mosaic_scene(listing.root, images, labels, findings, bidx=config.bidx)
    return Layout(root=listing.root, scenes=(scene,), preset=None)


def note_no_eroded(findings: Findings) -> None:
    """Say that there are labels with eroded borders that are not taken."""
    findings.note("files", "labels with eroded borders left out: --mosaic joins images and labels alone")


def mosaic_scene(
    root: Path,
    images: Sequence[Path],
    labels: Sequence[Path],
    findings: Findings,
    *,
    name: str | None = None,
    bidx: Sequence[int] = (),
    names: Sequence[str] = (),
) -> SceneSource:
    """Return the scene that files are parts of; where parts overlap, later ones are taken.

    Args:
        root: The source.
        images: Parts of its image.
        labels: Parts of its label, or the one vector file.
        findings: Takes parts that contradict each other.
        name: Name of the scene; None: that of the source.
        bidx: Bands that are asked for; a band among them that is called alpha is data.
        names: Names of the bands by a preset; where they are as many as the bands, all bands are data.

    Raises:
        RasterError: They do not fit together.
        LabelError: There is no label, or several vector files.
    """
    if name is None:
        name = root.absolute().stem if root.is_file() else root.absolute().name
    name = name or "mosaic"
    vectors = [path for path in labels if is_vector(path)]
    rasters = [path for path in labels if not is_vector(path)]
    if not labels:
        raise LabelError(f"{root}: no labels found for the mosaic; name them with --labels")
    if len(vectors) > 1 or (vectors and rasters):
        raise LabelError(
            f"{root}: several labels found for the mosaic: {named(labels)}; name one vector file, or rasters only, "
            "with --labels (ogrmerge.py joins vector files)"
        )
    image = images[0]
    if len(images) > 1:
        with open_raster(image) as dataset:
            alpha_is_data = not set(chosen_bands(dataset, bidx, names)) <= set(color_bands(dataset))
        mosaic = join_parts(images, name, alpha_is_data=alpha_is_data)
        image = mosaic.path
        _warn_contradictions(mosaic.sources, "images", findings)
    scene = SceneSource(
        name=name,
        split="train",
        image=image,
        label=labels[0],
        image_parts=tuple(images) if len(images) > 1 else (),
    )
    if vectors:
        return scene
    with open_raster(image) as dataset:
        grid = Grid.of(dataset)
    if len(rasters) == 1:
        with open_raster(rasters[0]) as dataset:
            if Grid.of(dataset).shape == grid.shape:
                return scene  # whether it lies in the same place is checked with all labels
    joined = join_parts(rasters, f"{name}_label", onto=grid, placed=_grids_of_images(images, rasters))
    _warn_contradictions(joined.sources, "labels", findings)
    return replace(scene, label=joined.path, label_parts=tuple(rasters))


def _warn_contradictions(sources: Sequence[MosaicSource], what: str, findings: Findings) -> None:
    """Warn of parts that show different pixels of the same ground."""
    found = contradictions(sources)
    if not found:
        return
    first = found[0]
    more = f" (and {len(found) - 1} more pairs)" if len(found) > 1 else ""
    findings.warn(
        "alignment",
        f"parts of the mosaic's {what} overlap and differ: in {first.share:.1%} of the pixels looked at, "
        f"{shown(first.above)}, which is taken, is not as {shown(first.below)}{more}; leave out one of them, or order "
        "them by name: the last is taken",
        items=[f"{shown(pair.above)} over {shown(pair.below)}: {pair.share:.1%}" for pair in found],
    )


def _grids_of_images(images: Sequence[Path], labels: Sequence[Path]) -> dict[Path, Grid]:
    """Return the grid of the image of each label, by name: labels often have no georeference of their own."""
    quiet = Findings()
    here = PurePosixPath()
    pairs, _ = pair_by_name(
        [FoundFile(path=path, place=PurePosixPath(path.name)) for path in images],
        [FoundFile(path=path, place=PurePosixPath(path.name)) for path in labels],
        here,
        here,
        quiet,
    )
    grids: dict[Path, Grid] = {}
    for image, label in pairs.items():
        with open_raster(image) as dataset:
            grids[label] = Grid.of(dataset)
    return grids
