"""Training and evaluation of networks."""

from ctrs.training.ablation import AblationPlan, ablate, plan_ablation
from ctrs.training.ablation_table import AblationResult
from ctrs.training.comparison import Comparison, compare
from ctrs.training.embedding_map import inspect_embeddings
from ctrs.training.evaluation import evaluate
from ctrs.training.mask_comparison import evaluate_masks
from ctrs.training.model_comparison import evaluate_models
from ctrs.training.patch_maps import inspect_patches
from ctrs.training.records import EpochRecord, TrainPlan, TrainResult
from ctrs.training.score_report import EvaluationReport
from ctrs.training.trainer import train

__all__ = [
    "AblationPlan",
    "AblationResult",
    "Comparison",
    "EpochRecord",
    "EvaluationReport",
    "TrainPlan",
    "TrainResult",
    "ablate",
    "compare",
    "evaluate",
    "evaluate_masks",
    "evaluate_models",
    "inspect_embeddings",
    "inspect_patches",
    "plan_ablation",
    "train",
]
