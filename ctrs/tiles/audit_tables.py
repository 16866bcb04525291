"""The tables of the report on a data set: findings, coverage, splits, scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ctrs.classes import LandClass
from ctrs.raster.geotiff import crs_name
from ctrs.report.charts import Bar, stacked_bars
from ctrs.report.html import Column, Content, Html, details, element, join, legend, paragraph, swatch, table
from ctrs.tiles.audit import Audit, SceneAudit, Shift
from ctrs.tiles.displacement import MAX_DISTANCE_PX, MIN_SCORE, is_displaced
from ctrs.tiles.findings import Finding, Level
from ctrs.tiles.manifest import SPLITS

MAX_ROWS = 500
"""Most rows of a table; the manifest holds all."""

_LEVELS: tuple[Level, ...] = ("fault", "warning", "note")


def share(part: float, whole: float) -> str:
    """Write a share; what is not all or nothing never looks like it.

    >>> share(1, 4), share(999_999, 1_000_000), share(1, 1_000_000), share(0, 0), share(3, 3)
    ('25.00 %', '> 99.99 %', '< 0.01 %', '–', '100 %')
    """
    if not whole:
        return "–"
    if part in (0, whole):
        return "100 %" if part else "0 %"
    percent = 100 * part / whole
    if percent < 0.01:
        return "< 0.01 %"
    return "> 99.99 %" if percent > 99.99 else f"{percent:.2f} %"


def count(number: int, noun: str) -> str:
    """Write a number with its noun.

    >>> count(1, "tile"), count(1200, "tile")
    ('1 tile', '1,200 tiles')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def class_label(entry: LandClass) -> Html:
    """Return a class with its colour."""
    return join([swatch(entry.color), "\N{NO-BREAK SPACE}", entry.name])


def class_legend(audit: Audit) -> Html:
    """Return the legend of the classes that are learnt."""
    return legend((swatch(entry.color), entry.name) for entry in audit.classes.learnt)


def findings_table(findings: Sequence[Finding]) -> Html:
    """Return the findings, faults first."""
    if not findings:
        return paragraph("None of the checks found anything to say.")
    ordered = sorted(findings, key=lambda finding: _LEVELS.index(finding.level))
    rows = [
        (
            element("span", finding.level, class_=f"level {finding.level}"),
            finding.check,
            finding.scene or "",
            element("span", finding.message, class_="message"),
        )
        for finding in ordered[:MAX_ROWS]
    ]
    columns = [Column(title=title) for title in ("level", "check", "scene", "what was found, and what to do")]
    shown = table(columns, rows, caption="Faults stop ctrs prepare, warnings and notes do not.")
    return join([shown, more(len(ordered), MAX_ROWS, "finding")])


def more(total: int, shown: int, noun: str) -> Html:
    """Return a line that says how many are not shown, nothing where all are."""
    hidden = total - shown
    return paragraph(f"And {hidden:,} more {noun}{'s' * (hidden != 1)}.", class_="soft") if hidden > 0 else Html()


def sums(counts: Sequence[tuple[int, ...]]) -> list[int]:
    """Add up counts place by place.

    >>> sums([(1, 2), (10, 20)])
    [11, 22]
    """
    return [sum(of_class) for of_class in zip(*counts, strict=True)]


def coverage_tables(audit: Audit) -> Html:
    """Return the pixels by the number of tiles that hold them."""
    counts = [scene.facts.coverage for scene in audit.scenes]
    longest = max((len(of_scene) for of_scene in counts), default=0)
    padded = [of_scene + (0,) * (longest - len(of_scene)) for of_scene in counts]
    totals = sums(padded)
    whole = sum(totals)
    intro = paragraph(
        f"In how many tiles of {audit.tile_px} px, {audit.stride_px} px apart, each pixel with imagery lies. "
        "Pixels in no tile stand in tiles that were left out."
    )
    if not whole:
        return join([intro, paragraph("No pixel holds imagery.")])
    columns = [Column(title="tiles"), Column(title="px", numeric=True), Column(title="share", numeric=True)]
    rows = [(str(number), f"{px:,}", share(px, whole)) for number, px in enumerate(totals)]
    parts = [intro, table(columns, rows, caption="Pixels with imagery by number of tiles")]
    missed = [
        (scene.name, f"{of_scene[0]:,}", share(of_scene[0], sum(of_scene)))
        for scene, of_scene in zip(audit.scenes, padded, strict=True)
        if of_scene[0]
    ]
    if missed:
        columns = [
            Column(title="scene"),
            Column(title="px in no tile", numeric=True),
            Column(title="share", numeric=True),
        ]
        shown = table(columns, missed[:MAX_ROWS], caption="Scenes with pixels in no tile")
        parts.append(
            details(f"Scenes with pixels in no tile ({len(missed):,})", shown, more(len(missed), MAX_ROWS, "scene"))
        )
    return join(parts)


def split_tables(audit: Audit) -> Html:
    """Return the classes of each split as bars and as a table."""
    present = [split for split in SPLITS if split in audit.class_px]
    if not present:
        return paragraph("There are no tiles.")
    classes = audit.classes.learnt
    tiles = {split: sum(tile.split == split for tile in audit.tiles) for split in present}
    scenes = {split: len({tile.scene for tile in audit.tiles if tile.split == split}) for split in present}
    bars = [
        Bar(name=split, values=tuple(map(float, audit.class_px[split])), note=count(tiles[split], "tile"))
        for split in present
    ]
    chart = stacked_bars(
        bars, [entry.name for entry in classes], [entry.color for entry in classes],
        alt=f"Shares of the classes in {', '.join(present)}; the numbers stand in the table below",
    )  # fmt: skip
    columns = [Column(title="class")]
    for split in present:
        columns += [Column(title=f"{split}, px", numeric=True), Column(title="share", numeric=True)]
    rows: list[list[Content]] = []
    for index, entry in enumerate(classes):
        row: list[Content] = [class_label(entry)]
        for split in present:
            pixels = audit.class_px[split]
            row += [f"{pixels[index]:,}", share(pixels[index], sum(pixels))]
        rows.append(row)
    foot: list[Content] = ["all classes"]
    for split in present:
        foot += [f"{sum(audit.class_px[split]):,}", ""]
    left_out = sum(tile.split is None for tile in audit.tiles)
    total = sum(tiles.values())
    sizes = table(
        [Column(title="split"), Column(title="scenes", numeric=True), Column(title="tiles", numeric=True),
         Column(title="share of the tiles", numeric=True)],
        [(split, f"{scenes[split]:,}", f"{tiles[split]:,}", share(tiles[split], total)) for split in present],
        caption="Size of the splits" + (f"; {count(left_out, 'tile')} left out" if left_out else ""),
    )  # fmt: skip
    shares = table(
        columns, rows, caption="Pixels of the masks by class; ground in several tiles counts in each", foot=foot
    )
    return join([sizes, class_legend(audit), element("div", chart, class_="wide"), shares])


def scenes_table(audit: Audit) -> Html:
    """Return a row for each scene; those that a finding names come first where not all can be shown."""
    if not audit.scenes:
        return paragraph("No scene could be read.")
    scenes = list(audit.scenes)
    if len(scenes) > MAX_ROWS:
        named = {finding.scene for finding in audit.findings if finding.level != "note"}
        scenes.sort(key=lambda scene: scene.name not in named and not scene.known_bad and not _is_shifted(scene))
    fields: list[tuple[Column, Callable[[SceneAudit], Content]]] = [
        (Column(title="scene"), _scene_name),
        (Column(title="split"), lambda scene: scene.split),
        (Column(title="size, px", numeric=True), lambda scene: f"{scene.grid.width:,} × {scene.grid.height:,}"),
        (Column(title="CRS"), lambda scene: crs_name(scene.grid.crs)),
        (Column(title="pixel, m", numeric=True), lambda scene: _metres(scene.pixel_size_m)),
        (Column(title="tiles", numeric=True), lambda scene: f"{scene.num_tiles:,}"),
        (Column(title="valid", numeric=True), lambda scene: share(scene.facts.valid_px, scene.facts.num_px)),
        (Column(title="label shift, px", numeric=True), _shift),
        (
            Column(title="certainty", numeric=True),
            lambda scene: "–" if scene.shift is None else f"{scene.shift.score:.1f}",
        ),
        (Column(title="darkest", numeric=True), lambda scene: _worst(scene.facts.low_px, scene)),
        (Column(title="saturated", numeric=True), lambda scene: _worst(scene.facts.high_px, scene)),
    ]
    rows = [[field(scene) for _, field in fields] for scene in scenes[:MAX_ROWS]]
    shown = table([column for column, _ in fields], rows, caption=count(len(scenes), "scene"), is_dense=True)
    files = [(scene.name, scene.source_image, scene.source_label) for scene in scenes[:MAX_ROWS]]
    columns = [Column(title="scene"), Column(title="image"), Column(title="label")]
    meaning = paragraph(
        "Label shift: columns and rows that the label would have to move to fit the image best, estimated from edges; "
        f"marked above {MAX_DISTANCE_PX:g} px. Below a certainty of {MIN_SCORE:g}, in grey, it means little. "
        "Darkest and saturated: valid pixels at the least and greatest value that the dtype can hold, in the band that "
        "has most of them.",
        class_="soft",
    )
    return join(
        [
            shown,
            more(len(scenes), MAX_ROWS, "scene"),
            meaning,
            details("Files", table(columns, files, caption="Files of the scenes")),
        ]
    )


def _scene_name(scene: SceneAudit) -> Content:
    if not scene.known_bad:
        return scene.name
    return join([scene.name, " ", element("span", "known bad", class_="level warning")])


def _worst(pixels: tuple[int, ...], scene: SceneAudit) -> str:
    return share(max(pixels, default=0), scene.facts.valid_px)


def _metres(size: float | None) -> str:
    return "–" if size is None else f"{size:.4g}"


def _is_certain(shift: Shift | None) -> bool:
    return shift is not None and shift.score >= MIN_SCORE


def _is_shifted(scene: SceneAudit) -> bool:
    return scene.shift is not None and is_displaced(scene.shift)


def _shift(scene: SceneAudit) -> Content:
    if scene.shift is None:
        return "–"
    text = f"{_signed(scene.shift.cols)}, {_signed(scene.shift.rows)}"
    if _is_shifted(scene):
        return element("span", text, class_="level warning")
    return text if _is_certain(scene.shift) else element("span", text, class_="soft")


def _signed(value: float) -> str:
    return "0" if round(value, 1) == 0 else f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")
