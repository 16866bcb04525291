"""Counts before and after, unknown colours and classes: what the checks make of the facts of a pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrs.classes import ClassMap, LandClass
from ctrs.config import PrepareConfig
from ctrs.errors import DataError, UnknownColorError
from ctrs.tiles.checks import check_classes, check_colours, check_counts, check_coverage
from ctrs.tiles.facts import Preview, SceneFacts
from ctrs.tiles.findings import Findings
from ctrs.tiles.layout import SceneSource
from ctrs.tiles.likeness import alike, check_likeness
from ctrs.tiles.scenes import ReadyScene

CLASSES = ClassMap(
    classes=tuple(
        LandClass(value=value, name=name, color=color)
        for value, (name, color) in enumerate({"land": (0, 90, 0), "roof": (200, 0, 0), "road": (9, 9, 9)}.items())
    )
)


def preview(pixels: np.ndarray | None = None) -> Preview:
    pixels = np.zeros((1, 4, 4), np.uint8) if pixels is None else pixels
    shape = pixels.shape[1:]
    return Preview(step=1, pixels=pixels, valid=np.ones(shape, bool), mask=np.zeros(shape, np.uint8))


def facts(counts: tuple[int, int, int] = (60, 30, 10), **changes: Any) -> SceneFacts:
    total = sum(counts)
    values: dict[str, Any] = {
        "num_px": total, "valid_px": total, "label_counts": counts, "ignored_px": 0, "tiled_counts": counts,
        "left_out_counts": (0, 0, 0), "coverage": (0, total), "low_px": (0,), "high_px": (0,), "preview": preview(),
    }  # fmt: skip
    return SceneFacts(**{**values, **changes})


def scene(name: str) -> ReadyScene:
    source = SceneSource(name=name, split="train", image=Path(f"{name}.tif"), label=Path(f"{name}_label.tif"))
    return ReadyScene(source=source, imagery=None, label=None, eroded=None, tile_px=64, stride_px=64)  # type: ignore[arg-type]


def quiet() -> Findings:
    return Findings(issues_warnings=False)


def said(findings: Findings) -> list[str]:
    return [f"{finding.level} {finding.check}: {finding.message}" for finding in findings.entries]


def test_uncovered_pixels_are_a_fault_unless_tiles_were_left_out() -> None:
    scenes = {"a": facts(), "b": facts(coverage=(7, 93))}
    findings = quiet()
    check_coverage({"a": facts()}, PrepareConfig(), findings)
    assert findings.entries == []
    check_coverage(scenes, PrepareConfig(), findings)
    assert said(findings)[0].startswith("fault coverage: scene b: 7 valid pixels are in no tile")
    findings = quiet()
    check_coverage(scenes, PrepareConfig(min_valid=0.4), findings)
    assert said(findings) == [
        "note coverage: 7 valid pixels (3.50%) in 1 of 2 scenes are in no tile, because less than 0.4 of their tiles "
        "is valid (--min-valid)"
    ]


def test_lost_pixels_are_a_fault() -> None:
    findings = quiet()
    check_counts({"a": facts(tiled_counts=(50, 30, 10), left_out_counts=(10, 0, 0))}, CLASSES, findings)
    assert findings.entries == []
    check_counts({"a": facts(), "b": facts(tiled_counts=(61, 29, 10))}, CLASSES, findings)
    assert [text.split(" (")[0] for text in said(findings)] == [
        "fault coverage: scene b: 60 px of class land in the label, but 61 px in the masks of its tiles",
        "fault coverage: scene b: 30 px of class roof in the label, but 29 px in the masks of its tiles",
    ]
    with pytest.raises(DataError, match="and 1 more fault"):
        findings.raise_faults()


def colours(scenes: Mapping[str, SceneFacts], config: PrepareConfig) -> Findings:
    findings = quiet()
    check_colours([scene(name) for name in scenes], scenes, CLASSES, config, findings)
    return findings


def test_unknown_colours_up_to_a_share() -> None:
    scenes = {
        "a": facts(unknown={"(1, 2, 3)": 2, "(4, 5, 6)": 1}, first_unknown=(4, 5)),
        "b": facts(unknown={"(1, 2, 3)": 1}, first_unknown=(0, 9)),
        "c": facts(),
    }
    refused = colours(scenes, PrepareConfig(max_unknown=0.02))
    assert [(finding.level, finding.scene) for finding in refused.entries] == [("fault", "a"), ("warning", "b")]
    assert "a_label.tif: unknown label colour (1, 2, 3) in 2 px, (4, 5, 6) in 1 px" in refused.entries[0].message
    with pytest.raises(UnknownColorError, match="--max-unknown"):
        refused.raise_faults()
    (message,) = said(colours(scenes, PrepareConfig(max_unknown=0.03)))
    assert message.startswith(
        "warning colours: 4 px in 2 of 3 labels have a colour that the class table does not hold ((1, 2, 3) in 3 px, "
        "(4, 5, 6) in 1 px, first in a_label.tif at row 4, column 5)"
    )
    assert len(colours(scenes, PrepareConfig()).faults) == 2


def test_changed_colours_are_counted() -> None:
    (message,) = said(colours({"a": facts(), "b": facts(num_changed=5), "c": facts(num_changed=2)}, PrepareConfig()))
    assert message.startswith("warning colours: b_label.tif: 5 px have colours that the legend does not hold")
    assert message.endswith("7 px in 2 of 3 labels")


def test_classes_that_are_nowhere_or_only_elsewhere() -> None:
    scenes = {"a": facts((60, 40, 0)), "b": facts((90, 10, 0))}
    findings = quiet()
    check_classes(scenes, {"train": (150, 0, 0), "test": (0, 50, 0)}, CLASSES, findings)
    dropped, absent = said(findings)
    assert dropped.startswith(
        "warning classes: the labels hold no pixel of class road, though the class table names it"
    )
    assert absent == (
        "warning classes: training tiles hold no pixel of class roof, which only test holds; a model cannot learn it"
    )
    findings = quiet()
    check_classes({"a": facts((0, 0, 0), valid_px=100)}, {"train": (0, 0, 0)}, CLASSES, findings)
    assert said(findings)[0].startswith("fault classes: the labels hold no pixel of any class (land, roof, road)")


def test_classes_that_resampling_loses() -> None:
    coarse = facts((60, 30, 0), source_counts=(5_900, 3_050, 45), source_px=9_000, source_px_area=0.01)
    findings = quiet()
    check_classes({"a": coarse, "b": facts((9, 9, 0))}, {"train": (60, 30, 0)}, CLASSES, findings, pixel_m=4.0004)
    assert said(findings) == [
        "warning classes: class road: 45 px in the labels, none left at a ground pixel of 4 m; choose a finer --gsd"
    ]
    findings = quiet()
    check_classes({"a": facts((60, 30, 0), polygon_counts=(2, 4, 1))}, {}, CLASSES, findings)
    assert said(findings)[0].startswith(
        "warning classes: 1 polygon of class road covers no pixel centre on the grid of the tiles"
    )


def test_unknown_colours_are_a_share_of_the_label_in_its_file() -> None:
    scenes = {"a": facts(unknown={"(1, 2, 3)": 3}, source_counts=(900, 90, 7), source_px=1_000)}
    assert not colours(scenes, PrepareConfig(max_unknown=0.003)).faults
    assert colours(scenes, PrepareConfig(max_unknown=0.0029)).faults


def test_labels_of_one_class_are_noted() -> None:
    findings = quiet()
    check_classes({"a": facts(), "b": facts((100, 0, 0)), "c": facts((0, 0, 0), valid_px=9)}, {}, CLASSES, findings)
    assert said(findings) == [
        "note classes: 1 of 3 labels hold one class: land alone in 1 (b)",
        "warning classes: 1 of 3 labels hold no class at all, only ignored pixels (c); check them",
    ]


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 250, (3, 8, 8))
    return coarse.repeat(12, 1).repeat(12, 2).astype(np.uint8)


def test_scenes_that_look_like_copies() -> None:
    brighter = (picture(1) * 0.8 + 20 + np.random.default_rng(2).normal(0, 4, (3, 96, 96))).astype(np.uint8)
    finer = picture(1).repeat(2, 1).repeat(2, 2)
    previews = {"a": preview(picture(1)), "b": preview(picture(3)), "c": preview(brighter), "d": preview(finer)}
    assert [(one, other) for one, other, _ in alike(previews)] == [("a", "c"), ("a", "d"), ("c", "d")]
    findings = quiet()
    scenes = {name: facts(preview=value) for name, value in previews.items()}
    splits = {"a": "train+val", "b": "test", "c": "test", "d": "val"}
    check_likeness(scenes, splits, ["scenes c (test) and d (val) hold the same pixels"], findings)
    across, within = findings.entries
    assert across.message.startswith("scenes of different splits look like copies: a (train+val) and c (test);")
    assert within.level == "note"
    assert "a (train+val) and d (val)" in within.message


def test_flat_scenes_are_like_nothing() -> None:
    water = np.full((3, 96, 96), 40, np.uint8)
    ripples = np.random.default_rng(0).integers(38, 43, (3, 96, 96)).astype(np.uint8)
    assert alike({"a": preview(water), "b": preview(water), "c": preview(ripples)}) == []
    small = preview(picture(1)[:, :10, :10])
    assert alike({"a": small, "b": small}) == []
