"""The report on a data set as one page: the verdict first, then what proves it, in tables, maps and pictures."""

from __future__ import annotations

from pathlib import Path

from ctrs import __version__
from ctrs.jobs import write_text
from ctrs.report.html import Html, Section, element, join, page, paragraph
from ctrs.tiles.audit import Audit
from ctrs.tiles.audit_maps import split_maps
from ctrs.tiles.audit_pictures import contact_sheet, radiometry_charts, scene_previews
from ctrs.tiles.audit_proof import is_complete, proof_tables
from ctrs.tiles.audit_tables import (
    count,
    coverage_tables,
    findings_table,
    scenes_table,
    split_tables,
)


def write_page(path: Path, audit: Audit) -> Path:
    """Write the report on a data set; the same data give the same bytes.

    Args:
        path: HTML file to write, in a folder that exists.
        audit: What was found.

    Returns:
        ``path``.

    Raises:
        OutputError: The file cannot be written.
    """
    write_text(path, render_page(audit))
    return path


def render_page(audit: Audit) -> str:
    """Return the report on a data set as a page that needs no other file."""
    sections = [
        Section(key="findings", title="Findings", content=findings_table(audit.findings)),
        Section(key="classes", title="Nothing lost: classes before and after", content=proof_tables(audit)),
        Section(key="coverage", title="Coverage", content=coverage_tables(audit)),
        Section(key="splits", title="Splits and their classes", content=split_tables(audit)),
        Section(key="map", title="Map of the splits", content=split_maps(audit)),
        Section(key="tiles", title="Tiles under their masks", content=contact_sheet(audit)),
        Section(key="scenes", title="Scenes", content=scenes_table(audit)),
        Section(key="radiometry", title="Radiometry", content=radiometry_charts(audit)),
        Section(key="previews", title="Scenes under their labels", content=scene_previews(audit)),
    ]
    return page(
        title=f"Data report: {audit.name}",
        lead=_lead(audit),
        sections=sections,
        foot=f"Made by ctrs {__version__}. The same source and options give the same page.",
        generator=f"ctrs {__version__}",
    )


def _lead(audit: Audit) -> Html:
    kind, verdict = _verdict(audit)
    names = [entry.name + ("" if entry.scored else " (not scored)") for entry in audit.classes.learnt]
    ignored = [entry.name for entry in audit.classes.classes if entry.ignored]
    facts = {
        "Source": audit.source,
        "Preset": audit.preset or "none: read by its files",
        "Scenes": f"{len(audit.scenes):,}",
        "Tiles": _tiles(audit),
        "Classes": ", ".join(names) + (f"; ignored: {', '.join(ignored)}" if ignored else ""),
        "Bands": f"{', '.join(audit.band_names)} ({audit.dtype})" if audit.band_names else "–",
        "Made by": f"ctrs {__version__}",
    }
    rows = [join([element("dt", name), element("dd", value)]) for name, value in facts.items()]
    return join([paragraph(verdict, class_=f"verdict {kind}"), element("dl", *rows, class_="facts")])


def _tiles(audit: Audit) -> str:
    if not audit.tiles:
        return "none"
    left_out = sum(tile.split is None for tile in audit.tiles)
    text = f"{count(len(audit.tiles) - left_out, 'tile')} of {audit.tile_px} px, {audit.stride_px} px apart"
    return text + (f"; {count(left_out, 'tile')} left out" if left_out else "")


def _verdict(audit: Audit) -> tuple[str, str]:
    """Return the kind of the verdict, and the verdict."""
    warnings = sum(finding.level == "warning" for finding in audit.findings)
    done = "tiles were written" if audit.written else "checked only, nothing was written"
    unread = {finding.scene for finding in audit.findings if finding.level == "fault" and finding.scene is not None}
    unread -= {scene.name for scene in audit.scenes}
    kept = "each label pixel is accounted for" if audit.scenes else "no scene could be read"
    if unread and audit.scenes:
        kept = f"{count(len(unread), 'scene')} could not be read; of the others, {kept}"
    if not is_complete(audit.scenes):
        kept = "class counts before and after differ"
    summary = f"{count(audit.num_faults, 'fault')}, {count(warnings, 'warning')}: {kept}; {done}."
    if audit.num_faults or not audit.scenes or not is_complete(audit.scenes):
        return "fault", f"{summary} Mend the data before you train on them."
    if warnings:
        return "warning", f"{summary} Read the warnings before you train."
    return "good", summary
