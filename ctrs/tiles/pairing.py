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


class LabelIndex:
    """Labels by their names, to find that of an image.

    Args:
        labels: Candidates.
    """

    def __init__(self, labels: Iterable[Path]) -> None:
        self.labels = tuple(labels)
        self._by_stem: dict[str, list[Path]] = {}
        self._by_start: dict[str, list[Path]] = {}
        for label in self.labels:
            stem = file_name(label).stem
            self._by_stem.setdefault(stem, []).append(label)
            self._by_start.setdefault(strip_mark(stem, LABEL_MARKS), []).append(label)

    def find(self, image: Path) -> Path | None:
        """Return the label of an image.

        The first of these that finds anything decides: the same stem; the same stem without words such as ``_mask`` or
        ``_RGB``; the longest label stem that begins the image's stem and ends at an underscore, so that
        ``zanzibar_a.geojson`` serves ``zanzibar_a_z20.tif``.

        >>> index = LabelIndex([Path("zanzibar.geojson"), Path("zanzibar_a.geojson"), Path("town_mask.png")])
        >>> [str(index.find(Path(name))) for name in ("zanzibar_a_z20.tif", "town_RGB.tif", "other.tif")]
        ['zanzibar_a.geojson', 'town_mask.png', 'None']

        Raises:
            LabelError: Two labels fit equally well.
        """
        stem = file_name(image).stem
        cores = dict.fromkeys((stem, strip_mark(stem, IMAGE_MARKS)))
        marked = [label for core in cores for label in self._by_start.get(core, [])]
        starts = [stem[:end] for end in range(len(stem) - 1, 0, -1) if stem[end] == "_"]
        longest = next((self._by_start[start] for start in starts if start in self._by_start), [])
        for found in (self._by_stem.get(stem, []), marked, longest):
            if len(found) > 1:
                names = " and ".join(shown(label) for label in found[:2])
                raise LabelError(
                    f"{shown(image)}: several labels fit: {names}; keep one, or choose with --label-kind values, "
                    "colors or polygons"
                )
            if found:
                return found[0]
        return None
