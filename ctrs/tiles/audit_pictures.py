"""The pictures of the report on a data set: tiles and scenes under their masks, histograms of the bands."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ctrs.classes import Mask
from ctrs.raster.bands import Bands
from ctrs.report.charts import SERIES_COLORS, Line, histogram, short_number
from ctrs.report.html import Html, details, element, figure, join, legend, paragraph, swatch
from ctrs.report.pictures import display_rgb
from ctrs.report.thumbnails import image_beside_overlay, shrink
from ctrs.tiles.audit import Audit, SceneAudit
from ctrs.tiles.audit_tables import class_legend, more

MAX_SAMPLES = 48
MAX_SCENES = 60
_OPEN_SCENES = 24
"""Scenes that are shown at once; further ones are folded away."""

_LONGEST_PX = 256
_ALL_PX = 1_600_000
"""Pixels of all pictures of a section together, so that the page stays below 3 MB."""

_EMPTY = 208
"""Grey of pixels without imagery, on white and on black ground."""

_NUM_BINS = 64
_MAX_POOLED = 2_000_000
"""Most values that the stretch and the axis of the histograms are taken from."""

_BAND_COLORS = {
    "red": (0xCC, 0x33, 0x33), "green": (0x22, 0x88, 0x33), "blue": (0x33, 0x66, 0xCC), "nir": (0xAA, 0x33, 0x77),
    "infrared": (0xAA, 0x33, 0x77), "near infrared": (0xAA, 0x33, 0x77), "grey": (0x77, 0x77, 0x77),
    "gray": (0x77, 0x77, 0x77), "pan": (0x77, 0x77, 0x77),
}  # fmt: skip


def contact_sheet(audit: Audit) -> Html:
    """Return tiles of each split, each beside itself under its mask."""
    if not audit.samples:
        return paragraph("There are no tiles to show.")
    bands = _stretch(audit)
    samples = audit.samples[:MAX_SAMPLES]
    figures = []
    for number, sample in enumerate(samples):
        alt = f"Tile {sample.name} of {sample.split}, and the same under its mask"
        key, edge = f"tile-{number}", _edge_px(len(samples))
        drawn = _beside_overlay(audit, bands, sample.pixels, sample.valid, sample.mask, key=key, alt=alt, edge_px=edge)
        figures.append(figure(drawn, join([sample.name, ", ", element("strong", sample.split)])))
    intro = paragraph(
        "Each tile as it is, and under its mask: classes are tinted, their borders drawn in full colour, ignored "
        "pixels left clear. Grey: no imagery."
    )
    gallery = element("div", *figures, class_="gallery")
    return join([intro, class_legend(audit), gallery, more(len(audit.samples), MAX_SAMPLES, "tile")])


def scene_previews(audit: Audit) -> Html:
    """Return each scene, made small, beside itself under its label."""
    if not audit.scenes:
        return paragraph("No scene could be read.")
    bands = _stretch(audit)
    scenes = _noted_first(audit)
    figures = []
    for number, scene in enumerate(scenes[:MAX_SCENES]):
        preview = scene.facts.preview
        alt = f"Scene {scene.name}, and the same under its label"
        key, edge = f"scene-{number}", _edge_px(min(len(scenes), MAX_SCENES))
        drawn = _beside_overlay(
            audit, bands, preview.pixels, preview.valid, preview.mask, key=key, alt=alt, edge_px=edge
        )
        figures.append(figure(drawn, join([scene.name, ", ", element("strong", scene.split)])))
    return join([class_legend(audit), *_gallery(figures, len(scenes), "gallery")])


def _edge_px(number: int) -> int:
    """Return the longest edge of so many pictures.

    >>> _edge_px(4), _edge_px(40)
    (256, 200)
    """
    return min(_LONGEST_PX, math.isqrt(_ALL_PX // number))


def _beside_overlay(
    audit: Audit,
    bands: Bands,
    pixels: npt.NDArray[np.generic],
    valid: npt.NDArray[np.bool_],
    mask: Mask,
    *,
    key: str,
    alt: str,
    edge_px: int,
) -> Html:
    image = display_rgb(pixels, bands)
    image[:, ~valid] = _EMPTY
    return image_beside_overlay(*shrink(image, mask, edge_px), audit.classes.colors, key=key, alt=alt, square=True)


def _noted_first(audit: Audit) -> list[SceneAudit]:
    """Return the scenes; those that a finding names first where not all are shown."""
    if len(audit.scenes) <= MAX_SCENES:
        return list(audit.scenes)
    named = {finding.scene for finding in audit.findings if finding.level != "note"}
    return sorted(audit.scenes, key=lambda scene: scene.name not in named and not scene.known_bad)


def _gallery(figures: Sequence[Html], total: int, class_: str) -> list[Html]:
    """Return figures in a grid: the first at once, others folded away, and how many there are not."""
    parts = [element("div", *figures[:_OPEN_SCENES], class_=class_)]
    if len(figures) > _OPEN_SCENES:
        rest = element("div", *figures[_OPEN_SCENES:], class_=class_)
        parts.append(details(f"{len(figures) - _OPEN_SCENES} more scenes", rest))
    return [*parts, more(total, len(figures), "scene")]


def radiometry_charts(audit: Audit) -> Html:
    """Return histograms of the bands of each scene on one axis."""
    if not audit.scenes:
        return paragraph("No scene could be read.")
    low, high, last = _axis(audit)
    noted = {finding.scene for finding in audit.findings if finding.check == "radiometry"}
    colors = _band_colors(audit.band_names)
    scenes = _noted_first(audit)
    behind = _band_histograms(_pooled(audit), low, high).sum(axis=0)
    figures = []
    for scene in scenes[:MAX_SCENES]:
        preview = scene.facts.preview
        counts = _band_histograms(preview.pixels[:, preview.valid], low, high)
        lines = [
            Line(name=name, heights=heights, color=color)
            for name, heights, color in zip(audit.band_names, counts, colors, strict=True)
        ]
        drawn = histogram(lines, low, last, alt=f"Histogram of the bands of {scene.name}", behind=behind)
        mark = join([" ", element("span", "see findings", class_="level warning")]) if scene.name in noted else None
        figures.append(figure(drawn, join([scene.name, ", ", element("strong", scene.split), mark])))
    intro = paragraph(
        f"Valid pixels of each scene's preview on one axis, from {short_number(low)} to {short_number(last)}; what "
        "lies beyond stands in the first and last bin. Heights are scaled to the highest bin of a scene; the grey area "
        "is the histogram of all scenes and bands together."
    )
    bands = legend((swatch(color), name) for name, color in zip(audit.band_names, colors, strict=True))
    return join([intro, bands, *_gallery(figures, len(scenes), "gallery charts")])


def _band_colors(names: Sequence[str]) -> list[tuple[int, int, int]]:
    return [
        _BAND_COLORS.get(name.lower(), SERIES_COLORS[number % len(SERIES_COLORS)]) for number, name in enumerate(names)
    ]


def _band_histograms(values: npt.NDArray[np.generic], low: float, high: float) -> npt.NDArray[np.float64]:
    """Return the bins (C, bins) of values (C, n)."""
    bins = np.zeros((len(values), _NUM_BINS))
    for band, counts in zip(values.astype(np.float64), bins, strict=True):
        finite = band[np.isfinite(band)]
        places = ((finite - low) / (high - low) * _NUM_BINS).clip(0, _NUM_BINS - 1).astype(np.int64)
        counts += np.bincount(places, minlength=_NUM_BINS)
    return bins


def _axis(audit: Audit) -> tuple[float, float, float]:
    """Return where the histograms' axis begins and ends, and the last value on it.

    Bins of integers are whole numbers wide: others would hold now more, now fewer values, and look like combs.
    """
    low, high = 0.0, 255.0
    if audit.dtype != "uint8":
        pooled = _pooled(audit).reshape(-1)
        pooled = pooled[np.isfinite(pooled)]
        if len(pooled):
            low, high = np.percentile(pooled, (0.1, 99.9)).tolist()
    if np.issubdtype(np.dtype(audit.dtype), np.integer):
        low = math.floor(low)
        end = low + _NUM_BINS * max(1, math.ceil((high - low + 1) / _NUM_BINS))
        return float(low), float(end), float(end - 1)
    high = high if high > low else low + 1.0
    return low, high, high


def _pooled(audit: Audit) -> npt.NDArray[np.float64]:
    """Return valid values (C, n) of all scenes' previews, thinned out where there are many."""
    previews = [scene.facts.preview for scene in audit.scenes]
    step = max(1, sum(preview.pixels.size for preview in previews) // _MAX_POOLED)
    parts = [np.empty((len(audit.band_names), 0))]
    for preview in previews:
        thinned = preview.pixels.reshape(len(preview.pixels), -1)[:, ::step]
        parts.append(thinned[:, preview.valid.reshape(-1)[::step]].astype(np.float64))
    return np.concatenate(parts, axis=1)


def _stretch(audit: Audit) -> Bands:
    """Return one stretch for all pictures, so that a scene that is darker than the others looks darker."""
    names = audit.band_names
    low, high = [0.0] * len(names), [255.0] * len(names)
    if audit.dtype != "uint8":
        for number, band in enumerate(_pooled(audit)):
            finite = band[np.isfinite(band)]
            first, last = np.percentile(finite, (2, 98)).tolist() if len(finite) else (0.0, 1.0)
            low[number], high[number] = first, last if last > first else first + 1.0
    ones = (1.0,) * len(names)
    return Bands(names=names, dtype=audit.dtype, low=tuple(low), high=tuple(high), mean=ones, std=ones)
