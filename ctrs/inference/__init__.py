"""Class maps of scenes of any size: networks over overlapping windows, in fixed memory."""

from ctrs.inference.predictor import Predictor

__all__ = ["Predictor"]
