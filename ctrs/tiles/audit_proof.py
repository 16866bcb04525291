"""The proof in the report that nothing was lost: classes before and after, and what the class table does not hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ctrs.report.html import Column, Content, Html, details, element, join, paragraph, table
from ctrs.tiles.audit import Audit, SceneAudit, is_resampled, resampled_to_m, source_m2, source_px, tile_m2
from ctrs.tiles.audit_tables import MAX_ROWS, class_label, more, share, sums


def is_complete(scenes: Iterable[SceneAudit]) -> bool:
    """Tell whether the tiles and what was left out hold exactly the label pixels of each class of each scene."""
    return all(
        tiled + left_out == label
        for scene in scenes
        for label, tiled, left_out in zip(
            scene.facts.label_counts, scene.facts.tiled_counts, scene.facts.left_out_counts, strict=True
        )
    )


def proof_tables(audit: Audit) -> Html:
    """Return the class counts before and after, of all scenes and of each."""
    intro = paragraph(
        "Pixels with imagery and a label, counted in the labels as they came and again in the masks of the tiles, each "
        "pixel once. Ground that no tile holds, because too little of the tile is valid, counts as left out."
    )
    if not audit.scenes:
        return join([intro, paragraph("No scene could be read.")])
    if is_resampled(audit.scenes):
        size = resampled_to_m(audit.scenes)
        pixels = "" if size is None else f" to ground pixels of {size:.4g} m"
        intro = join(
            [
                intro,
                paragraph(
                    f"The data were resampled{pixels}. What the files hold, where there is imagery, stands beside what "
                    "is on the grid of the tiles; each pixel of the labels there is the nearest of the file, so small "
                    "things get fewer or none. The proof is of the tiles' grid."
                ),
            ]
        )
    parts = [intro, _proof_of(audit, audit.scenes, f"All scenes ({len(audit.scenes):,})")]
    parts.append(_unknown_table(audit.scenes))
    if len(audit.scenes) > 1:
        # Those where something is missing are what one looks for.
        ordered = sorted(audit.scenes, key=lambda scene: is_complete([scene]))
        tables = [_proof_of(audit, [scene], scene.name) for scene in ordered[: MAX_ROWS // 5]]
        parts.append(details("Each scene", *tables, more(len(ordered), MAX_ROWS // 5, "scene")))
    return join(parts)


def _proof_of(audit: Audit, scenes: Sequence[SceneAudit], caption: str) -> Html:
    facts = [scene.facts for scene in scenes]
    label = sums([fact.label_counts for fact in facts])
    tiled = sums([fact.tiled_counts for fact in facts])
    left_out = sums([fact.left_out_counts for fact in facts])
    names: list[Content] = [*(class_label(entry) for entry in audit.classes.learnt), "all classes"]
    fields = [(Column(title="class"), names)]
    if is_resampled(scenes):
        fields += _source_fields(scenes)
    fields += [
        _pixels("label, px", label),
        _shares(label),
        _pixels("tiles, px", tiled),
        _pixels("left out, px", left_out),
        (
            Column(title="before = after"),
            [
                _equality(before, after + out)
                for before, after, out in zip(
                    [*label, sum(label)], [*tiled, sum(tiled)], [*left_out, sum(left_out)], strict=True
                )
            ],
        ),
    ]
    *rows, foot = zip(*(cells for _, cells in fields), strict=True)
    ignored, valid = sum(fact.ignored_px for fact in facts), sum(fact.valid_px for fact in facts)
    changed, total = sum(fact.num_changed for fact in facts), sum(fact.num_px for fact in facts)
    notes = [f"{ignored:,} px are ignored or unknown ({share(ignored, valid)} of {valid:,} px with imagery)"]
    notes.append(f"{total - valid:,} px hold no imagery ({share(total - valid, total)} of {total:,} px)")
    if changed:
        notes.append(f"{changed:,} px had a colour near one of the legend and were read as that")
    is_dense = is_resampled(scenes)
    shown = table([column for column, _ in fields], rows, caption=caption, foot=foot, is_dense=is_dense)
    return join([shown, paragraph("; ".join(notes) + ".", class_="soft")])


_Field = tuple[Column, list[Content]]


def _source_fields(scenes: Sequence[SceneAudit]) -> list[_Field]:
    """Return the columns of what the files hold, and of the ground that classes have before and after."""
    source, before, after = source_px(scenes), source_m2(scenes), tile_m2(scenes)
    fields = [_pixels("in the files, px", source)]
    if before is None or after is None:
        return [*fields, _shares(source)]
    return [*fields, _ground("in the files, m²", before), _shares(before), _ground("on tiles' grid, m²", after)]


def _pixels(title: str, counts: Sequence[int]) -> _Field:
    return Column(title=title, numeric=True), [f"{number:,}" for number in (*counts, sum(counts))]


def _ground(title: str, areas: Sequence[float]) -> _Field:
    return Column(title=title, numeric=True), [f"{area:,.0f}" for area in (*areas, sum(areas))]


def _shares(counts: Sequence[float]) -> _Field:
    return Column(title="share", numeric=True), [share(number, sum(counts)) for number in (*counts, sum(counts))]


def _equality(before: int, after: int) -> Html:
    if before == after:
        return element("span", "= equal", class_="level good")
    return element("span", f"≠ {after - before:+,} px".replace("-", "\N{MINUS SIGN}"), class_="level fault")


def _unknown_table(scenes: Sequence[SceneAudit]) -> Html:
    found: dict[str, list[tuple[int, SceneAudit]]] = {}
    for scene in scenes:
        for text, pixels in scene.facts.unknown.items():
            found.setdefault(text, []).append((pixels, scene))
    if not found:
        return paragraph("Every value and colour of the labels stands in the class table.")
    rows: list[tuple[Content, ...]] = []
    for text, places in sorted(found.items(), key=lambda item: (-sum(px for px, _ in item[1]), item[0])):
        names = ", ".join(_place(scene) for _, scene in places[:5])
        others = f" and {len(places) - 5:,} more" if len(places) > 5 else ""
        rows.append((text, f"{sum(px for px, _ in places):,}", names + others))
    columns = [Column(title="value or colour"), Column(title="px", numeric=True), Column(title="scenes")]
    caption = "Label values and colours that the class table does not hold; they are ignored"
    return join([table(columns, rows[:MAX_ROWS], caption=caption), more(len(rows), MAX_ROWS, "value")])


def _place(scene: SceneAudit) -> str:
    first = scene.facts.first_unknown
    return scene.name if first is None else f"{scene.name} (first at row {first[0]:,}, column {first[1]:,})"
