"""Contrastive Transformer losses: CL and InfoNCE between patches of one class and patches without it.

Source: Jyhne et al., A Contrastive Learning Scheme with Transformer Innate Patches (arXiv 2303.14806), sections 3.2
to 3.4. The functional cores (`cl_terms`, `infonce_terms`) take sampled unit vectors and are deterministic;
`ContrastiveTransformerLoss` is sampler + core + reduction. Where we depart from the paper or from the authors'
published code:

- "A set number of pairs" is at most ``num_pairs`` positives and negatives for each class and stage.
- Windows with void pixels are no negatives (``void="allow"`` takes them).
- ``clip_mode="rescale"`` has the value of the paper's hard clip but keeps the gradient's direction above it, where
  the hard clip has none.

Dimension letters: B images, h x w cells of a stage, N = B * h * w, C channels, D projection width, K classes, n
sampled cells for each class, S stages, P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ctrs.config import Average, ClForm, ClipMode, InfoNceVariant, VoidMode
from ctrs.errors import ConfigError
from ctrs.losses.anchors import unit_vectors
from ctrs.losses.functional.contrastive import cl_terms, infonce_terms
from ctrs.losses.functional.masked import first_entries
from ctrs.losses.patches import patch_bits, present_classes
from ctrs.losses.sampling import Samples, all_rows, gather_rows, sample_classes
from ctrs.losses.stages import StageContrast

ContrastKind = Literal["cl", "infonce"]


class ContrastStats(NamedTuple):
    """What a contrast term did, detached: tells whether it is alive."""

    raw: Tensor
    """() loss before the clip."""
    clip_active: Tensor
    """() 1 where the clip took effect, else 0."""
    anchors: Tensor
    """(S,) sampled positives, over all classes, of each stage."""
    valid_terms: Tensor
    """(S,) classes with a term in each stage."""


def project_samples(features: Tensor, head: nn.Module, samples: Samples) -> tuple[Tensor, Tensor]:
    """Project and normalise sampled cells only, which is exact for a head that works row by row.

    Where more cells were drawn than the stage has (classes share negatives), each used cell is projected once. Unused
    cells can't enter.

    Args:
        features: (B, C, h, w).
        head: Maps (R, C) to (R, D) row by row.
        samples: Of this stage.

    Returns:
        Positives and negatives, each (K, n, D) unit vectors in float32 (float64 for float64 features).
    """
    K, n = samples.positives.shape
    cells = torch.cat([samples.positives, samples.negatives]).reshape(-1)  # (2 K n,)
    valid = torch.cat([first_entries(samples.positive_count, n), first_entries(samples.negative_count, n)]).reshape(-1)
    num_cells = features.shape[0] * features.shape[2] * features.shape[3]
    if cells.numel() <= num_cells:
        vectors = unit_vectors(head(gather_rows(features, cells, valid)))
    else:
        used = torch.zeros(num_cells + 1, dtype=torch.bool, device=cells.device)
        used = used.index_fill(0, torch.where(valid, cells, num_cells), True)[:num_cells]
        vectors = unit_vectors(head(all_rows(features, used))).index_select(0, cells)
    positives, negatives = vectors.view(2, K, n, -1).unbind(0)
    return positives, negatives


class ContrastiveTransformerLoss(StageContrast):
    """CL or InfoNCE over the stages of an encoder, averaged over stages and the classes in the batch.

    L = clip(1 / (S |C_b|) sum over stages and classes of L(s, c)), C_b the classes in the batch. A class without
    enough patches in a stage contributes 0 and, with ``average="present"``, stays in the denominator. Batches without
    any pair give 0 with a graph, so that every head gets a (zero) gradient.

    Args:
        heads: One module for each of ``stages`` that maps (R, C_s) to (R, D) row by row; owned by this loss.
        num_classes: K.
        kind: ``"cl"`` or ``"infonce"``.
        ignore_index: Label of void pixels; values outside 0..K-1 are void as well.
        stages: Which of the feature maps take part.
        strides: Strides of all feature maps that will be passed.
        num_pairs: Cap of positives and of negatives for each class and stage.
        top: Fraction of the hardest pairs that is kept.
        smoothing: Of the two-class target (cl).
        form: Of the soft cross entropy (cl).
        temperature: Divides cosines (infonce).
        variant: Which pairs become queries, keys and negatives (infonce).
        min_positives: Fewer positives: no term for the class.
        min_negatives: Fewer negatives: no term for the class.
        min_positive_pairs: Fewer bisected pairs: no positive part (cl), no term (infonce).
        void: Whether windows with void pixels may be negatives.
        average: Denominator: stages x present classes, or the number of terms that exist.
        clip: Upper bound of the loss.
        clip_mode: ``"hard"`` has no gradient above the bound (paper), ``"rescale"`` keeps its direction, ``"none"``
            has no bound.

    Raises:
        ConfigError: An option outside its range.
    """

    title = "contrast"

    def __init__(
        self,
        heads: Sequence[nn.Module],
        num_classes: int,
        *,
        kind: ContrastKind = "cl",
        ignore_index: int = 255,
        stages: Sequence[int] = (0, 1, 2, 3),
        strides: Sequence[int] = (4, 8, 16, 32),
        num_pairs: int = 2000,
        top: float = 0.5,
        smoothing: float = 0.1,
        form: ClForm = "logit",
        temperature: float = 0.1,
        variant: InfoNceVariant = "paper",
        min_positives: int = 5,
        min_negatives: int = 5,
        min_positive_pairs: int = 5,
        void: VoidMode = "exclude",
        average: Average = "present",
        clip: float = 1.0,
        clip_mode: ClipMode = "hard",
    ) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, strides=strides, stages=stages)
        _check_options(
            {
                "kind": (kind, get_args(ContrastKind)),
                "form": (form, get_args(ClForm)),
                "variant": (variant, get_args(InfoNceVariant)),
                "void": (void, get_args(VoidMode)),
                "average": (average, get_args(Average)),
                "clip_mode": (clip_mode, get_args(ClipMode)),
            },
            at_least_one={
                "num_classes": num_classes,
                "num_pairs": num_pairs,
                "min_positives": min_positives,
                "min_negatives": min_negatives,
                "min_positive_pairs": min_positive_pairs,
            },
            above_zero={"top": top, "temperature": temperature, "clip": clip},
            at_most_one={"top": top, "smoothing": smoothing},
        )
        self.check_stages(stages, strides)
        self.check_heads(heads, stages)
        self.heads = nn.ModuleList(heads)
        self.kind: ContrastKind = kind
        self.num_pairs = num_pairs
        self.top = top
        self.smoothing = smoothing
        self.form: ClForm = form
        self.temperature = temperature
        self.variant: InfoNceVariant = variant
        self.min_positives = min_positives
        self.min_negatives = min_negatives
        self.min_positive_pairs = min_positive_pairs
        self.void: VoidMode = void
        self.average: Average = average
        self.clip = clip
        self.clip_mode: ClipMode = clip_mode

    def forward(
        self, features: Sequence[Tensor], labels: Tensor, keys: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, ContrastStats]:
        """Compute the loss.

        Args:
            features: One (B, C_s, h_s, w_s) map for each of ``strides``.
            labels: (B, H, W) integer class indices.
            keys: From `draw_keys`; drawn from the global generator if None.

        Returns:
            () loss and what it did.

        Raises:
            UsageError: Number or sizes of the feature maps do not fit.
        """
        sizes = self.map_sizes(features)
        if keys is None:
            keys = self.draw_keys(features)
        levels = patch_bits(
            labels, sizes, num_classes=self.num_classes, strides=self.strides, ignore_index=self.ignore_index
        )
        present = present_classes(levels[self.stages[0]], self.num_classes).sum()
        terms, anchors, valid_terms = [], [], []
        for stage, head, key in zip(self.stages, self.heads, keys, strict=True):
            samples = sample_classes(
                levels[stage], key, num_classes=self.num_classes, count=self.num_pairs, void=self.void
            )
            if self.kind == "cl":
                # Recomputed in the backward pass, so that of a stage only the samples' indices stay alive. InfoNCE
                # would pay for that with nearly twice its time.
                term, exists = checkpoint(
                    self._stage_terms, features[stage], head, samples, use_reentrant=False, preserve_rng_state=False
                )  # (K,), (K,)
            else:
                term, exists = self._stage_terms(features[stage], head, samples)
            terms.append(term.sum())
            anchors.append(samples.positive_count.sum())
            valid_terms.append(exists.sum())
        count = torch.stack(valid_terms)
        denominator = count.sum() if self.average == "valid" else present * len(self.stages)
        raw = torch.stack(terms).sum() / denominator.clamp_min(1)
        stats = ContrastStats(raw.detach(), (raw.detach() > self.clip).to(raw.dtype), torch.stack(anchors), count)
        return self._clip(raw), stats

    def record(self, stats: ContrastStats) -> dict[str, Tensor]:
        """Name what a batch did, as scalars for the log: ``raw``, ``clip_active``, ``anchors_S``, ``valid_terms_S``.

        S is the stage's stride, with a letter where an earlier stage has the same (`stage_labels`).
        """
        stages = self.record_stages(anchors=stats.anchors, valid_terms=stats.valid_terms)
        return {"raw": stats.raw, "clip_active": stats.clip_active, **stages}

    def _stage_terms(self, features: Tensor, head: nn.Module, samples: Samples) -> tuple[Tensor, Tensor]:
        """Return the loss of each class in a stage and whether it has one, both (K,)."""
        positives, negatives = project_samples(features, head, samples)
        with torch.autocast(positives.device.type, enabled=False):
            return self._class_terms(positives, negatives, samples)

    def _class_terms(self, positives: Tensor, negatives: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
        """The same of unit vectors."""
        a, b = samples.positive_count, samples.negative_count
        enough = (a >= self.min_positives) & (b >= self.min_negatives)
        enough_pairs = enough & (a // 2 >= self.min_positive_pairs)
        if self.kind == "infonce":
            loss = infonce_terms(
                positives, negatives, a, b, top=self.top, temperature=self.temperature, variant=self.variant
            )
            return torch.where(enough_pairs, loss, 0.0), enough_pairs
        negative, positive = cl_terms(
            positives, negatives, a, b, top=self.top, smoothing=self.smoothing, form=self.form
        )
        return torch.where(enough, negative, 0.0) + torch.where(enough_pairs, positive, 0.0), enough

    def _clip(self, raw: Tensor) -> Tensor:
        if self.clip_mode == "hard":
            return raw.clamp(0.0, self.clip)
        if self.clip_mode == "rescale":
            return raw * (self.clip / raw.detach().clamp_min(self.clip))
        return raw


def _check_options(
    choices: Mapping[str, tuple[str, tuple[str, ...]]],
    *,
    at_least_one: Mapping[str, int],
    above_zero: Mapping[str, float],
    at_most_one: Mapping[str, float],
) -> None:
    """Refuse options outside their range."""
    for name, (choice, known) in choices.items():
        if choice not in known:
            raise ConfigError(f"{name} of the contrast loss must be one of {', '.join(known)}, found {choice!r}")
    for limit, values, broken in (
        ("at least 1", at_least_one, lambda value: value < 1),
        ("above 0", above_zero, lambda value: value <= 0),
        ("between 0 and 1", at_most_one, lambda value: not 0 <= value <= 1),
    ):
        for name, value in values.items():
            if broken(value):
                raise ConfigError(f"{name} of the contrast loss must be {limit}, found {value}")
