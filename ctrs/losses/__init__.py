"""Losses over plain tensors: use them in any training loop."""

from ctrs.losses.contrastive import ContrastiveTransformerLoss, ContrastStats
from ctrs.losses.functional import cl_terms, infonce_terms
from ctrs.losses.objective import LossTerm, Objective, ObjectiveOutput, create_objective, parse_loss
from ctrs.losses.sampling import draw_keys
from ctrs.losses.segmentation import SegmentationLoss

__all__ = [
    "ContrastStats",
    "ContrastiveTransformerLoss",
    "LossTerm",
    "Objective",
    "ObjectiveOutput",
    "SegmentationLoss",
    "cl_terms",
    "create_objective",
    "draw_keys",
    "infonce_terms",
    "parse_loss",
]
