"""Training and evaluation of networks."""

from ctrs.training.evaluation import evaluate
from ctrs.training.mask_comparison import evaluate_masks
from ctrs.training.records import EpochRecord, TrainPlan, TrainResult
from ctrs.training.score_report import EvaluationReport
from ctrs.training.trainer import train

__all__ = ["EpochRecord", "EvaluationReport", "TrainPlan", "TrainResult", "evaluate", "evaluate_masks", "train"]
