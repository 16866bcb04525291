"""Multi-scale (CMS) and cross-scale (CCS) contrast between cells of an encoder's stages.

Source: Pissas et al., Multi-scale and Cross-scale Contrastive Learning for Semantic Segmentation (arXiv 2203.13409).
The functional core (`supervised_contrast`) takes sampled unit vectors and is deterministic; `MultiscaleContrastLoss`
is labels of cells + sampler + core + reduction. Where we depart from the paper or from the authors' published code:

- Each class has room for ``max_anchors // num_classes`` anchors, whichever classes are in the batch, and in stages
  with few cells for its share of them (`sample_anchors`).
- Classes with fewer than ``min_views`` cells in a stage are left out there and do not set the number for all.
- Anchors without a positive are left out of the mean; the code divides by 0 within a scale and counts them as 0
  across scales (``lonely="zero"``).
- Void is given by ``ignore_index``; the code drops the last class.

Dimension letters: B images, C channels, h x w cells of a stage, K classes, n room for anchors of a class, D projection
width, S stages, P pairs of stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ctrs.config import Denominator, LonelyAnchors, MultiscaleGroup, MultiscaleLabels
from ctrs.errors import ConfigError
from ctrs.losses.anchors import project_cells
from ctrs.losses.functional.masked import first_entries
from ctrs.losses.functional.multiscale import supervised_contrast
from ctrs.losses.multiscale_sampling import AnchorSamples, cell_labels, sample_anchors
from ctrs.losses.patches import stage_labels
from ctrs.losses.stages import StageContrast

MultiscaleTerm = Literal["cms", "ccs"]


class MultiscaleValues(NamedTuple):
    """The two terms; one that is off is 0 without a graph."""

    cms: Tensor
    """() weighted sum over stages."""
    ccs: Tensor
    """() weighted sum over pairs of stages."""


class MultiscaleStats(NamedTuple):
    """What the terms did, detached: tells whether they are alive."""

    quota: Tensor
    """(S,) anchors of each class in each stage that any term uses, in ascending order of the stages."""
    valid_terms: Tensor
    """(S,) classes with anchors."""
    cms: Tensor
    """Loss of each stage of cms, without its weight; empty if cms is off."""
    cms_anchors: Tensor
    """Anchors in its mean."""
    ccs: Tensor
    """(P,) loss of each pair, without its weight; empty if ccs is off."""
    ccs_anchors: Tensor
    """(P,) anchors in its mean, of both directions with ``symmetric``."""


class _Anchors(NamedTuple):
    vectors: Tensor
    """(K, n, D) unit vectors."""
    valid: Tensor
    """(K, n) bool."""


class MultiscaleContrastLoss(StageContrast):
    """CMS and CCS on one set of anchors for each stage, with one head for each stage.

    L_cms = sum over stages of w_s L(A_s, A_s), L_ccs = sum over pairs of w_st L(A_s, A_t): anchors from the first
    stage, positives and negatives from the second, with gradients into both. Batches without anchors give 0 with a
    graph, so that every head gets a (zero) gradient.

    Args:
        heads: One module for each stage that ``terms`` use, by stage, or in ascending order of these stages; owned by
            this loss. See `ctrs.losses.anchors.project_cells`.
        num_classes: K.
        ignore_index: Label of void pixels; values outside 0..K-1 are void as well.
        strides: Strides of all feature maps that will be passed.
        terms: Which of ``"cms"`` and ``"ccs"`` are wanted.
        temperature: Divides cosines.
        stages: Stages of cms.
        stage_weights: Weight of each of ``stages``.
        pairs: Pairs of different stages, contrasted by ccs.
        pair_weights: Weight of each of ``pairs``.
        symmetric: Average both directions of each pair.
        max_anchors: Cap on the anchors of a stage.
        max_per_class: Cap on the anchors of a class in a stage.
        min_views: A class (a class in an image with ``group="image_class"``) with fewer cells has no anchors.
        group: Who gets equally many anchors: each ``"class"`` or each ``"image_class"``.
        labels: A cell's label: ``"nearest"``, ``"center"`` or ``"homogeneous"``.
        denominator: ``"negatives"`` and the positive itself, or ``"all"`` others.
        lonely: Anchors without a positive are left out of the mean (``"skip"``) or count as 0 (``"zero"``).

    Raises:
        ConfigError: An option outside its range.
    """

    title = "multi-scale"

    def __init__(
        self,
        heads: Mapping[int, nn.Module] | Sequence[nn.Module],
        num_classes: int,
        *,
        ignore_index: int = 255,
        strides: Sequence[int] = (4, 8, 16, 32),
        terms: Sequence[str] = ("cms", "ccs"),
        temperature: float = 0.1,
        stages: Sequence[int] = (0, 1, 2, 3),
        stage_weights: Sequence[float] = (1.0, 0.7, 0.4, 0.1),
        pairs: Sequence[Sequence[int]] = ((0, 3), (0, 2)),
        pair_weights: Sequence[float] = (1.0, 1.0),
        symmetric: bool = False,
        max_anchors: int = 4096,
        max_per_class: int = 2500,
        min_views: int = 5,
        group: MultiscaleGroup = "class",
        labels: MultiscaleLabels = "nearest",
        denominator: Denominator = "negatives",
        lonely: LonelyAnchors = "skip",
    ) -> None:
        if not terms or not set(terms) <= set(get_args(MultiscaleTerm)) or len(set(terms)) != len(terms):
            raise ConfigError(f"terms of the multi-scale loss must be cms, ccs or both, found {tuple(terms)}")
        for name, choice, known in (
            ("group", group, get_args(MultiscaleGroup)),
            ("labels", labels, get_args(MultiscaleLabels)),
            ("denominator", denominator, get_args(Denominator)),
            ("lonely", lonely, get_args(LonelyAnchors)),
        ):
            if choice not in known:
                raise ConfigError(f"{name} of the multi-scale loss must be one of {', '.join(known)}, found {choice!r}")
        for name, number in (
            ("num_classes", num_classes),
            ("max_per_class", max_per_class),
            ("min_views", min_views),
        ):
            if number < 1:
                raise ConfigError(f"{name} of the multi-scale loss must be at least 1, found {number}")
        if max_anchors < num_classes:
            raise ConfigError(
                f"max_anchors of the multi-scale loss must be at least num_classes = {num_classes}, found {max_anchors}"
            )
        if not temperature > 0:
            raise ConfigError(f"temperature of the multi-scale loss must be above 0, found {temperature}")
        self.check_stages(stages, strides)
        known_stages = set(range(len(strides)))
        if not pairs or not all(len(set(pair)) == len(pair) == 2 and set(pair) <= known_stages for pair in pairs):
            raise ConfigError(
                f"pairs of the multi-scale loss must be pairs of different stages from 0 to {len(strides) - 1}, "
                f"found {tuple(tuple(pair) for pair in pairs)}"
            )
        for name, weights, wanted in (
            ("stage_weights", stage_weights, len(stages)),
            ("pair_weights", pair_weights, len(pairs)),
        ):
            if len(weights) != wanted or not all(weight >= 0 for weight in weights):
                raise ConfigError(
                    f"{name} of the multi-scale loss must be {wanted} numbers of at least 0, found {tuple(weights)}"
                )
        cms_stages = tuple(stages) if "cms" in terms else ()
        ccs_pairs = tuple((pair[0], pair[1]) for pair in pairs) if "ccs" in terms else ()
        used = sorted({*cms_stages, *(stage for pair in ccs_pairs for stage in pair)})
        super().__init__(num_classes, ignore_index=ignore_index, strides=strides, stages=used)
        self.cms_stages = cms_stages
        self.ccs_pairs = ccs_pairs
        by_stage = dict(heads if isinstance(heads, Mapping) else zip(self.stages, heads, strict=False))
        if set(by_stage) != set(self.stages) or len(heads) != len(self.stages):
            found = sorted(by_stage) if isinstance(heads, Mapping) else len(heads)
            raise ConfigError(
                f"the multi-scale loss needs one projection head for each of the stages {self.stages}, found {found}"
            )
        self.heads = nn.ModuleDict({str(stage): by_stage[stage] for stage in self.stages})
        self.temperature = temperature
        self.stage_weights = tuple(stage_weights)
        self.pair_weights = tuple(pair_weights)
        self.symmetric = symmetric
        self.max_anchors = max_anchors
        self.max_per_class = max_per_class
        self.min_views = min_views
        self.group: MultiscaleGroup = group
        self.labels: MultiscaleLabels = labels
        self.denominator: Denominator = denominator
        self.lonely: LonelyAnchors = lonely

    def forward(
        self, features: Sequence[Tensor], labels: Tensor, keys: Sequence[Tensor] | None = None
    ) -> tuple[MultiscaleValues, MultiscaleStats]:
        """Compute the terms.

        Args:
            features: One (B, C_s, h_s, w_s) map for each of ``strides``.
            labels: (B, H, W) integer class indices.
            keys: From `draw_keys`; drawn from the global generator if None.

        Returns:
            The values of cms and ccs, to be weighted and added, and what they did.

        Raises:
            UsageError: Number or sizes of the feature maps do not fit.
        """
        sizes = self.map_sizes(features)
        samples = self._sample(sizes, labels, self.draw_keys(features) if keys is None else keys)
        anchors = {}
        for stage, sample in samples.items():
            valid = first_entries(sample.counts, sample.cells.shape[1])
            head = self.heads[str(stage)]
            anchors[stage] = _Anchors(project_cells(features[stage], head, sample.cells, valid), valid)
        zero = next(iter(anchors.values())).vectors.new_zeros(())
        within = [self._contrast(anchors[stage], anchors[stage], same=True) for stage in self.cms_stages]
        across = [self._cross(anchors[first], anchors[second]) for first, second in self.ccs_pairs]
        values = MultiscaleValues(
            _weighted_sum(within, self.stage_weights, zero), _weighted_sum(across, self.pair_weights, zero)
        )
        stats = MultiscaleStats(
            torch.stack([sample.quota for sample in samples.values()]),
            torch.stack([(sample.counts > 0).sum() for sample in samples.values()]),
            *_columns(within, zero),
            *_columns(across, zero),
        )
        return values, stats

    def record(self, stats: MultiscaleStats) -> dict[str, Tensor]:
        """Name what a batch did, as scalars for the log.

        For stages of cms ``cms/raw_S`` (without its weight), ``cms/anchors_S``, ``cms/valid_terms_S`` (classes with
        anchors) and ``cms/K_S`` (anchors of each class), with the stride S; for pairs ``ccs/raw_S_T`` and
        ``ccs/anchors_S_T``. Stages that only ccs uses have ``ccs/valid_terms_S`` and ``ccs/K_S``.
        """
        names = stage_labels(self.strides)
        values: dict[str, Tensor] = {}
        for index, stage in enumerate(self.stages):
            term = "cms" if stage in self.cms_stages else "ccs"
            values[f"{term}/K_{names[stage]}"] = stats.quota[index]
            values[f"{term}/valid_terms_{names[stage]}"] = stats.valid_terms[index]
        for index, stage in enumerate(self.cms_stages):
            values[f"cms/raw_{names[stage]}"] = stats.cms[index]
            values[f"cms/anchors_{names[stage]}"] = stats.cms_anchors[index]
        for index, (first, second) in enumerate(self.ccs_pairs):
            values[f"ccs/raw_{names[first]}_{names[second]}"] = stats.ccs[index]
            values[f"ccs/anchors_{names[first]}_{names[second]}"] = stats.ccs_anchors[index]
        return values

    def _sample(
        self, sizes: Sequence[tuple[int, int]], labels: Tensor, keys: Sequence[Tensor]
    ) -> dict[int, AnchorSamples]:
        """Return the anchors' cells by stage."""
        maps = cell_labels(
            labels,
            sizes,
            num_classes=self.num_classes,
            strides=self.strides,
            ignore_index=self.ignore_index,
            mode=self.labels,
        )
        return {
            stage: sample_anchors(
                maps[stage],
                key,
                num_classes=self.num_classes,
                max_anchors=self.max_anchors,
                max_per_class=self.max_per_class,
                min_views=self.min_views,
                group=self.group,
            )
            for stage, key in zip(self.stages, keys, strict=True)
        }

    def _contrast(self, anchors: _Anchors, others: _Anchors, *, same: bool) -> tuple[Tensor, Tensor]:
        return supervised_contrast(
            *anchors,
            *others,
            temperature=self.temperature,
            same=same,
            denominator=self.denominator,
            lonely=self.lonely,
        )

    def _cross(self, first: _Anchors, second: _Anchors) -> tuple[Tensor, Tensor]:
        """Contrast the first with the second, and the other way round if wanted."""
        loss, count = self._contrast(first, second, same=False)
        if not self.symmetric:
            return loss, count
        back, back_count = self._contrast(second, first, same=False)
        return (loss + back) / 2, count + back_count


def _weighted_sum(terms: Sequence[tuple[Tensor, Tensor]], weights: Sequence[float], zero: Tensor) -> Tensor:
    return sum((weight * loss for (loss, _), weight in zip(terms, weights, strict=False)), start=zero)


def _columns(terms: Sequence[tuple[Tensor, Tensor]], zero: Tensor) -> tuple[Tensor, Tensor]:
    """Return the detached losses and counts, empty where there are none."""
    if not terms:
        return zero.new_zeros(0), zero.new_zeros(0)
    return torch.stack([loss.detach() for loss, _ in terms]), torch.stack([count for _, count in terms])
