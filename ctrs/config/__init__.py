"""What each step can be told: frozen dataclasses, closed choices as Literals, TOML in and out. Knows no torch.

The command line's options carry these choices and defaults, so help and code cannot drift apart.
"""

from ctrs.config.choices import (
    Average,
    Blend,
    ClForm,
    ClipMode,
    Decoder,
    Denominator,
    HeadNorm,
    InfoNceVariant,
    LabelKind,
    LargeSets,
    LonelyAnchors,
    MultiscaleGroup,
    MultiscaleLabels,
    PneResize,
    PneScope,
    Precision,
    Recipe,
    Schedule,
    SplitName,
    VoidMode,
)
from ctrs.config.contrast import ContrastConfig, MultiscaleConfig, PneConfig, SupconConfig
from ctrs.config.loss import DEFAULT_WEIGHTS, LossTerm, parse_loss
from ctrs.config.recipes import CT_PAPER, CT_PAPER_INPUT_PX, RECIPES, RUN_KEYS, resolve_train_config, run_name
from ctrs.config.steps import AugmentConfig, EvalConfig, PredictConfig, PrepareConfig, TrainConfig, VectorizeConfig
from ctrs.config.toml import from_mapping, merge, read_toml, to_plain

__all__ = [
    "CT_PAPER",
    "CT_PAPER_INPUT_PX",
    "DEFAULT_WEIGHTS",
    "RECIPES",
    "RUN_KEYS",
    "AugmentConfig",
    "Average",
    "Blend",
    "ClForm",
    "ClipMode",
    "ContrastConfig",
    "Decoder",
    "Denominator",
    "EvalConfig",
    "HeadNorm",
    "InfoNceVariant",
    "LabelKind",
    "LargeSets",
    "LonelyAnchors",
    "LossTerm",
    "MultiscaleConfig",
    "MultiscaleGroup",
    "MultiscaleLabels",
    "PneConfig",
    "PneResize",
    "PneScope",
    "Precision",
    "PredictConfig",
    "PrepareConfig",
    "Recipe",
    "Schedule",
    "SplitName",
    "SupconConfig",
    "TrainConfig",
    "VectorizeConfig",
    "VoidMode",
    "from_mapping",
    "merge",
    "parse_loss",
    "read_toml",
    "resolve_train_config",
    "run_name",
    "to_plain",
]
