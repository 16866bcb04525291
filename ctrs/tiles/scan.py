"""One pass over the pixels of all scenes: each stored block is read once, tiles are cut, everything is counted."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rasterio.errors import NotGeoreferencedWarning

from ctrs.errors import CtrsError
from ctrs.progress import Progress, no_progress
from ctrs.tiles.counting import CountPlan, RowCounts, scene_facts, scene_preview
from ctrs.tiles.crew import BrokenScene, Crew, FinishedRow
from ctrs.tiles.cutting import KINDS, CutTile
from ctrs.tiles.facts import SceneFacts, preview_edge, preview_step
from ctrs.tiles.findings import Findings
from ctrs.tiles.journal import CutRow, Journal
from ctrs.tiles.manifest import SPLITS
from ctrs.tiles.scenes import ReadyScene, ReadySource
from ctrs.tiles.source_counts import add_source_counts
from ctrs.tiles.streams import SceneLayout, Stream, pixel_bytes
from ctrs.tiles.tile_grid import TileGrid

JOURNAL_FILE = "journal.jsonl"

RESULT_DIR = "result"
"""Folder, beside the tiles just cut, where they go when their splits are known."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What one pass over all scenes found.

    Args:
        tiles: All tiles, those not kept too, in the order of scene, row, column.
        facts: By the name of the scene.
        rows: Counts of the rows of tiles that the facts were added up from, by the name of the scene.
    """

    tiles: list[CutTile]
    facts: dict[str, SceneFacts]
    rows: dict[str, tuple[CountPlan, list[RowCounts]]] = field(repr=False)

    def facts_of(self, placed: Iterable[CutTile]) -> dict[str, SceneFacts]:
        """Return the facts where only these tiles are kept: the others were cut, but are in no split."""
        kept: dict[str, set[tuple[int, int]]] = {name: set() for name in self.facts}
        before: dict[str, int] = dict.fromkeys(self.facts, 0)
        for tile in placed:
            kept[tile.scene].add((tile.row, tile.col))
        for tile in self.tiles:
            if tile.scene in before:
                before[tile.scene] += tile.kept
        facts = dict(self.facts)
        for name, places in kept.items():
            if len(places) < before[name]:
                plan, rows = self.rows[name]
                flags = np.zeros((len(plan.grid.rows.spans), len(plan.grid.cols.spans)), bool)
                for row, col in places:
                    flags[row, col] = True
                fresh = scene_facts(plan, rows, flags, self.facts[name].num_px, self.facts[name].preview)
                facts[name] = replace(
                    self.facts[name],
                    tiled_counts=fresh.tiled_counts,
                    left_out_counts=fresh.left_out_counts,
                    coverage=fresh.coverage,
                )
        return facts


def scan(
    ready: ReadySource,
    folder: Path,
    *,
    write: bool,
    min_valid: float = 0.0,
    workers: int = 1,
    progress: Progress = no_progress,
    findings: Findings | None = None,
) -> Scan:
    """Read all scenes once, count their pixels, and write the tiles that earlier, interrupted work has not written.

    Args:
        ready: The scenes.
        folder: Folder of unfinished work; left alone where nothing is written.
        write: False: everything is counted, nothing is written.
        min_valid: Least share of valid pixels of a tile that is kept; a tile without any is never kept.
        workers: Threads.
        progress: Called after each row of tiles.
        findings: Takes scenes that cannot be read to the end; they have no tiles and no facts in what is returned.

    Raises:
        CtrsError: An image or a label cannot be read, and there is nothing that takes findings.
        OutputError: A tile cannot be written.
    """
    plans = {scene.name: _plan(scene, ready) for scene in ready.scenes}
    journal: Journal | None = None
    if write:
        for kind in KINDS:
            (folder / kind).mkdir(parents=True, exist_ok=True)
        journal = Journal(folder / JOURNAL_FILE)
    places = {kind: [folder / kind, *(folder / RESULT_DIR / kind / split for split in SPLITS)] for kind in KINDS}
    rows: dict[str, dict[int, CutRow]] = {scene.name: {} for scene in ready.scenes}
    streams: list[Stream] = []
    parts = max(1, -(-4 * workers // len(ready.scenes)))
    for scene in ready.scenes:
        plan = plans[scene.name]
        layout = SceneLayout.of(scene, plan, ready.classes)
        for segment in layout.segments(parts):
            pending: list[int] = []
            for number in segment:
                found = journal.finished(scene.name, number, plan, places) if journal is not None else None
                if found is None:
                    pending.append(number)
                else:
                    rows[scene.name][number] = found
            if pending:
                streams.append(Stream(layout, pending))
    total = sum(plan.grid.num_tiles for plan in plans.values())
    done = sum(len(row.tiles) for found in rows.values() for row in found.values())
    progress(done, total, "tiling")

    def take(news: FinishedRow | BrokenScene) -> None:
        nonlocal done
        if isinstance(news, BrokenScene):
            if findings is None:
                raise news.error
            findings.fault("files", news.error, scene=news.scene)
            return
        if journal is not None:
            journal.add(news.scene, news.number, news.row)
        rows[news.scene][news.number] = news.row
        done += len(news.row.tiles)
        progress(done, total, "tiling")

    def refuse(name: str, error: CtrsError) -> None:
        if findings is None:
            raise error
        findings.fault("files", error, scene=name)

    with warnings.catch_warnings():  # of the process: set here, before the threads that write tiles begin
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        Crew(streams, folder if write else None, min_valid).run(workers, take)
        tiles, facts, counted = _add_up(ready, plans, rows)
        scenes = [scene for scene in ready.scenes if scene.name in facts]
        facts = add_source_counts(scenes, facts, workers=workers, progress=progress, on_error=refuse)
    return Scan(tiles=[tile for tile in tiles if tile.scene in facts], facts=facts, rows=counted)


def _add_up(
    ready: ReadySource, plans: Mapping[str, CountPlan], rows: dict[str, dict[int, CutRow]]
) -> tuple[list[CutTile], dict[str, SceneFacts], dict[str, tuple[CountPlan, list[RowCounts]]]]:
    """Return tiles, facts and counts of the scenes that were read to their end; takes the rows away."""
    tiles: list[CutTile] = []
    facts: dict[str, SceneFacts] = {}
    counted: dict[str, tuple[CountPlan, list[RowCounts]]] = {}
    for scene in ready.scenes:
        plan, finished = plans[scene.name], rows.pop(scene.name)
        if len(finished) < len(plan.grid.rows.spans):
            continue
        own = [finished[number] for number in sorted(finished)]
        kept = np.array([[tile.kept for tile in row.tiles] for row in own])
        counts = [row.counts for row in own]
        counted[scene.name] = plan, counts
        num_px = scene.grid.height * scene.grid.width
        facts[scene.name] = scene_facts(plan, counts, kept, num_px, scene_preview(plan, counts))
        tiles.extend(tile for row in own for tile in row.tiles)
    return tiles, facts, counted


def _plan(scene: ReadyScene, ready: ReadySource) -> CountPlan:
    grid, imagery = scene.grid, scene.imagery
    edge = preview_edge(len(ready.scenes), pixel_bytes(scene))
    return CountPlan(
        grid=TileGrid.over(grid.height, grid.width, scene.tile_px, scene.stride_px),
        num_classes=ready.classes.num_classes,
        num_bands=len(imagery.names),
        dtype=imagery.dtype,
        step=preview_step(grid.height, grid.width, edge),
    )
