"""Contrast losses of sampled vectors: deterministic, no sampling, no networks, nothing that waits for the device."""

from ctrs.losses.functional.contrastive import MinedPairs, cl_terms, infonce_terms, mine_pairs, soft_cross_entropy
from ctrs.losses.functional.multiscale import supervised_contrast
from ctrs.losses.functional.pne import pne_terms

__all__ = [
    "MinedPairs",
    "cl_terms",
    "infonce_terms",
    "mine_pairs",
    "pne_terms",
    "soft_cross_entropy",
    "supervised_contrast",
]
