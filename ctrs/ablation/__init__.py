"""Grids of runs, and the table of what each setting gains."""

from ctrs.ablation.grid import AblationPlan, ablate, plan_ablation
from ctrs.ablation.keeping import keep_results
from ctrs.ablation.table import AblationResult

__all__ = ["AblationPlan", "AblationResult", "ablate", "keep_results", "plan_ablation"]
