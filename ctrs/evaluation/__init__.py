"""How good networks, or masks made by anyone, are on whole scenes."""

from ctrs.evaluation.comparison import Comparison, compare
from ctrs.evaluation.evaluation import evaluate
from ctrs.evaluation.mask_comparison import evaluate_masks
from ctrs.evaluation.model_comparison import evaluate_models
from ctrs.evaluation.score_report import EvaluationReport

__all__ = ["Comparison", "EvaluationReport", "compare", "evaluate", "evaluate_masks", "evaluate_models"]
