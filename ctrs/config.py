"""What each step can be told: frozen dataclasses, closed choices as Literals, TOML in and out. Knows no torch.

The command line's options carry these choices and defaults, so help and code cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from ctrs.errors import ConfigError

Decoder = Literal[
    "dcfam", "unetformer", "upernet", "fpn", "segformer", "unet", "unetplusplus", "manet", "linknet", "dpt", "pspnet"
]
Recipe = Literal["ct-paper"]
Schedule = Literal["constant", "cosine"]
Precision = Literal["auto", "fp32", "bf16"]
ClipMode = Literal["hard", "rescale", "none"]
VoidMode = Literal["exclude", "allow"]
ClForm = Literal["logit", "prob"]
InfoNceVariant = Literal["paper", "author"]
Average = Literal["present", "valid"]
Blend = Literal["hann", "constant"]
SplitName = Literal["train", "val", "test"]
LabelKind = Literal["auto", "values", "colors", "polygons"]

AnyConfig = TypeVar("AnyConfig")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How scenes and labels become tiles.

    Args:
        preset: Name of a preset, or a path to one; None recognises the layout.
        classes: TOML file with ``[[class]]`` tables; None takes ``classes.toml`` of the source, then the preset's.
        labels: How label files are read; ``auto`` decides by file type and content.
        class_field: Field of vector labels that holds the class; None: each polygon is ``building``.
        tile_px: Edge of a tile in pixels; None takes the preset's (ISPRS 500, else 512).
        val: Glob patterns of scenes that form the validation split; empty: cut from training scenes by place.
        test: Glob patterns of scenes that form the test split; empty: the preset's or the source's own.
        val_fraction: Share of the training tiles that goes to validation when it is cut by place.
        seed: Seed of the choice of validation places.
        workers: Scenes tiled at the same time; None: one for each core.
        overwrite: Replace a different result, discard unfinished work.
    """

    preset: str | None = None
    classes: Path | None = None
    labels: LabelKind = "auto"
    class_field: str | None = None
    tile_px: int | None = None
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    val_fraction: float = 0.15
    seed: int = 0
    workers: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.tile_px is not None:
            _require(32 <= self.tile_px <= 8192, "tile_px", self.tile_px, "32 to 8192")
        _require(0 <= self.val_fraction <= 0.5, "val_fraction", self.val_fraction, "0 to 0.5")
        if self.workers is not None:
            _require(self.workers >= 1, "workers", self.workers, "1 or more")


@dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    """Hyper-parameters of the Contrastive Transformer terms (arXiv 2303.14806).

    Args:
        stages: Encoder stages that take part, 0 (stride 4) to 3 (stride 32).
        num_pairs: Cap on sampled positives and negatives for each class and stage.
        top: Share of the sampled pairs kept by hard mining.
        smoothing: Label smoothing of the CL cross entropy.
        form: CL on ``log_softmax([1-s, s])`` (logit) or on ``log s`` (prob).
        temperature: InfoNCE temperature.
        variant: InfoNCE samples as in the paper or as in the authors' code.
        clip: Upper bound of the loss.
        clip_mode: ``hard`` is the paper's (no gradient above the bound), ``rescale`` keeps the gradient's direction,
            ``none`` has no bound.
        void: ``exclude`` keeps windows with void out of the negatives, ``allow`` is the authors' reading.
        average: Denominator: classes ``present`` in the batch (authors) or ``valid`` terms.
        min_positives: Homogeneous patches a class needs at a stage.
        min_negatives: Patches without the class it needs at a stage.
        min_positive_pairs: Pairs of homogeneous patches, one from each half of them, that a class needs at a stage for
            positive pairs (CL), or for a term at all (InfoNCE).
        projection_dim: Width of the projection.
    """

    stages: tuple[int, ...] = (0, 1, 2, 3)
    num_pairs: int = 2000
    top: float = 0.5
    smoothing: float = 0.1
    form: ClForm = "logit"
    temperature: float = 0.1
    variant: InfoNceVariant = "paper"
    clip: float = 1.0
    clip_mode: ClipMode = "rescale"
    void: VoidMode = "exclude"
    average: Average = "present"
    min_positives: int = 5
    min_negatives: int = 5
    min_positive_pairs: int = 5
    projection_dim: int = 128

    def __post_init__(self) -> None:
        stages_ok = bool(self.stages) and set(self.stages) <= {0, 1, 2, 3} and len(set(self.stages)) == len(self.stages)
        _require(stages_ok, "contrast.stages", self.stages, "distinct numbers from 0 to 3")
        _require(self.num_pairs >= 2, "contrast.num_pairs", self.num_pairs, "2 or more")
        _require(0 < self.top <= 1, "contrast.top", self.top, "above 0 and at most 1")
        _require(0 <= self.smoothing < 1, "contrast.smoothing", self.smoothing, "0 to below 1")
        _require(self.temperature > 0, "contrast.temperature", self.temperature, "above 0")
        _require(self.clip > 0, "contrast.clip", self.clip, "above 0")
        _require(self.min_positives >= 1, "contrast.min_positives", self.min_positives, "1 or more")
        _require(self.min_negatives >= 1, "contrast.min_negatives", self.min_negatives, "1 or more")
        _require(self.min_positive_pairs >= 1, "contrast.min_positive_pairs", self.min_positive_pairs, "1 or more")
        _require(self.projection_dim >= 1, "contrast.projection_dim", self.projection_dim, "1 or more")


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
        _require(ok, "augment.scale", self.scale, "two rising numbers from 0.25 to 4")
        _require(0 <= self.brightness <= 0.5, "augment.brightness", self.brightness, "0 to 0.5")
        _require(0 <= self.contrast <= 0.9, "augment.contrast", self.contrast, "0 to 0.9")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained.

    Args:
        backbone: Friendly name (poolformer, swin, convnext, ...) or any hierarchical timm model.
        decoder: What stands on the encoder's four stages.
        loss: ``none``, ``cl``, ``infonce``, joined by ``+``, each with an optional weight: ``cl:0.5``.
        recipe: A paper's settings as a whole; options given beside it win.
        weights: ``none``, ``imagenet`` (by timm), or a local file of encoder weights.
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
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
        precision: ``auto`` is fp32 on the CPU and bf16 on CUDA devices of capability 8.0 and up.
        threads: CPU threads of torch; None leaves torch's choice.
        contrast: Hyper-parameters of the contrast terms.
        augment: Augmentation.
    """

    backbone: str = "poolformer"
    decoder: Decoder = "dcfam"
    loss: str = "cl"
    recipe: Recipe | None = None
    weights: str = "none"
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
    device: str = "auto"
    precision: Precision = "auto"
    threads: int | None = None
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        if self.batch_size is not None:
            _require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        if self.learning_rate is not None:
            _require(0 < self.learning_rate < 10, "learning_rate", self.learning_rate, "above 0 and below 10")
        _require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "0 or more")
        _require(0 <= self.warmup_epochs < self.epochs, "warmup_epochs", self.warmup_epochs, "0 to epochs - 1")
        _require(self.gradient_clip > 0, "gradient_clip", self.gradient_clip, "above 0")
        if self.crop is not None:
            _require(32 <= self.crop <= 4096, "crop", self.crop, "32 to 4096")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "0 to below 1")
        if self.workers is not None:
            _require(self.workers >= 0, "workers", self.workers, "0 or more")
        if self.threads is not None:
            _require(self.threads >= 1, "threads", self.threads, "1 or more")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")


CT_PAPER: Mapping[str, Any] = {
    "learning_rate": 8e-5,
    "batch_size": 32,
    "epochs": 50,
    "schedule": "constant",
    "label_smoothing": 0.05,
    "dice_smooth": 0.05,
    "gradient_clip": 1.0,
    "contrast": {"clip_mode": "hard"},
}
"""Settings of ``--recipe ct-paper``; it also resizes 500 px tiles to 512 (METHOD: the paper to the letter)."""

RUN_KEYS = ("format_version", "ctrs_version", "data")
"""What the ``config.toml`` of a run says beside the settings."""

CT_PAPER_INPUT_PX = 512
"""Edge that ``--recipe ct-paper`` resizes tiles to."""


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
            _require(32 <= self.window_px <= 8192, "window_px", self.window_px, "32 to 8192")
        if self.overlap is not None:
            _require(0 <= self.overlap <= 0.9, "overlap", self.overlap, "0 to 0.9")
        if self.batch_size is not None:
            _require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        _require(all(number >= 1 for number in self.bidx), "bidx", self.bidx, "band numbers from 1")
        if self.threads is not None:
            _require(self.threads >= 1, "threads", self.threads, "1 or more")


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
        _require(bool(self.classes), "classes", self.classes, "at least one class name, or all")
        _require(self.min_area_m2 >= 0, "min_area_m2", self.min_area_m2, "0 or more")
        _require(self.min_hole_m2 >= 0, "min_hole_m2", self.min_hole_m2, "0 or more")
        if self.tolerance_m is not None:
            _require(self.tolerance_m >= 0, "tolerance_m", self.tolerance_m, "0 or more")


def from_mapping(kind: type[AnyConfig], values: Mapping[str, Any], *, where: str = "configuration") -> AnyConfig:
    """Build a configuration from plain values, checking keys and types.

    Args:
        kind: One of this module's dataclasses.
        values: As read from TOML; nested tables for nested configurations.
        where: Name of the source for messages.

    >>> from_mapping(TrainConfig, {"epochs": 3, "contrast": {"top": 0.25}}).contrast.top
    0.25

    Raises:
        ConfigError: A key is unknown or a value is of the wrong type or range.
    """
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        near = difflib.get_close_matches(unknown[0], hints, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"expected one of: {', '.join(hints)}"
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; {advice}")
    try:
        return kind(**{key: _convert(hints[key], value, where, key) for key, value in values.items()})
    except ConfigError as error:
        message = str(error)
        raise ConfigError(message if message.startswith(where) else f"{where}: {message}") from error


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    """Convert a TOML value to the type that a field declares."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        inner = [argument for argument in arguments if argument is not type(None)]
        return _convert(inner[0], value, where, key)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return from_mapping(hint, value, where=f"{where}: {key}")
    elif origin is Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{where}: {key} = {value!r} found, expected one of: {', '.join(map(str, arguments))}")
    elif origin is tuple:
        if isinstance(value, list | tuple):
            return tuple(_convert(arguments[0], item, where, key) for item in value)
    elif hint is Path and isinstance(value, str | Path):
        return Path(value)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool) == isinstance(value, bool):
        return value
    name = getattr(hint, "__name__", str(hint))
    raise ConfigError(f"{where}: {key} = {value!r} found, expected {name}")


def merge(base: Mapping[str, Any], *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Lay mappings over each other, nested tables too; later ones win.

    >>> merge({"a": 1, "t": {"x": 1, "y": 2}}, {"t": {"y": 3}})
    {'a': 1, 't': {'x': 1, 'y': 3}}
    """
    result = dict(base)
    for layer in layers:
        for key, value in layer.items():
            held = result.get(key)
            result[key] = merge(held, value) if isinstance(held, Mapping) and isinstance(value, Mapping) else value
    return result


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: It is not there or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: not readable ({error.strerror}); check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as TOML ({error}); mend the file") from error


def to_plain(config: Any) -> dict[str, Any]:
    """Return a configuration as nested dicts of TOML values; None is left out.

    >>> to_plain(EvalConfig(split="val"))["split"]
    'val'
    """
    plain: dict[str, Any] = {}
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if value is None:
            continue
        if dataclasses.is_dataclass(value):
            value = to_plain(value)
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Path):
            value = str(value)
        plain[entry.name] = value
    return plain


def resolve_train_config(file: Mapping[str, Any], options: Mapping[str, Any], *, where: str) -> TrainConfig:
    """Combine a recipe, a TOML file and command-line options; options win over the file, the file over the recipe.

    Args:
        file: Values of ``--config``, empty for none. The ``config.toml`` of a run serves too: what it says beside the
            settings (``RUN_KEYS``), such as the data it was trained on, is left out.
        options: Values given on the command line only.
        where: Name of the file for messages.

    Raises:
        ConfigError: A key or value is wrong.
    """
    given = merge({key: value for key, value in file.items() if key not in RUN_KEYS}, options)
    recipe = given.get("recipe")
    layers = merge(CT_PAPER, given) if recipe == "ct-paper" else given
    return from_mapping(TrainConfig, layers, where=where)


def run_name(config: TrainConfig, data_name: str) -> str:
    """Return the default name of a run: data, backbone, decoder and loss.

    >>> run_name(TrainConfig(loss="cl:0.5"), "potsdam")
    'potsdam-poolformer-dcfam-cl-0.5'
    """
    text = "-".join((data_name, config.backbone, config.decoder, config.loss))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")


def _require(holds: bool, key: str, found: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{key} = {found!r} found, expected {expected}")
