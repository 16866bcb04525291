"""What training can be told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ctrs.config.choices import (
    ClassWeights,
    Decoder,
    Optimizer,
    Precision,
    Recipe,
    RunLog,
    Sampling,
    Schedule,
    TileCache,
    require,
    require_seed,
)
from ctrs.config.contrast import ContrastConfig, MultiscaleConfig, PneConfig, SupconConfig
from ctrs.config.loss import parse_loss, parse_segmentation


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes to training tiles; each is drawn from (seed, epoch, index, repetition) alone.

    Args:
        flip: Mirror at random.
        rotate90: Turn by quarter turns at random.
        scale: Smallest and largest zoom before cropping; (1, 1) leaves the ground pixel alone.
        rotate: Largest turn to either side in degrees, beside the quarter turns; what turns in is not valid.
        brightness: Largest shift in units of the scaled range [0, 1].
        contrast: Largest relative change of contrast.
        gamma: Largest relative change of the exponent that values are raised to.
        noise: Largest standard deviation of Gaussian noise, in units of the scaled range.
        blur: Largest standard deviation of a Gaussian blur in pixels.
        band_shift: Largest shift of single bands against each other, in units of the scaled range.
        cutmix: Share of crops into which a rectangle of another tile is pasted.
        mosaic: Share of crops that are put together from four tiles.
    """

    flip: bool = True
    rotate90: bool = True
    scale: tuple[float, float] = (0.75, 1.5)
    rotate: float = 0.0
    brightness: float = 0.15
    contrast: float = 0.15
    gamma: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    band_shift: float = 0.0
    cutmix: float = 0.0
    mosaic: float = 0.0

    def __post_init__(self) -> None:
        ok = len(self.scale) == 2 and 0.25 <= self.scale[0] <= self.scale[1] <= 4
        require(ok, "augment.scale", self.scale, "two rising numbers from 0.25 to 4")
        for name, most in _MOST.items():
            value = getattr(self, name)
            require(0 <= value <= most, f"augment.{name}", value, f"0 to {most:g}")


_MOST = {
    "rotate": 180.0,
    "brightness": 0.5,
    "contrast": 0.9,
    "gamma": 0.9,
    "noise": 0.5,
    "blur": 10.0,
    "band_shift": 0.5,
    "cutmix": 1.0,
    "mosaic": 1.0,
}


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """The segmentation loss, which the contrast terms are added to.

    Args:
        terms: Terms joined by ``+``, each with an optional weight (``ce+dice``, ``focal+lovasz:0.5``): ``ce``
            (label-smoothed cross entropy), ``dice``, ``focal``, ``lovasz``, ``tversky``.
        focal_gamma: Exponent of the focal loss.
        tversky_alpha: Weight of false positives in the Tversky loss.
        tversky_beta: Weight of false negatives in the Tversky loss.
        class_weights: Weights of classes in ``ce`` and ``focal``: ``balanced`` is the inverse of their share of the
            training pixels, with mean 1 over these pixels.
        auxiliary: Weight of the same loss on the auxiliary head of ``unetformer`` (deep supervision; 0.4 in
            UNetFormer); 0: no such head.
    """

    terms: str = "ce+dice"
    focal_gamma: float = 2.0
    tversky_alpha: float = 0.5
    tversky_beta: float = 0.5
    class_weights: ClassWeights = "none"
    auxiliary: float = 0.0

    def __post_init__(self) -> None:
        parse_segmentation(self.terms)
        require(0 <= self.focal_gamma <= 10, "segmentation.focal_gamma", self.focal_gamma, "0 to 10")
        for name in ("tversky_alpha", "tversky_beta"):
            value = getattr(self, name)
            require(0 <= value <= 10, f"segmentation.{name}", value, "0 to 10")
        require(0 <= self.auxiliary <= 10, "segmentation.auxiliary", self.auxiliary, "0 to 10")


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
        init: A ctrs model to begin from (run folder, checkpoint folder or model.safetensors), whatever its classes and
            bands: what fits is loaded, what does not is named. None: none.
        drop_path: Stochastic depth of the encoder; None: timm's default for the model.
        epochs: Passes over the training tiles.
        batch_size: Tiles in each optimizer step, over all devices; None: 32 for each GPU, 8 on the CPU.
        accumulate: Parts in which each device computes its share of a batch, one after the other, to save memory.
        auto: Choose batch size and workers by trying, where they are not given.
        learning_rate: None: 8e-5 from pretrained weights, from ``init`` and with ``ct-paper``, else 5e-4; 0.01 with
            ``sgd``.
        optimizer: ``adamw`` or ``sgd``.
        weight_decay: Of the optimizer; biases and norms have none with ``layer_decay`` or ``sgd``.
        momentum: Of ``sgd`` (Nesterov).
        schedule: Learning rate over the run.
        poly_power: Exponent of the poly schedule.
        warmup_epochs: Epochs of linear rise at the start.
        encoder_rate: Factor on the encoder's learning rate.
        layer_decay: Factor on the learning rate from each block of the encoder to the one before; None: none.
        frozen_stages: Stages of the encoder, from the first, that stay as they are, the stem with them; 4: all of it.
        frozen_epochs: Epochs for which they do; None: all.
        ema: Decay of the moving average of the weights that validation and checkpoints take; None: none.
        patience: Epochs without a better score after which training stops; None: never.
        gradient_clip: Largest norm of the gradient.
        crop: Edge of training crops in pixels; None: the tile size.
        train_share: Share of the training tiles that the run learns from, drawn with the seed: above 0, up to 1. A
            smaller share is part of a larger one with the same seed.
        tile_draws: How often an epoch draws each tile, cropped and augmented anew each time: with more, epochs are
            longer and validation is rarer.
        sampling: How tiles are drawn: each once (``shuffle``), with the same expected share of pixels for each class
            (``class-balanced``), or those with rare classes more often (``repeat-factor``, as in LVIS).
        repeat_threshold: Share of tiles below which a class counts as rare for ``repeat-factor``.
        label_smoothing: Of the soft cross entropy.
        dice_smooth: Of the Dice loss.
        workers: Loader processes; None: by the number of cores.
        cache: Decoded tiles in memory: where they fit (``auto``), ``none``, or ``memory`` come what may.
        seed: Of weights, order, crops, augmentation and sampling.
        fold: Fold of the data that validates, from 0, where they were prepared with folds; the others train. None: all
            folds train.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
        devices: How many devices (GPUs, or CPU processes) train together, on each node.
        num_nodes: Machines that train together.
        precision: ``auto`` is fp32 on the CPU and bf16 on CUDA devices of capability 8.0 and up; ``fp16`` scales the
            loss.
        compile: Compile the network with ``torch.compile``.
        channels_last: Memory layout of images and convolutions; None: on CUDA devices.
        deterministic: Only operations that give the same weights each time on the same machine.
        threads: CPU threads of torch; None leaves torch's choice.
        save_minutes: Minutes after which the state is saved within an epoch; it always is after each.
        log: Where metrics go beside ``metrics.csv``.
        contrast_warmup_steps: Steps at the start during which contrast terms weigh 0.
        segmentation: The segmentation loss.
        contrast: Hyper-parameters of ``cl`` and ``infonce``.
        supcon: Hyper-parameters of ``supcon``.
        multiscale: Hyper-parameters of ``cms`` and ``ccs``.
        pne: Hyper-parameters of ``pne``.
        augment: Augmentation.
    """

    backbone: str = "poolformer"
    decoder: Decoder = "dcfam"
    loss: str = "none"
    recipe: Recipe | None = None
    weights: str = "none"
    init: str | None = None
    drop_path: float | None = None
    epochs: int = 50
    batch_size: int | None = None
    accumulate: int = 1
    auto: bool = False
    learning_rate: float | None = None
    optimizer: Optimizer = "adamw"
    weight_decay: float = 0.01
    momentum: float = 0.9
    schedule: Schedule = "constant"
    poly_power: float = 0.9
    warmup_epochs: int = 0
    encoder_rate: float = 1.0
    layer_decay: float | None = None
    frozen_stages: int = 0
    frozen_epochs: int | None = None
    ema: float | None = None
    patience: int | None = None
    gradient_clip: float = 1.0
    crop: int | None = None
    train_share: float = 1.0
    tile_draws: int = 1
    sampling: Sampling = "shuffle"
    repeat_threshold: float = 0.1
    label_smoothing: float = 0.05
    dice_smooth: float = 0.05
    workers: int | None = None
    cache: TileCache = "auto"
    seed: int = 0
    fold: int | None = None
    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: Precision = "auto"
    compile: bool = False
    channels_last: bool | None = None
    deterministic: bool = False
    threads: int | None = None
    save_minutes: float = 10.0
    log: tuple[RunLog, ...] = ("tensorboard",)
    contrast_warmup_steps: int = 0
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    supcon: SupconConfig = field(default_factory=SupconConfig)
    multiscale: MultiscaleConfig = field(default_factory=MultiscaleConfig)
    pne: PneConfig = field(default_factory=PneConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        parse_loss(self.loss)
        if self.init is not None:
            require(bool(self.init), "init", self.init, "a model of ctrs: run folder, checkpoint folder or weight file")
            require(self.weights == "none", "weights", self.weights, '"none" beside init, which brings its own')
        if self.drop_path is not None:
            require(0 <= self.drop_path < 1, "drop_path", self.drop_path, "0 to below 1")
        require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        if self.batch_size is not None:
            require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        if self.learning_rate is not None:
            require(0 < self.learning_rate < 10, "learning_rate", self.learning_rate, "above 0 and below 10")
        for name in ("accumulate", "devices", "num_nodes"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "0 to below 1")
        require(0 < self.poly_power <= 10, "poly_power", self.poly_power, "above 0, up to 10")
        require(0 < self.encoder_rate <= 1, "encoder_rate", self.encoder_rate, "above 0, up to 1")
        decay = self.layer_decay
        require(decay is None or 0 < decay <= 1, "layer_decay", decay, "above 0, up to 1")
        require(0 <= self.frozen_stages <= 4, "frozen_stages", self.frozen_stages, "0 to 4")
        frozen = self.frozen_epochs
        require(frozen is None or frozen >= 0, "frozen_epochs", frozen, "0 or more")
        require(self.ema is None or 0 < self.ema < 1, "ema", self.ema, "above 0 and below 1")
        require(self.patience is None or self.patience >= 1, "patience", self.patience, "1 or more")
        require(1 <= self.tile_draws <= 10_000, "tile_draws", self.tile_draws, "1 to 10000")
        require(0 < self.train_share <= 1, "train_share", self.train_share, "above 0, up to 1")
        require(0 < self.repeat_threshold <= 1, "repeat_threshold", self.repeat_threshold, "above 0, up to 1")
        require(self.save_minutes > 0, "save_minutes", self.save_minutes, "above 0")
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
        require_seed(self.seed)
        require(self.fold is None or self.fold >= 0, "fold", self.fold, "0 or more")
        warmup = self.contrast_warmup_steps
        require(warmup >= 0, "contrast_warmup_steps", warmup, "0 or more")
