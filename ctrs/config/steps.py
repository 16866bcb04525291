"""What each step can be told: one frozen dataclass for each command."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from ctrs.config.choices import Blend, Decoder, Precision, Recipe, Schedule, SplitName, require
from ctrs.config.contrast import ContrastConfig, MultiscaleConfig, PneConfig, SupconConfig
from ctrs.config.loss import parse_loss


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes to training tiles; each is drawn from (seed, epoch, index) alone.

    Args:
        flip: Mirror at random.
        rotate90: Turn by quarter turns at random.
        scale: Smallest and largest zoom before cropping; (1, 1) leaves the ground pixel alone.
        brightness: Largest shift in units of the scaled range [0, 1].
        contrast: Largest relative change of contrast.
    """

    flip: bool = True
    rotate90: bool = True
    scale: tuple[float, float] = (0.75, 1.5)
    brightness: float = 0.15
    contrast: float = 0.15

    def __post_init__(self) -> None:
        ok = len(self.scale) == 2 and 0.25 <= self.scale[0] <= self.scale[1] <= 4
        require(ok, "augment.scale", self.scale, "two rising numbers from 0.25 to 4")
        require(0 <= self.brightness <= 0.5, "augment.brightness", self.brightness, "0 to 0.5")
        require(0 <= self.contrast <= 0.9, "augment.contrast", self.contrast, "0 to 0.9")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained.

    Args:
        backbone: Friendly name (poolformer, swin, convnext, ...) or any timm model with feature maps.
        decoder: What stands on the encoder's four stages.
        loss: ``none``, or contrast terms (cl, infonce, supcon, cms, ccs, pne) joined by ``+``, each with an optional
            weight: ``cl:0.5+pne``. The hyper-parameters of each term stand in its table.
        recipe: A paper's settings: ``ct-paper`` in full, ``cms-paper`` and ``pne-paper`` the loss terms and weights
            only; options given beside it win.
        weights: ``none``, ``imagenet`` (by timm), or a local file of encoder weights.
        drop_path: Stochastic depth of the encoder; None: timm's default for the model.
        epochs: Passes over the training tiles.
        batch_size: None: 32 on a GPU, 8 on the CPU.
        learning_rate: None: 8e-5 from pretrained weights and with ``ct-paper``, else 5e-4.
        weight_decay: AdamW's.
        schedule: Learning rate over the run.
        warmup_epochs: Epochs of linear rise at the start of the cosine schedule.
        gradient_clip: Largest norm of the gradient.
        crop: Edge of training crops in pixels; None: the tile size.
        label_smoothing: Of the soft cross entropy.
        dice_smooth: Of the Dice loss.
        workers: Loader processes; None: by the number of cores.
        seed: Of weights, order, crops, augmentation and sampling.
        fold: Fold of the data that validates, from 0, where they were prepared with folds; the others train. None: all
            folds train.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
        precision: ``auto`` is fp32 on the CPU and bf16 on CUDA devices of capability 8.0 and up.
        threads: CPU threads of torch; None leaves torch's choice.
        contrast_warmup_steps: Steps at the start during which contrast terms weigh 0.
        contrast: Hyper-parameters of ``cl`` and ``infonce``.
        supcon: Hyper-parameters of ``supcon``.
        multiscale: Hyper-parameters of ``cms`` and ``ccs``.
        pne: Hyper-parameters of ``pne``.
        augment: Augmentation.
    """

    backbone: str = "poolformer"
    decoder: Decoder = "dcfam"
    loss: str = "cl"
    recipe: Recipe | None = None
    weights: str = "none"
    drop_path: float | None = None
    epochs: int = 50
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.01
    schedule: Schedule = "constant"
    warmup_epochs: int = 0
    gradient_clip: float = 1.0
    crop: int | None = None
    label_smoothing: float = 0.05
    dice_smooth: float = 0.05
    workers: int | None = None
    seed: int = 0
    fold: int | None = None
    device: str = "auto"
    precision: Precision = "auto"
    threads: int | None = None
    contrast_warmup_steps: int = 0
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    supcon: SupconConfig = field(default_factory=SupconConfig)
    multiscale: MultiscaleConfig = field(default_factory=MultiscaleConfig)
    pne: PneConfig = field(default_factory=PneConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        parse_loss(self.loss)
        if self.drop_path is not None:
            require(0 <= self.drop_path < 1, "drop_path", self.drop_path, "0 to below 1")
        require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        if self.batch_size is not None:
            require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        if self.learning_rate is not None:
            require(0 < self.learning_rate < 10, "learning_rate", self.learning_rate, "above 0 and below 10")
        require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "0 or more")
        require(0 <= self.warmup_epochs < self.epochs, "warmup_epochs", self.warmup_epochs, "0 to epochs - 1")
        require(self.gradient_clip > 0, "gradient_clip", self.gradient_clip, "above 0")
        if self.crop is not None:
            require(32 <= self.crop <= 4096, "crop", self.crop, "32 to 4096")
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "0 to below 1")
        if self.workers is not None:
            require(self.workers >= 0, "workers", self.workers, "0 or more")
        if self.threads is not None:
            require(self.threads >= 1, "threads", self.threads, "1 or more")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require(self.fold is None or self.fold >= 0, "fold", self.fold, "0 or more")
        warmup = self.contrast_warmup_steps
        require(warmup >= 0, "contrast_warmup_steps", warmup, "0 or more")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """How a scene is mapped.

    Args:
        window_px: Window edge in scene pixels; None: the checkpoint's.
        overlap: Share of the window that neighbours have in common; None: the checkpoint's.
        blend: Weights of overlapping windows.
        batch_size: Windows at a time; None: by device.
        bidx: Bands of the scene to use, from 1, in the order of the checkpoint's bands; empty: all.
        device: ``auto``, ``cpu``, ``cuda``, ...
        precision: ``auto`` is fp32 on the CPU and bf16 on CUDA devices of capability 8.0 and up.
        threads: CPU threads of torch; None leaves torch's choice.
        overwrite: Replace a different result, discard unfinished work.
    """

    window_px: int | None = None
    overlap: float | None = None
    blend: Blend = "hann"
    batch_size: int | None = None
    bidx: tuple[int, ...] = ()
    device: str = "auto"
    precision: Precision = "auto"
    threads: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.window_px is not None:
            require(32 <= self.window_px <= 8192, "window_px", self.window_px, "32 to 8192")
        if self.overlap is not None:
            require(0 <= self.overlap <= 0.9, "overlap", self.overlap, "0 to 0.9")
        if self.batch_size is not None:
            require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        require(all(number >= 1 for number in self.bidx), "bidx", self.bidx, "band numbers from 1")
        if self.threads is not None:
            require(self.threads >= 1, "threads", self.threads, "1 or more")


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a checkpoint, or a mask made elsewhere, is scored.

    Args:
        split: None: ``test`` where the data have it, else ``val``.
        predict: How the scenes are mapped; the checkpoint's window and overlap unless told otherwise.
        classes: Masks only: TOML file with ``[[class]]`` tables; None takes the classes that the mask names.
        class_field: Masks only: field of truth polygons that holds the class; None: each polygon is ``building``.
        overwrite: Replace a different report.
    """

    split: SplitName | None = None
    predict: PredictConfig = field(default_factory=PredictConfig)
    classes: Path | None = None
    class_field: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class VectorizeConfig:
    """How a mask becomes polygons.

    Args:
        classes: Class names; ``("all",)`` for each class of the mask.
        min_area_m2: Polygons below this ground area go to their surroundings or vanish.
        min_hole_m2: Holes below this ground area are filled.
        tolerance_m: Tolerance of simplification in ground metres; None: 1.5 pixels; 0: none.
        overwrite: Replace a different result.
    """

    classes: tuple[str, ...] = ("building",)
    min_area_m2: float = 4.0
    min_hole_m2: float = 2.0
    tolerance_m: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        require(bool(self.classes), "classes", self.classes, "at least one class name, or all")
        require(self.min_area_m2 >= 0, "min_area_m2", self.min_area_m2, "0 or more")
        require(self.min_hole_m2 >= 0, "min_hole_m2", self.min_hole_m2, "0 or more")
        if self.tolerance_m is not None:
            require(self.tolerance_m >= 0, "tolerance_m", self.tolerance_m, "0 or more")
