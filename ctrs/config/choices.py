"""Closed choices of the configuration, which the command line offers as they stand."""

from __future__ import annotations

from typing import Literal

from ctrs.errors import ConfigError

Decoder = Literal[
    "dcfam",
    "unetformer",
    "upernet",
    "fpn",
    "segformer",
    "unet",
    "unetplusplus",
    "manet",
    "linknet",
    "dpt",
    "pspnet",
    "deeplabv3",
    "deeplabv3plus",
]
Recipe = Literal["ct-paper", "cms-paper", "pne-paper"]
Schedule = Literal["constant", "cosine", "poly"]
Optimizer = Literal["adamw", "sgd"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Sampling = Literal["shuffle", "class-balanced", "repeat-factor"]
ClassWeights = Literal["none", "balanced"]
TileCache = Literal["auto", "none", "memory"]
RunLog = Literal["tensorboard", "wandb", "mlflow"]
ClipMode = Literal["hard", "rescale", "none"]
VoidMode = Literal["exclude", "allow"]
ClForm = Literal["logit", "prob"]
InfoNceVariant = Literal["paper", "author"]
Average = Literal["present", "valid"]
HeadNorm = Literal["bn", "ln"]
MultiscaleGroup = Literal["class", "image_class"]
MultiscaleLabels = Literal["nearest", "center", "homogeneous"]
Denominator = Literal["negatives", "all"]
LonelyAnchors = Literal["skip", "zero"]
PneResize = Literal["nearest", "bilinear"]
PneScope = Literal["image", "batch"]
LargeSets = Literal["subsample", "skip"]
Blend = Literal["hann", "gaussian", "constant"]
ConfidenceKind = Literal["probability", "margin", "entropy"]
ProbabilityFormat = Literal["uint8", "float16"]
MosaicOutput = Literal["one", "each"]
Regularization = Literal["none", "fast", "full"]
Split = Literal["none", "watershed", "probability", "erosion"]
Connectivity = Literal[4, 8]
SplitName = Literal["train", "val", "test"]
LearningSplit = Literal["train", "val"]
MapMethod = Literal["pca", "tsne"]
LabelKind = Literal["auto", "values", "colors", "polygons"]
SplitBy = Literal["auto", "place"]


def require_seed(seed: int) -> None:
    """Refuse a seed that random generators or TOML do not take."""
    require(0 <= seed < 2**63, "seed", seed, "0 or more, below 2**63")


def require(holds: bool, key: str, found: object, expected: str) -> None:
    """Refuse a value outside its range."""
    if not holds:
        raise ConfigError(f"{key} = {found!r} found, expected {expected}")
