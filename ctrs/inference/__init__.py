"""Class maps of scenes of any size: networks over overlapping windows, in fixed memory."""

from ctrs.inference.predictor import Predictor
from ctrs.inference.scene_mosaic import predict_mosaic
from ctrs.inference.scenes import mask_path, mask_paths, scenes_in

__all__ = ["Predictor", "mask_path", "mask_paths", "predict_mosaic", "scenes_in"]
