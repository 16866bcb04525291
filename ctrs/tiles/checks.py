"""What the counts of the pass over the pixels prove or give away: coverage, class counts, colours, classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ctrs.classes import ClassMap
from ctrs.config import PrepareConfig, SplitName
from ctrs.errors import DataError, LabelWarning, UnknownColorError
from ctrs.raster.names import shown
from ctrs.tiles.decoding import unknown_message, unknown_noun
from ctrs.tiles.facts import SceneFacts
from ctrs.tiles.findings import Findings
from ctrs.tiles.scenes import ReadyScene

_SHOWN = 5


def check_coverage(facts: Mapping[str, SceneFacts], config: PrepareConfig, findings: Findings) -> None:
    """Prove that each valid pixel is in a tile; say what ``min_valid`` left out."""
    uncovered = {name: fact.coverage[0] for name, fact in facts.items() if fact.coverage and fact.coverage[0]}
    valid = sum(fact.valid_px for fact in facts.values())
    if uncovered and config.min_valid == 0:
        name = next(iter(uncovered))
        findings.fault(
            "coverage",
            DataError(
                f"scene {name}: {uncovered[name]} valid pixels are in no tile, expected each in at least one "
                "(internal: please report this with the options used)"
            ),
            scene=name,
        )
    elif uncovered:
        findings.note(
            "coverage",
            f"{sum(uncovered.values())} valid pixels ({sum(uncovered.values()) / valid:.2%}) in {len(uncovered)} of "
            f"{len(facts)} scenes are in no tile, because less than {config.min_valid:g} of their tiles is valid "
            "(--min-valid)",
        )


def check_counts(facts: Mapping[str, SceneFacts], classes: ClassMap, findings: Findings) -> None:
    """Prove that the masks hold what the labels hold: equal counts of each class in each scene, exactly."""
    for name, fact in facts.items():
        after = [kept + left for kept, left in zip(fact.tiled_counts, fact.left_out_counts, strict=True)]
        for class_name, before, found in zip(classes.names, fact.label_counts, after, strict=True):
            if before != found:
                findings.fault(
                    "coverage",
                    DataError(
                        f"scene {name}: {before} px of class {class_name} in the label, but {found} px in the masks "
                        "of its tiles (internal: please report this with the options used)"
                    ),
                    scene=name,
                )


def check_colours(
    scenes: Sequence[ReadyScene],
    facts: Mapping[str, SceneFacts],
    classes: ClassMap,
    config: PrepareConfig,
    findings: Findings,
) -> None:
    """Refuse labels with too many pixels outside the class table; say what was ignored, and what was changed."""
    _check_changed(scenes, facts, findings)
    ignored: dict[str, tuple[Path, Mapping[str, int], tuple[int, int] | None]] = {}
    for scene in scenes:
        fact = facts[scene.name]
        found = [(scene.source.label, fact.unknown, fact.first_unknown)]
        if scene.source.label_eroded is not None:
            found.append((scene.source.label_eroded, fact.eroded_unknown, fact.eroded_first_unknown))
        for path, unknown, first in found:
            if not unknown:
                continue
            message = unknown_message(path, unknown_noun(unknown), unknown, first, classes)
            num_px = fact.num_px if fact.source_px is None else fact.source_px
            if sum(unknown.values()) > config.max_unknown * num_px:
                findings.fault("colours", UnknownColorError(message), scene=scene.name)
            else:
                ignored.setdefault(scene.name, (path, unknown, first))
    if ignored:
        name, (path, unknown, first) = next(iter(ignored.items()))
        number = sum(sum(counts.values()) for _, counts, _ in ignored.values())
        kinds = Counter[str]()
        for _, counts, _ in ignored.values():
            kinds.update(counts)
        common = ", ".join(f"{text} in {count} px" for text, count in kinds.most_common(_SHOWN))
        place = "" if first is None else f", first in {shown(path)} at row {first[0]}, column {first[1]}"
        findings.warn(
            "colours",
            f"{number} px in {len(ignored)} of {len(scenes)} labels have a {unknown_noun(unknown)} that the class "
            f"table does not hold ({common}{place}); they are ignored, as --max-unknown {config.max_unknown:g} allows",
            LabelWarning,
            scene=name if len(ignored) == 1 else None,
        )


def _check_changed(scenes: Sequence[ReadyScene], facts: Mapping[str, SceneFacts], findings: Findings) -> None:
    """Say how many label pixels were read as a legend colour that they only come near."""
    changed = {
        scene.name: facts[scene.name].num_changed
        for scene in scenes
        if scene.name in facts and facts[scene.name].num_changed
    }
    if changed:
        labels = {scene.name: scene.source.label for scene in scenes}
        first = next(iter(changed))
        findings.warn(
            "colours",
            f"{shown(labels[first])}: {changed[first]} px have colours that the legend does not hold and were read as "
            f"the nearest one; {sum(changed.values())} px in {len(changed)} of {len(scenes)} labels",
            LabelWarning,
        )


def check_classes(
    facts: Mapping[str, SceneFacts],
    class_px: Mapping[SplitName, Sequence[int]],
    classes: ClassMap,
    findings: Findings,
    *,
    pixel_m: float | None = None,
) -> None:
    """Look for classes that no label holds, that resampling or training lacks, and for labels of one class alone.

    Args:
        facts: What was counted, by name of the scene.
        class_px: Pixels of the tiles' masks of each split by class index.
        classes: Class table.
        findings: Takes what is found.
        pixel_m: Ground pixel of the tiles, None where nobody knows it.
    """
    nothing = (0,) * classes.num_classes
    totals = np.sum([fact.label_counts for fact in facts.values()] or [nothing], axis=0)
    given = np.sum([fact.given_counts for fact in facts.values()] or [nothing], axis=0)
    polygons = np.sum([fact.polygon_counts or nothing for fact in facts.values()] or [nothing], axis=0)
    lost = _warn_lost(totals, given, polygons, classes, findings, pixel_m)
    dropped = [
        name
        for name, number in zip(classes.names, totals.tolist(), strict=True)
        if not number and (name not in lost or not totals.any())
    ]
    if dropped and len(dropped) < classes.num_classes:
        findings.warn(
            "classes",
            f"the labels hold no pixel of class {', '.join(dropped)}, though the class table names it; if it was lost "
            "on the way (reprojected, converted, other colours), make the labels anew, else take it from the table",
            LabelWarning,
        )
    elif dropped:
        findings.fault(
            "classes",
            DataError(
                f"the labels hold no pixel of any class ({', '.join(dropped)}): all are ignored or lie where there is "
                "no imagery; check the labels, their place and the class table"
            ),
        )
    train = class_px.get("train")
    if train is not None and not all(train):
        absent = [
            name
            for name, number in zip(classes.names, train, strict=True)
            if not number and name not in dropped and name not in lost
        ]
        if absent:
            holders = [
                split
                for split, counts in class_px.items()
                if split != "train" and any(counts[classes.index(name)] for name in absent)
            ]
            where = (
                f", which only {' and '.join(holders)} {'holds' if len(holders) == 1 else 'hold'}" if holders else ""
            )
            findings.warn(
                "classes",
                f"training tiles hold no pixel of class {', '.join(absent)}{where}; a model cannot learn it",
                LabelWarning,
            )
    _note_uniform(facts, classes, findings)


def _warn_lost(
    totals: npt.NDArray[np.int64],
    given: npt.NDArray[np.int64],
    polygons: npt.NDArray[np.int64],
    classes: ClassMap,
    findings: Findings,
    pixel_m: float | None,
) -> set[str]:
    """Say which classes of the labels have no pixel on the tiles' grid; returns their names."""
    pixel = "on the grid of the tiles" if pixel_m is None else f"at a ground pixel of {pixel_m:.4g} m"
    lost: set[str] = set()
    for index, name in enumerate(classes.names):
        if totals[index]:
            continue
        if given[index]:
            message = f"class {name}: {given[index]} px in the labels, none left {pixel}; choose a finer --gsd"
        elif polygons[index]:
            noun = "polygon of" if polygons[index] == 1 else "polygons of"
            verb = "covers" if polygons[index] == 1 else "cover"
            message = (
                f"{polygons[index]} {noun} class {name} {verb} no pixel centre {pixel}, or only where other polygons "
                "lie on top or there is no imagery; choose a finer --gsd or check them"
            )
        else:
            continue
        lost.add(name)
        findings.warn("classes", message, LabelWarning)
    return lost


def _note_uniform(facts: Mapping[str, SceneFacts], classes: ClassMap, findings: Findings) -> None:
    """Note scenes whose label is one class alone, where others hold several."""
    present = {name: np.flatnonzero(fact.given_counts).tolist() for name, fact in facts.items()}
    uniform = {name: found[0] for name, found in present.items() if len(found) == 1}
    if uniform and len(uniform) < len(facts):
        by_class = Counter(classes.names[index] for index in uniform.values())
        names = ", ".join(list(uniform)[:_SHOWN]) + (
            f" and {len(uniform) - _SHOWN} more" if len(uniform) > _SHOWN else ""
        )
        what = ", ".join(f"{name} alone in {number}" for name, number in by_class.most_common())
        findings.note(
            "classes",
            f"{len(uniform)} of {len(facts)} labels hold one class: {what} ({names})",
            scene=next(iter(uniform)) if len(uniform) == 1 else None,
        )
    unlabelled = [name for name, found in present.items() if not found and facts[name].valid_px]
    if unlabelled and len(unlabelled) < len(facts):
        names = ", ".join(unlabelled[:_SHOWN])
        more = f" and {len(unlabelled) - _SHOWN} more" if len(unlabelled) > _SHOWN else ""
        findings.warn(
            "classes",
            f"{len(unlabelled)} of {len(facts)} labels hold no class at all, only ignored pixels ({names}{more}); "
            "check them",
            LabelWarning,
            scene=unlabelled[0] if len(unlabelled) == 1 else None,
        )
