"""Masks on disk, whoever made them, scored against labels of every kind."""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctrs.classes import BUILDING_CLASSES, ClassMap, LandClass, Mask
from ctrs.config import EvalConfig
from ctrs.errors import (
    DataError,
    LabelError,
    LabelWarning,
    MissingCrsWarning,
    OutputExistsError,
    UnknownColorError,
    UsageError,
)
from ctrs.evaluation.mask_grids import check_crs, check_touched, grid_of, resampled_note, way_to_truth
from ctrs.evaluation.mask_reading import ReadMask, confidence_reader, only_class, value_reader
from ctrs.evaluation.required_scores import check_requirements
from ctrs.evaluation.scene_picturing import ERRORS, ERRORS_SUFFIX, ScenePicturing
from ctrs.evaluation.scene_score import SceneScore
from ctrs.evaluation.score_files import save_report
from ctrs.evaluation.score_intervals import score_intervals
from ctrs.evaluation.score_page import PAGE_FILE, write_score_page
from ctrs.evaluation.score_places import PlaceGallery, gallery_for
from ctrs.evaluation.score_report import REPORT_FILE, EvaluationReport, read_report
from ctrs.evaluation.scoring import BLOCK_PX, SceneMasks, score_scene
from ctrs.jobs import check_existing, describe_file, fingerprint, partial_work, recover
from ctrs.progress import Progress, no_progress
from ctrs.raster.cog import CLASSES_TAG, JOB_TAG, read_class_tag
from ctrs.raster.confidence import confidence_kind, confidence_path
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.raster.warp import GridWarp
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.class_tables import read_class_table
from ctrs.tiles.decoding import unknown_message, unknown_noun
from ctrs.tiles.labels import DecodedLabel, Label
from ctrs.tiles.polygon_labels import PolygonLabel, background_value, polygon_values
from ctrs.tiles.raster_labels import open_raster_label
from ctrs.vector.rasterize import is_vector, place_polygons, read_polygons

logger = logging.getLogger(__name__)


def evaluate_masks(
    pred: Path | Sequence[Path],
    truth: Path | Sequence[Path],
    config: EvalConfig | None = None,
    *,
    out: Path | None = None,
    progress: Progress = no_progress,
) -> EvaluationReport:
    """Score masks, whoever made them, against labels of the same ground.

    Args:
        pred: Class mask; one that ctrs wrote names its classes, for others ``config.classes`` does, and pixels hold
            class values. Several masks are scored together, each a scene.
        truth: Of each mask: a class raster or colour-coded raster on the mask's grid, or polygons in any CRS. Polygons
            with a class field lie on ``background``, or on ground that is not scored where there is no such class;
            without one they are buildings, and building or not is all that is scored.
        config: Options; those of splits and prediction do not matter here. With ``config.resample`` a mask on another
            grid is brought onto the grid of its truth (nearest), which the report says.
        out: Folder of the report; None writes nothing.
        progress: Told the blocks counted.

    Raises:
        InputNotFoundError: A file is not there.
        UsageError: There are not as many truths as masks, or a pair is given twice.
        ConfigError: A score is required that there will not be.
        GridMismatchError: A raster truth lies on another grid, polygons elsewhere than the mask or in a CRS that the
            mask does not name.
        LabelError: Values, colours or names outside the class table, or a mask that names no classes.
        OutputExistsError: Another report stands in ``out`` and ``config.overwrite`` is False.
    """
    started = time.monotonic()
    config = config or EvalConfig()
    pairs = _pairs(pred, truth)
    classes = _classes_of(pairs, config)
    binary = config.class_field is None and all(is_vector(label) for _, label in pairs)
    scored = BUILDING_CLASSES if binary else classes
    check_requirements(config.fail_under, scored, config)
    job = fingerprint(_job(pairs, classes, config))
    if out is not None and _is_finished(out, job, overwrite=config.overwrite):
        logger.info("%s: exists and is the result of the same job; nothing to do", out)
        return replace(read_report(out / REPORT_FILE), path=out / REPORT_FILE)

    for mask, label in pairs:  # all of them, before time is spent on the first
        if not is_vector(label):
            way_to_truth(mask, grid_of(mask), label, resample=config.resample)

    def report(pictures: _Pictures | None = None) -> EvaluationReport:
        names = _names([mask for mask, _ in pairs])
        scenes = tuple(
            _score_pair(mask, label, name, classes, config, progress, pictures)
            for name, (mask, label) in zip(names, pairs, strict=True)
        )
        return EvaluationReport(
            scenes=scenes,
            classes=scored,
            data=pairs[0][1] if len(pairs) == 1 else pairs[0][1].parent,
            intervals=score_intervals(
                [scene.confusions["strict"] for scene in scenes],
                scored,
                samples=config.bootstrap,
                confidence=config.confidence,
                seed=config.seed,
            ),
            seconds=time.monotonic() - started,
            fingerprint=job,
        )

    if out is None:
        return report()
    with partial_work(out, job, overwrite=config.overwrite) as work:
        staged = work.folder / "report"
        errors = staged / ERRORS
        (staged if config.pixels_only else errors).mkdir(parents=True, exist_ok=True)
        shapes = [grid_of(mask).shape for mask, _ in pairs]
        gallery = gallery_for(scored, config, shapes)
        pictures = None if config.pixels_only else _Pictures(gallery=gallery, errors=errors, scratch=work.folder)
        try:
            saved = save_report(report(pictures), staged, final=out)
            write_score_page(staged / PAGE_FILE, {saved.name: saved}, gallery)
        except BaseException:  # a mask is scored in seconds: there is nothing to go on with
            for folder in (staged, *work.folder.glob("*.rows")):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        work.publish(staged)
    return saved


def _pairs(pred: Path | Sequence[Path], truth: Path | Sequence[Path]) -> list[tuple[Path, Path]]:
    masks = [pred] if isinstance(pred, Path) else list(pred)
    labels = [truth] if isinstance(truth, Path) else list(truth)
    if len(masks) != len(labels) or not masks:
        raise UsageError(
            f"{len(masks)} masks and {len(labels)} truths found, expected one truth for each mask, in the same order"
        )
    if len({is_vector(label) for label in labels}) > 1:
        raise UsageError(
            "rasters and polygons found among the truths, expected one kind; score them one after the other"
        )
    pairs = list(zip(masks, labels, strict=True))
    counts = Counter((mask.resolve(), label.resolve()) for mask, label in pairs)
    for mask, label in pairs:
        if counts[mask.resolve(), label.resolve()] > 1:
            raise UsageError(f"{mask}: given twice with the truth {label}; name each pair once")
    return pairs


def _names(masks: Sequence[Path]) -> list[str]:
    """Return a name for each mask: its file's, with its folder's where several have the same.

    >>> _names([Path("a/x.tif"), Path("b/x.tif"), Path("y.tif")])
    ['a/x', 'b/x', 'y']
    """
    counts = Counter(mask.stem for mask in masks)
    return [mask.stem if counts[mask.stem] == 1 else f"{mask.parent.name}/{mask.stem}" for mask in masks]


def _classes_of(pairs: Sequence[tuple[Path, Path]], config: EvalConfig) -> ClassMap:
    """Return the class table of the masks, which all have the same."""
    first = _mask_classes(pairs[0][0], config)
    for mask, _ in pairs[1:]:
        found = _mask_classes(mask, config)
        if found != first:
            raise DataError(
                f"{mask}: classes {', '.join(found.names)} found, but {pairs[0][0]} has {', '.join(first.names)}; "
                "score masks of one class table together"
            )
    return first


def _mask_classes(pred: Path, config: EvalConfig) -> ClassMap:
    """Return the class table of the truth: that of ``config``, or the mask's own, which scores every class."""
    if config.classes is not None:
        return read_class_table(config.classes)
    if not _names_classes(pred):
        raise LabelError(
            f"{pred}: no tag {CLASSES_TAG} found, so the meaning of its values is unknown; name the class table of a "
            "mask that ctrs predict did not write with --classes FILE"
        )
    return _stored_classes(pred)


def _names_classes(pred: Path) -> bool:
    with open_raster(pred) as dataset:
        return CLASSES_TAG in dataset.tags()


def _stored_classes(pred: Path) -> ClassMap:
    """Return the classes that a mask names, with the values of its pixels."""
    rows = read_class_tag(pred)
    return ClassMap(classes=tuple(LandClass(value=row.value, name=row.name, color=row.color) for row in rows))


def _pixel_classes(pred: Path, classes: ClassMap) -> ClassMap:
    """Return the class table by which a mask's pixels are read: its own where it names the same classes.

    Raises:
        LabelError: It names others.
    """
    if not _names_classes(pred):
        return classes
    stored = _stored_classes(pred)
    if stored.names != classes.names:
        raise LabelError(
            f"{pred}: names the classes {', '.join(stored.names)}, but the class table has "
            f"{', '.join(classes.names)}; leave out --classes, or give the table that it was made for"
        )
    return stored


def _job(pairs: Sequence[tuple[Path, Path]], classes: ClassMap, config: EvalConfig) -> Mapping[str, Any]:
    options = replace(config, predict=type(config.predict)(), split=None, fail_under=(), classes=None)
    return {
        "step": "eval masks",
        "pairs": [[describe_file(path) for path in pair] for pair in pairs],
        "classes": classes.to_json(),
        "options": options,
    }


def _is_finished(out: Path, job: str, *, overwrite: bool) -> bool:
    recover(out)
    if not out.exists() or overwrite:
        return False
    try:
        found = read_report(out / REPORT_FILE).fingerprint
    except DataError as error:
        raise OutputExistsError(
            f"{out}: exists and holds no report ({error}); pass --overwrite to replace it, or choose another --out"
        ) from error
    return check_existing(out, found, job, overwrite=overwrite)


@dataclass(frozen=True, kw_only=True)
class _Pictures:
    """What is drawn of the masks: their places, and error maps in a folder."""

    gallery: PlaceGallery | None
    errors: Path
    scratch: Path

    def of(self, masks: SceneMasks, classes: ClassMap) -> ScenePicturing:
        """Return what watches a scene while it is scored."""
        file = masks.name.replace("/", "_")
        return ScenePicturing(
            masks,
            classes,
            gallery=self.gallery,
            error_map=self.errors / f"{file}{ERRORS_SUFFIX}",
            scratch=self.scratch / f"{file}.rows",
        )


def _score_pair(
    pred: Path,
    truth: Path,
    name: str,
    classes: ClassMap,
    config: EvalConfig,
    progress: Progress,
    pictures: _Pictures | None,
) -> SceneScore:
    """Score one mask against its truth."""
    notes: tuple[str, ...] = ()
    with ExitStack() as stack:
        grid = grid_of(pred)
        warp: GridWarp | None = None
        label: Label
        if is_vector(truth):
            layer = read_polygons(truth, class_field=config.class_field)
            table = classes if config.class_field is not None else BUILDING_CLASSES
            values = polygon_values(layer, table, config.class_field)
            check_crs(pred, grid, layer)
            polygons = place_polygons(layer, grid, values)
            check_touched(pred, grid, layer, polygons)
            label = PolygonLabel(polygons=polygons, background=background_value(table))
        else:
            warp = way_to_truth(pred, grid, truth, resample=config.resample)
            if warp is not None:
                notes = (resampled_note(warp),)
                logger.info("%s: %s", pred, notes[0])
                grid = warp.target
            label = open_raster_label(truth, pred, grid, classes, kind="auto", tolerance=0)
        if grid.crs is None:
            warnings.warn(
                f"{pred}: no CRS found; scored in pixels, without areas (set one with gdal_edit.py -a_srs if it is "
                "known)",
                MissingCrsWarning,
                stacklevel=2,
            )
        read_pred = stack.enter_context(value_reader(pred, _pixel_classes(pred, classes), warp))
        scored = classes
        if is_vector(truth) and config.class_field is None:
            read_pred, scored = only_class(read_pred, classes.index("building")), BUILDING_CLASSES
        # Of one class against the rest, a probability among three or more says nothing.
        surely = _confidence_of(pred) if warp is None and scored.num_classes == classes.num_classes else None
        masks = SceneMasks(
            name=name,
            grid=grid,
            truths={"strict": _checked(stack.enter_context(label.reader()), truth, grid, scored)},
            pred=read_pred,
            confidence=None if surely is None or config.pixels_only else stack.enter_context(confidence_reader(surely)),
            eroded_here=bool(config.eroded),
            label=str(truth),
        )
        picturing = None if pictures is None else pictures.of(masks, scored)
        watchers = [] if picturing is None else picturing.watchers
        score = score_scene(masks, scored, config, mask=str(pred), notes=notes, progress=progress, watchers=watchers)
        if picturing is not None:
            picturing.finish()
        if not score.confusions["strict"].total:
            warnings.warn(
                f"{truth}: no pixel of it is scored, all are nodata or ignored, so nothing can be said of {pred}; "
                "check the truth",
                LabelWarning,
                stacklevel=2,
            )
        return score


def _confidence_of(pred: Path) -> Path | None:
    """Return the confidence beside a mask, if predict wrote both at once and it is that of the mask's class."""
    beside = confidence_path(pred)
    if not beside.is_file():
        return None
    with open_raster(pred) as mask, open_raster(beside) as surely:
        tags = mask.tags()
        together = JOB_TAG in tags and surely.tags().get(JOB_TAG) == tags[JOB_TAG]
        is_probability = confidence_kind(surely) == "probability"
    return beside if together and is_probability else None


def _checked(read: Callable[[PixelWindow], DecodedLabel], truth: Path, grid: Grid, classes: ClassMap) -> ReadMask:
    """Return a reader of the truth's mask that refuses unknown values, with their number in the whole truth."""

    def read_mask(window: PixelWindow) -> Mask:
        decoded = read(window)
        if decoded.first_unknown is not None:
            _refuse_unknown(read, truth, grid, classes)
        return decoded.mask

    return read_mask


def _refuse_unknown(read: Callable[[PixelWindow], DecodedLabel], truth: Path, grid: Grid, classes: ClassMap) -> None:
    unknown, first = Counter[str](), None
    for row_off in range(0, grid.height, BLOCK_PX):
        height = min(BLOCK_PX, grid.height - row_off)
        for col_off in range(0, grid.width, BLOCK_PX):
            width = min(BLOCK_PX, grid.width - col_off)
            decoded = read(PixelWindow(col_off=col_off, row_off=row_off, width=width, height=height))
            if decoded.first_unknown is not None:
                row, col = decoded.first_unknown
                unknown.update(decoded.unknown)
                first = first or (row_off + row, col_off + col)
    noun = unknown_noun(unknown)
    raise UnknownColorError(unknown_message(truth, noun, unknown, first, classes, options=False))
