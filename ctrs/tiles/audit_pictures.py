"""The pictures of the report on a data set: tiles and scenes under their masks, histograms of the bands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ctrs.raster.bands import Bands
from ctrs.report.charts import SERIES_COLORS, Line, histogram, short_number
from ctrs.report.html import Html, details, element, figure, join, legend, paragraph, swatch
from ctrs.report.pictures import display_rgb
from ctrs.report.thumbnails import image_beside_overlay, shrink_step
from ctrs.tiles.audit import Audit, SceneAudit
from ctrs.tiles.audit_tables import class_legend, count

MAX_SAMPLES = 48
MAX_SCENES = 60
_OPEN_SCENES = 24
"""Scenes that are shown at once; further ones are folded away."""

_FEW_SCENES = 12
_SMALL_PX = 176
"""Longest edge of a preview where there are many."""

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
    figures = []
    for number, sample in enumerate(audit.samples[:MAX_SAMPLES]):
        image = display_rgb(sample.pixels, bands, valid=sample.valid)
        alt = f"Tile {sample.name} of {sample.split}, and the same under its mask"
        drawn = image_beside_overlay(
            image, sample.mask, audit.classes.colors, key=f"tile-{number}", alt=alt, square=True
        )
        figures.append(figure(drawn, join([sample.name, ", ", element("strong", sample.split)])))
    intro = paragraph(
        "Each tile as it is, and under its mask: classes are tinted, their borders drawn in full colour, ignored "
        "pixels left clear."
    )
    parts = [intro, class_legend(audit), element("div", *figures, class_="gallery")]
    if len(audit.samples) > MAX_SAMPLES:
        parts.append(paragraph(f"And {count(len(audit.samples) - MAX_SAMPLES, 'tile')} more."))
    return join(parts)


def scene_previews(audit: Audit) -> Html:
    """Return each scene, made small, beside itself under its label."""
    if not audit.scenes:
        return paragraph("No scene could be read.")
    bands = _stretch(audit)
    scenes = _noted_first(audit)
    figures = []
    for number, scene in enumerate(scenes[:MAX_SCENES]):
        preview = scene.facts.preview
        step = 1 if len(scenes) <= _FEW_SCENES else shrink_step(max(preview.mask.shape), _SMALL_PX)
        pixels, valid = preview.pixels[:, ::step, ::step], preview.valid[::step, ::step]
        mask = preview.mask[::step, ::step]
        alt = f"Scene {scene.name}, and the same under its label"
        drawn = image_beside_overlay(
            display_rgb(pixels, bands, valid=valid), mask, audit.classes.colors, key=f"scene-{number}", alt=alt,
            square=True,
        )  # fmt: skip
        figures.append(figure(drawn, _caption(scene, f"every {_ordinal(preview.step * step)} pixel")))
    return join([class_legend(audit), *_gallery(figures, len(scenes), "gallery")])


def _caption(scene: SceneAudit, text: str) -> Html:
    return join([scene.name, ", ", element("strong", scene.split), ", ", text])


def _ordinal(number: int) -> str:
    """Return ``2nd`` for 2.

    >>> _ordinal(1), _ordinal(12), _ordinal(22), _ordinal(24)
    ('1st', '12th', '22nd', '24th')
    """
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


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
    if total > len(figures):
        parts.append(paragraph(f"And {count(total - len(figures), 'scene')} more."))
    return parts


def radiometry_charts(audit: Audit) -> Html:
    """Return histograms of the bands of each scene on one axis."""
    if not audit.scenes:
        return paragraph("No scene could be read.")
    low, high = _axis(audit)
    noted = {finding.scene for finding in audit.findings if finding.check == "radiometry"}
    colors = _band_colors(audit.band_names)
    behind = np.zeros(_NUM_BINS)
    scenes = _noted_first(audit)
    for scene in audit.scenes:
        behind += _band_histograms(scene, low, high).sum(axis=0)
    figures = []
    for scene in scenes[:MAX_SCENES]:
        counts = _band_histograms(scene, low, high)
        lines = [
            Line(name=name, heights=heights, color=color)
            for name, heights, color in zip(audit.band_names, counts, colors, strict=True)
        ]
        drawn = histogram(lines, low, high, alt=f"Histogram of the bands of {scene.name}", behind=behind)
        mark = join([" ", element("span", "see findings", class_="level warning")]) if scene.name in noted else None
        figures.append(figure(drawn, join([scene.name, ", ", element("strong", scene.split), mark])))
    intro = paragraph(
        f"Valid pixels of each scene's preview on one axis, from {short_number(low)} to {short_number(high)}; what "
        "lies beyond stands in the first and last bin. Heights are scaled to the highest bin of a scene; the grey area "
        "is the histogram of all scenes and bands together."
    )
    bands = legend((swatch(color), name) for name, color in zip(audit.band_names, colors, strict=True))
    return join([intro, bands, *_gallery(figures, len(scenes), "gallery charts")])


def _band_colors(names: Sequence[str]) -> list[tuple[int, int, int]]:
    return [
        _BAND_COLORS.get(name.lower(), SERIES_COLORS[number % len(SERIES_COLORS)]) for number, name in enumerate(names)
    ]


def _band_histograms(scene: SceneAudit, low: float, high: float) -> npt.NDArray[np.float64]:
    """Return the bins (C, bins) of a scene's preview."""
    preview = scene.facts.preview
    values = preview.pixels[:, preview.valid].astype(np.float64)
    bins = np.zeros((len(values), _NUM_BINS))
    for band, counts in zip(values, bins, strict=True):
        finite = band[np.isfinite(band)]
        places = ((finite - low) / (high - low) * _NUM_BINS).clip(0, _NUM_BINS - 1).astype(np.int64)
        counts += np.bincount(places, minlength=_NUM_BINS)
    return bins


def _axis(audit: Audit) -> tuple[float, float]:
    """Return the values at which the histograms' axis begins and ends."""
    if audit.dtype == "uint8":
        return 0.0, 255.0
    pooled = _pooled(audit).reshape(-1)
    pooled = pooled[np.isfinite(pooled)]
    if not len(pooled):
        return 0.0, 1.0
    low, high = np.percentile(pooled, (0.1, 99.9)).tolist()
    return (low, high) if high > low else (low, low + 1.0)


def _pooled(audit: Audit) -> npt.NDArray[np.float64]:
    """Return valid values (C, n) of all scenes' previews, thinned out where there are many."""
    total = sum(int(scene.facts.preview.valid.sum()) for scene in audit.scenes) * len(audit.band_names)
    step = max(1, -(-total // _MAX_POOLED))
    parts = [
        scene.facts.preview.pixels[:, scene.facts.preview.valid][:, ::step].astype(np.float64) for scene in audit.scenes
    ]
    return np.concatenate([np.empty((len(audit.band_names), 0)), *parts], axis=1)


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
