"""Contrast losses of sampled vectors: deterministic, no sampling, no networks, nothing that waits for the device."""

from ctrs.losses.functional.contrastive import MinedPairs, cl_terms, infonce_terms, mine_pairs, soft_cross_entropy

__all__ = ["MinedPairs", "cl_terms", "infonce_terms", "mine_pairs", "soft_cross_entropy"]
