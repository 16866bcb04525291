"""What a network contrasts: patches of a tile, and embeddings of many."""

from ctrs.inspection.embedding_map import inspect_embeddings
from ctrs.inspection.patch_maps import inspect_patches

__all__ = ["inspect_embeddings", "inspect_patches"]
