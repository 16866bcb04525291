"""The scenes of a split, mapped and scored one after the other; while one is scored, the network maps the next.

The largest comes first: nothing is left to map while the last one is scored, which should be short.

Masks and scores of finished scenes stay in the folder of unfinished work, so that a stopped evaluation goes on at the
scene where it was.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from ctrs.config import EvalConfig
from ctrs.errors import MissingCrsWarning, OutputExistsError
from ctrs.evaluation.mask_reading import ReadMask, confidence_reader, index_reader
from ctrs.evaluation.protocols import Labels
from ctrs.evaluation.scene_picturing import ERRORS_SUFFIX, ScenePicturing, add_scene
from ctrs.evaluation.scene_score import SceneScore
from ctrs.evaluation.score_places import PlaceGallery
from ctrs.evaluation.scoring import SceneMasks, score_scene
from ctrs.inference.predictor import Predictor
from ctrs.jobs import write_text
from ctrs.progress import Progress
from ctrs.raster.confidence import confidence_path
from ctrs.tiles.manifest import Manifest, SceneMosaic

SCENES = "scoring scenes"
"""The phase of progress that counts scenes; those between count the windows of one."""

MASKS = "masks"
"""Folder of the masks beside a report."""

ISPRS_PRESETS = frozenset({"potsdam", "vaihingen"})
"""Layouts of the benchmark whose second protocol has eroded labels."""


@dataclass(frozen=True, kw_only=True)
class SplitScoring:
    """How the scenes of a split are scored.

    Args:
        manifest: The prepared data.
        config: Options.
        scores: Folder where the scores of finished scenes are kept.
        masks: Folder where the masks are written.
        errors: Folder where the error maps are written.
        gallery: Is given the errors of each scene; None where no places are shown.
    """

    manifest: Manifest
    config: EvalConfig
    scores: Path
    masks: Path
    errors: Path
    gallery: PlaceGallery | None = None

    def run(self, predictor: Predictor, mosaics: Sequence[SceneMosaic], progress: Progress) -> tuple[SceneScore, ...]:
        """Map and score each scene.

        Args:
            predictor: The network.
            mosaics: The scenes, put together from their tiles.
            progress: Told the windows mapped and the scenes scored, always from the caller's thread.

        Returns:
            The scores, in the order of the scenes.
        """
        for folder in (self.scores, self.masks, *([] if self.config.pixels_only else [self.errors])):
            folder.mkdir(parents=True, exist_ok=True)
        scenes: dict[str, Future[SceneScore]] = {}
        told = 0

        def tell() -> None:
            nonlocal told
            for scene in islice(scenes.values(), told, None):
                if not scene.done():
                    break
                scene.result()
                told += 1
                progress(told, len(mosaics), SCENES)

        # One change of the filters around all threads: it changes the state of the process.
        with warnings.catch_warnings(), ThreadPoolExecutor(1, thread_name_prefix="ctrs-scoring") as behind:
            warnings.simplefilter("ignore", MissingCrsWarning)  # scores are counted in pixels
            try:
                for mosaic in sorted(mosaics, key=_num_pixels, reverse=True):
                    mask = self._predict(predictor, mosaic, progress)
                    scenes[mosaic.scene.name] = behind.submit(self._score, mosaic, mask)
                    tell()
                for scene in scenes.values():
                    scene.result()
                    tell()
            except BaseException:
                behind.shutdown(cancel_futures=True)
                raise
        return tuple(scenes[mosaic.scene.name].result() for mosaic in mosaics)

    def _predict(self, predictor: Predictor, mosaic: SceneMosaic, progress: Progress) -> Path:
        # Virtual rasters are written anew by each attempt; with one time of change they are the same input for jobs.
        os.utime(mosaic.image, ns=(0, 0))
        mask = self.masks / f"{mosaic.scene.name}_mask.tif"
        options = replace(
            self.config.predict, confidence=None if self.config.pixels_only else "probability", overwrite=False
        )
        try:
            return predictor.predict_raster(mosaic.image, mask, options, progress=progress)
        except OutputExistsError:  # left by an attempt in another place, or by another version
            return predictor.predict_raster(mosaic.image, mask, replace(options, overwrite=True), progress=progress)

    def _score(self, mosaic: SceneMosaic, mask: Path) -> SceneScore:
        """Score a scene and map its errors, unless an earlier attempt did."""
        name = mosaic.scene.name
        kept = self.scores / f"{name}.json"
        if kept.exists():
            score = SceneScore.from_json(json.loads(kept.read_text(encoding="utf-8")))
            if self.gallery is not None:
                add_scene(self.gallery, mosaic, {"prediction": mask})
            return score
        with ExitStack() as stack:
            pred, grid = stack.enter_context(index_reader(mask))
            beside = confidence_path(mask)
            masks = SceneMasks(
                name=name,
                grid=grid,
                truths=self._truths(mosaic, stack),
                pred=pred,
                confidence=None if self.config.pixels_only else stack.enter_context(confidence_reader(beside)),
                eroded_here=erodes_here(self.manifest, self.config),
                label=str(mosaic.mask),
            )
            picturing = ScenePicturing(
                masks,
                self.manifest.classes,
                gallery=self.gallery,
                error_map=None if self.config.pixels_only else self.errors / f"{name}{ERRORS_SUFFIX}",
                scratch=self.scores / f"{name}.rows",
            )
            score = score_scene(
                masks,
                self.manifest.classes,
                self.config,
                mask=f"{MASKS}/{mask.name}",
                watchers=picturing.watchers,
            )
            picturing.finish(image=mosaic.image)
        write_text(kept, json.dumps(score.to_json(), allow_nan=False))
        return score

    def _truths(self, mosaic: SceneMosaic, stack: ExitStack) -> dict[Labels, ReadMask]:
        truths: dict[Labels, ReadMask] = {"strict": stack.enter_context(index_reader(mosaic.mask))[0]}
        if self.manifest.has_eroded and mosaic.mask_eroded is not None:
            truths["isprs"] = stack.enter_context(index_reader(mosaic.mask_eroded))[0]
        return truths


def _num_pixels(mosaic: SceneMosaic) -> int:
    return mosaic.scene.width * mosaic.scene.height


def erodes_here(manifest: Manifest, config: EvalConfig) -> bool:
    """Tell whether labels with eroded borders are made for scoring."""
    if config.eroded is not None:
        return config.eroded
    return manifest.preset in ISPRS_PRESETS and not manifest.has_eroded
