"""Losses over plain tensors: use them in any training loop."""

from ctrs.config import LossTerm, parse_loss
from ctrs.losses.contrastive import ContrastiveTransformerLoss, ContrastStats
from ctrs.losses.functional import cl_terms, infonce_terms, pne_terms, supervised_contrast
from ctrs.losses.multiscale import MultiscaleContrastLoss, MultiscaleStats
from ctrs.losses.objective import Objective, ObjectiveOutput, create_objective
from ctrs.losses.pne import PneStats, PositiveNegativeEqualLoss
from ctrs.losses.sampling import draw_keys
from ctrs.losses.segmentation import SegmentationLoss
from ctrs.losses.supcon import SupconStats, SupervisedContrastLoss

__all__ = [
    "ContrastStats",
    "ContrastiveTransformerLoss",
    "LossTerm",
    "MultiscaleContrastLoss",
    "MultiscaleStats",
    "Objective",
    "ObjectiveOutput",
    "PneStats",
    "PositiveNegativeEqualLoss",
    "SegmentationLoss",
    "SupconStats",
    "SupervisedContrastLoss",
    "cl_terms",
    "create_objective",
    "draw_keys",
    "infonce_terms",
    "parse_loss",
    "pne_terms",
    "supervised_contrast",
]
