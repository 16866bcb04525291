"""Training and evaluation of networks."""

from ctrs.training.records import EpochRecord, TrainPlan, TrainResult
from ctrs.training.trainer import train

__all__ = ["EpochRecord", "TrainPlan", "TrainResult", "train"]
