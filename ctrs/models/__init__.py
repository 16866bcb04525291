"""Networks: timm encoders, our decoders and those of segmentation_models_pytorch, projection heads."""

from ctrs.model_files import CheckpointMetadata, read_metadata
from ctrs.models.checkpoint import (
    load_checkpoint,
    load_module,
    save_checkpoint,
    save_module,
)
from ctrs.models.decoders import DECODERS, create_decoder
from ctrs.models.encoder import BACKBONE_ALIASES, create_encoder, resolve_backbone
from ctrs.models.projection import NormProjectionHead, ProjectionHead
from ctrs.models.segmentation import Architecture, SegmentationModel, SegmentationOutput, create_model

__all__ = [
    "BACKBONE_ALIASES",
    "DECODERS",
    "Architecture",
    "CheckpointMetadata",
    "NormProjectionHead",
    "ProjectionHead",
    "SegmentationModel",
    "SegmentationOutput",
    "create_decoder",
    "create_encoder",
    "create_model",
    "load_checkpoint",
    "load_module",
    "read_metadata",
    "resolve_backbone",
    "save_checkpoint",
    "save_module",
]
