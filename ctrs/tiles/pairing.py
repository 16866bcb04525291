"""Which label belongs to which image, by file name alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ctrs.errors import LabelError
from ctrs.raster.names import file_name, shown

IMAGE_MARKS = ("image", "img", "sat", "ortho", "rgb", "irrg", "rgbir")
"""Words that mark a file as an image, before or after the name of the place."""

LABEL_MARKS = (
    "mask", "masks", "label", "labels", "gt", "seg", "annotation", "annotations", "polygons", "footprints",
)  # fmt: skip
"""Words that mark a file as a label, before or after the name of the place."""


def strip_mark(stem: str, marks: Sequence[str]) -> str:
    """Return a stem without a leading or trailing mark.

    >>> strip_mark("town_mask", LABEL_MARKS), strip_mark("image_15cm", IMAGE_MARKS), strip_mark("masked", LABEL_MARKS)
    ('town', '15cm', 'masked')
    """
    lower = stem.lower()
    for mark in marks:
        if lower.endswith(f"_{mark}"):
            return stem[: -len(mark) - 1]
        if lower.startswith(f"{mark}_"):
            return stem[len(mark) + 1 :]
    return stem


def find_label(image: Path, labels: Iterable[Path]) -> Path | None:
    """Return the label of an image.

    The first of these that finds anything decides: the same stem; the same stem without words such as ``_mask`` or
    ``_RGB``; the longest label stem that begins the image's stem and ends at an underscore, so that
    ``zanzibar_a.geojson`` serves ``zanzibar_a_z20.tif``.

    Args:
        image: The image.
        labels: Candidates.

    Raises:
        LabelError: Two candidates fit equally well.
    """
    stem = file_name(image).stem
    core = strip_mark(stem, IMAGE_MARKS)
    stems = {label: file_name(label).stem for label in labels}
    begins = {label: strip_mark(text, LABEL_MARKS) for label, text in stems.items()}
    exact = [label for label, text in stems.items() if text == stem]
    marked = [label for label, start in begins.items() if start in (stem, core)]
    begins = {label: start for label, start in begins.items() if stem.startswith(f"{start}_") and start}
    longest = max((len(start) for start in begins.values()), default=0)
    prefixes = [label for label, start in begins.items() if len(start) == longest]
    for found in (exact, marked, prefixes):
        if len(found) > 1:
            names = " and ".join(shown(label) for label in found[:2])
            raise LabelError(
                f"{shown(image)}: several labels fit: {names}; keep one, or choose with --label-kind values, colors or "
                "polygons"
            )
        if found:
            return found[0]
    return None
