"""Training of networks; evaluation, one room below, is at hand here too."""

from ctrs.evaluation import EvaluationReport, evaluate, evaluate_masks
from ctrs.training.records import EpochRecord, TrainPlan, TrainResult
from ctrs.training.trainer import train

__all__ = ["EpochRecord", "EvaluationReport", "TrainPlan", "TrainResult", "evaluate", "evaluate_masks", "train"]
