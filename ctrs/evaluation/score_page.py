"""The report on scores as one page: the figures first, then what they are made of, and where the errors are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ctrs import __version__
from ctrs.classes import ClassMap
from ctrs.errors import UsageError
from ctrs.evaluation.score_places import PlaceGallery, SceneMap, ShownPlace
from ctrs.evaluation.score_quality import area_section, boundary_section, calibration_section, object_section
from ctrs.evaluation.score_report import EvaluationReport
from ctrs.evaluation.score_sections import (
    Runs,
    class_section,
    confusion_section,
    headline_figures,
    only,
    protocol_table,
    scene_section,
)
from ctrs.jobs import write_text
from ctrs.report.html import Html, Section, element, figure, join, legend, page, paragraph, swatch
from ctrs.report.score_pictures import ERROR_COLOR, MarkKind, PlaceMark, place_panels, scene_overview

PAGE_FILE = "report.html"

_MAX_NAMED = 8
"""Scenes and masks that the head of the page names."""


def write_score_page(
    path: Path, runs: Runs, gallery: PlaceGallery | None = None, *, differences: Html | None = None
) -> Path:
    """Write the report on scores; the same reports and places give the same bytes.

    Args:
        path: HTML file to write, in a folder that exists.
        runs: Report of each run by name, over the same scenes and classes.
        gallery: Places to show, of one of the runs or of some of them; None shows none.
        differences: What is said of the differences between the runs.

    Returns:
        ``path``.

    Raises:
        UsageError: There are no runs, or they differ in scenes or classes.
        OutputError: The file cannot be written.
    """
    write_text(path, render_score_page(runs, gallery, differences=differences))
    return path


def render_score_page(runs: Runs, gallery: PlaceGallery | None = None, *, differences: Html | None = None) -> str:
    """Return the report on scores as a page that needs no other file; see ``write_score_page``."""
    _check(runs)
    first = next(iter(runs.values()))
    sections = [Section(key="headline", title="Headline", content=headline_figures(runs))]
    if differences is not None:
        sections.append(Section(key="differences", title="Differences between the runs", content=differences))
    sections += [
        Section(key="classes", title="Classes", content=class_section(runs)),
        Section(key="protocols", title="Every protocol", content=protocol_table(runs)),
        Section(key="confusion", title="Confusion", content=confusion_section(runs)),
    ]
    if any(report.outlines is not None for report in runs.values()):
        sections.append(Section(key="outlines", title="Outlines", content=boundary_section(runs)))
    if any(report.objects for report in runs.values()):
        sections.append(Section(key="objects", title="Objects", content=object_section(runs)))
    if any(report.area is not None for report in runs.values()):
        sections.append(Section(key="areas", title="Areas", content=area_section(runs)))
    if any(report.calibration is not None for report in runs.values()):
        sections.append(Section(key="calibration", title="Calibration", content=calibration_section(runs)))
    sections.append(Section(key="scenes", title="Scenes", content=scene_section(runs)))
    if gallery is not None:
        sections += _place_sections(gallery, list(runs))
    what = " and ".join([", ".join([*runs][:-1]), [*runs][-1]]) if len(runs) > 1 else first.name
    return page(
        title=f"{'Scores' if len(runs) == 1 else 'Comparison'}: {what}",
        lead=_lead(runs),
        sections=sections,
        foot=f"Made by ctrs {__version__}. Figures and counts of each scene stand in report.json beside this page.",
        generator=f"ctrs {__version__}",
    )


def _check(runs: Runs) -> None:
    if not runs:
        raise UsageError("score page: no runs found, expected one or more")
    first, *others = runs.values()
    for name, report in zip([*runs][1:], others, strict=True):
        if report.classes != first.classes:
            raise UsageError(f"score page: {name} scores other classes; compare runs of one class table")
        if [scene.name for scene in report.scenes] != [scene.name for scene in first.scenes]:
            raise UsageError(f"score page: {name} scores other scenes; compare runs on the same scenes")


def _lead(runs: Runs) -> Html:
    first = next(iter(runs.values()))
    report = only(runs)
    facts: dict[str, str] = {}
    if report is not None:
        facts["Scored"] = _scored(report)
    else:
        for name, entry in runs.items():
            facts[name] = _scored(entry)
    facts["Against"] = str(first.data)
    if first.split is not None:
        facts["Split"] = f"{first.split} ({first.reason})"
    if first.split_hash:
        facts["Split hash"] = first.split_hash
    if report is not None and report.weights:
        facts["Weights hash"] = report.weights
    num = len(first.scenes)
    named = ", ".join(scene.name for scene in first.scenes[:_MAX_NAMED])
    facts["Scenes"] = f"{num:,} ({named}{', ...' if num > _MAX_NAMED else ''})"
    facts["Pixels"] = f"{first.headline.num_pixels:,} that count in the headline"
    facts["Headline"] = first.headline.name
    scored = {entry.name for entry in first.headline.classes}
    facts["Classes"] = ", ".join(
        entry.name + ("" if entry.name in scored else " (not in the means)") for entry in first.classes.learnt
    )
    facts["Made by"] = f"ctrs {first.version}"
    rows = [join([element("dt", name), element("dd", value)]) for name, value in facts.items()]
    return join([*_openings(runs), element("dl", *rows, class_="facts")])


def _scored(report: EvaluationReport) -> str:
    """Name the checkpoint, or the first masks."""
    if report.checkpoint is not None:
        return str(report.checkpoint)
    more = len(report.scenes) - _MAX_NAMED
    named = ", ".join(scene.mask for scene in report.scenes[:_MAX_NAMED])
    return f"{named} and {more:,} more" if more > 0 else named


def _openings(runs: Runs) -> list[Html]:
    """Return a line on how often each run looked at these test scenes."""
    times = {name: report.test_openings for name, report in runs.items() if report.test_openings is not None}
    if not times:
        return []
    if max(times.values()) == 1:
        text = "The test split was opened for the first time"
        text += " by this run." if len(runs) == 1 else ", once by each of these runs."
        return [paragraph(text, class_="verdict good")]
    each = ", ".join(f"{_times(number)} by {'this run' if len(runs) == 1 else name}" for name, number in times.items())
    text = f"The test split was opened {each}: once choices are made by its figures, its scenes are no longer unseen."
    return [paragraph(text, class_="verdict warning")]


def _times(number: int) -> str:
    """Write how often something happened.

    >>> _times(1), _times(2), _times(7)
    ('once', 'twice', '7 times')
    """
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _place_sections(gallery: PlaceGallery, runs: list[str]) -> list[Section]:
    kinds = [
        ("worst", "Worst places", gallery.worst, "the greatest share of wrong pixels", "W"),
        *_disputed(gallery, runs),
        ("best", "Best places", gallery.best, "more than one class and the least share of wrong pixels", "B"),
    ]
    sections = []
    for key, title, places, what, letter in kinds:
        content = _places(gallery.classes, places, what, key, letter, cell_px=gallery.cell_px)
        sections.append(Section(key=key, title=title, content=content))
    sections.append(Section(key="map", title="Where these places lie", content=_maps(gallery)))
    return sections


def _disputed(gallery: PlaceGallery, runs: list[str]) -> list[tuple[str, str, list[ShownPlace], str, str]]:
    """Return the kinds of places that tell runs apart."""
    if len(runs) < 2:
        return []
    if len(runs) > 2:
        return [("disputed", "Most disputed places", gallery.disputed, "the greatest difference between the runs", "D")]
    first, second = runs
    return [
        (
            "better",
            f"Places that {second} maps better",
            gallery.better,
            f"the largest drop in errors from {first}",
            "G",
        ),
        ("worse", f"Places that {second} maps worse", gallery.worse, f"the largest rise in errors from {first}", "L"),
    ]


def _places(classes: ClassMap, places: list[ShownPlace], what: str, key: str, letter: str, *, cell_px: int) -> Html:
    if not places:
        return paragraph("There are none.")
    intro = paragraph(
        f"Squares of {cell_px} px with {what}, over all scenes; at least half of each is labelled. Errors are drawn "
        "over the grey scene."
    )
    figures = []
    for place, shown in enumerate(places, 1):
        sign = f"{letter}{place}"
        alt = f"Place {sign} in {shown.place.scene}: scene, truth, prediction, errors"
        drawn = place_panels(shown.panels, classes.colors, key=f"{key}-{place}", alt=alt)
        figures.append(figure(element("div", drawn, class_="wide"), _caption(classes, shown, sign)))
    return join([intro, _legend(classes), element("div", *figures, class_="places")])


def _caption(classes: ClassMap, shown: ShownPlace, sign: str) -> Html:
    place = shown.place
    size = f"rows {place.row_off:,} to {place.row_off + place.height - 1:,}"
    size += f", columns {place.col_off:,} to {place.col_off + place.width - 1:,}"
    counted = place.counted // len(shown.errors)
    if len(shown.errors) == 1:
        wrong = f"{_percent(place.errors, counted)} of {counted:,} px wrong"
    else:
        each = ", ".join(f"{name} {_percent(errors, counted)}" for name, errors in shown.errors.items())
        wrong = f"wrong of {counted:,} px: {each}"
    parts = [element("strong", sign), f" {place.scene}, {size}: {wrong}"]
    if shown.confused is not None:
        true, predicted, pixels = shown.confused
        as_what = "not predicted" if predicted is None else f"mapped as {classes.names[predicted]}"
        parts.append(f"; most often {classes.names[true]} {as_what} ({_percent(pixels, place.errors)} of the errors)")
    return join([*parts, "."])


def _percent(part: int, whole: int) -> str:
    """Write a share that does not break at the end of a line; what is not nothing never looks like it.

    >>> [_percent(*each).split() for each in ((1, 4), (1, 100_000), (0, 5), (99_999, 100_000))]
    [['25.0', '%'], ['<', '0.1', '%'], ['0', '%'], ['>', '99.9', '%']]
    """
    if part in (0, whole):
        text = "100 %" if part else "0 %"
    else:
        percent = 100 * part / whole
        text = "< 0.1 %" if percent < 0.1 else "> 99.9 %" if percent > 99.9 else f"{percent:.1f} %"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _legend(classes: ClassMap) -> Html:
    entries = [(swatch(entry.color), entry.name) for entry in classes.learnt]
    nothing = element("span", class_="swatch hatched")
    return legend([*entries, (nothing, "no label or no prediction"), (swatch(ERROR_COLOR), "wrong")])


def _maps(gallery: PlaceGallery) -> Html:
    if not gallery.maps:
        return paragraph("There are none.")
    marks: dict[str, list[PlaceMark]] = {}
    kinds: list[tuple[str, MarkKind, list[ShownPlace]]] = [
        ("B", "best", gallery.best), ("D", "disputed", gallery.disputed), ("G", "disputed", gallery.better),
        ("L", "disputed", gallery.worse), ("W", "worst", gallery.worst),
    ]  # fmt: skip
    for letter, kind, places in kinds:
        for place, shown in enumerate(places, 1):
            at = shown.place
            mark = PlaceMark(
                label=f"{letter}{place}", row_off=at.row_off, col_off=at.col_off, height=at.height,
                width=at.width, kind=kind,
            )  # fmt: skip
            marks.setdefault(at.scene, []).append(mark)
    top = max(float(np.nanmax(entry.error_rates)) for entry in gallery.maps)
    figures = [figure(_overview(entry, marks.get(entry.name, []), top), entry.name) for entry in gallery.maps]
    intro = paragraph(
        "Scenes that hold the places above, grey; the redder a square, the greater its share of wrong pixels, up to "
        f"{100 * top:.1f} % on the same scale for all scenes."
    )
    return join([intro, element("div", *figures, class_="gallery")])


def _overview(entry: SceneMap, marks: list[PlaceMark], top: float) -> Html:
    alt = f"Scene {entry.name}: share of errors by place"
    return scene_overview(
        entry.image, entry.error_rates, marks, top=top, scene_shape=entry.shape, cell_px=entry.cell_px, alt=alt
    )
