"""Hyper-parameters of the contrast terms of ``--loss``: one table of the TOML file for each family of terms."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ctrs.config.choices import (
    Average,
    ClForm,
    ClipMode,
    Denominator,
    HeadNorm,
    InfoNceVariant,
    LargeSets,
    LonelyAnchors,
    MultiscaleGroup,
    MultiscaleLabels,
    PneResize,
    PneScope,
    VoidMode,
    require,
)


@dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    """Table ``[contrast]``: the Contrastive Transformer terms ``cl`` and ``infonce`` (arXiv 2303.14806).

    Args:
        stages: Encoder stages that take part, 0 (stride 4) to 3 (stride 32).
        num_pairs: Cap on sampled positives and negatives for each class and stage.
        top: Share of the sampled pairs kept by hard mining.
        smoothing: Label smoothing of the CL cross entropy.
        form: CL on ``log_softmax([1-s, s])`` (logit) or on ``log s`` (prob).
        temperature: InfoNCE temperature.
        variant: InfoNCE samples as in the paper or as in the authors' code.
        clip: Upper bound of the loss.
        clip_mode: ``hard`` is the paper's (no gradient above the bound), ``rescale`` keeps the gradient's direction,
            ``none`` has no bound.
        void: ``exclude`` keeps windows with void out of the negatives, ``allow`` is the authors' reading.
        average: Denominator: classes ``present`` in the batch (authors) or ``valid`` terms.
        min_positives: Homogeneous patches a class needs at a stage.
        min_negatives: Patches without the class it needs at a stage.
        min_positive_pairs: Pairs of homogeneous patches, one from each half of them, that a class needs at a stage for
            positive pairs (CL), or for a term at all (InfoNCE).
        projection_dim: Width of the projection.
    """

    stages: tuple[int, ...] = (0, 1, 2, 3)
    num_pairs: int = 2000
    top: float = 0.5
    smoothing: float = 0.1
    form: ClForm = "logit"
    temperature: float = 0.1
    variant: InfoNceVariant = "paper"
    clip: float = 1.0
    clip_mode: ClipMode = "rescale"
    void: VoidMode = "exclude"
    average: Average = "present"
    min_positives: int = 5
    min_negatives: int = 5
    min_positive_pairs: int = 5
    projection_dim: int = 128

    def __post_init__(self) -> None:
        _require_stages("contrast.stages", self.stages)
        require(self.num_pairs >= 2, "contrast.num_pairs", self.num_pairs, "2 or more")
        require(0 < self.top <= 1, "contrast.top", self.top, "above 0 and at most 1")
        require(0 <= self.smoothing < 1, "contrast.smoothing", self.smoothing, "0 to below 1")
        _require_temperature("contrast.temperature", self.temperature)
        require(self.clip > 0, "contrast.clip", self.clip, "above 0")
        require(self.min_positives >= 1, "contrast.min_positives", self.min_positives, "1 or more")
        require(self.min_negatives >= 1, "contrast.min_negatives", self.min_negatives, "1 or more")
        require(self.min_positive_pairs >= 1, "contrast.min_positive_pairs", self.min_positive_pairs, "1 or more")
        require(self.projection_dim >= 1, "contrast.projection_dim", self.projection_dim, "1 or more")


@dataclass(frozen=True, kw_only=True)
class SupconConfig:
    """Table ``[supcon]``: term ``supcon``, supervised contrast between patches (Khosla et al., arXiv 2004.11362).

    Args:
        stages: Encoder stages that take part, 0 (stride 4) to 3 (stride 32); the term is their mean.
        num_patches: Cap on sampled one-class patches for each class and stage.
        temperature: Divides cosines.
        projection_dim: Width of the projection.
    """

    stages: tuple[int, ...] = (0, 1, 2, 3)
    num_patches: int = 256
    temperature: float = 0.1
    projection_dim: int = 128

    def __post_init__(self) -> None:
        _require_stages("supcon.stages", self.stages)
        require(self.num_patches >= 2, "supcon.num_patches", self.num_patches, "2 or more")
        _require_temperature("supcon.temperature", self.temperature)
        require(self.projection_dim >= 1, "supcon.projection_dim", self.projection_dim, "1 or more")


@dataclass(frozen=True, kw_only=True)
class MultiscaleConfig:
    """Table ``[multiscale]``: the terms ``cms`` and ``ccs``, which share heads and anchors (arXiv 2203.13409).

    Args:
        temperature: Divides cosines, within and across scales.
        stages: Encoder stages of ``cms``, 0 (stride 4) to 3 (stride 32).
        stage_weights: Weight of each of ``stages``.
        pairs: Stages contrasted by ``ccs``: anchors from the first, positives and negatives from the second.
        pair_weights: Weight of each of ``pairs``.
        symmetric: Average both directions of each pair (the paper has one).
        max_anchors: Cap on the anchors of a stage over all classes.
        max_per_class: Cap on the anchors of a stage for each class.
        min_views: A class (an image's class with ``group = "image_class"``) with fewer cells is left out.
        group: Who gets equally many anchors: each ``class``, spread over images (paper), or each ``image_class``, a
            class in one image (the authors' code).
        labels: A cell's label: its window's top left pixel (``nearest``, the code), its ``center`` pixel, or the class
            of ``homogeneous`` windows only.
        denominator: ``negatives`` and the positive itself (the paper's Eq. 1) or ``all`` others (Khosla et al.).
        lonely: Anchors without a positive: ``skip`` leaves them out of the mean, ``zero`` counts them as 0.
        norm: Of the projection heads: ``bn`` is the paper's and projects whole maps, ``ln`` projects anchors only.
        hidden_layers: Of the projection heads: 2 as in the paper or 1 as in the code.
        projection_dim: Width of the projection.
    """

    temperature: float = 0.1
    stages: tuple[int, ...] = (0, 1, 2, 3)
    stage_weights: tuple[float, ...] = (1.0, 0.7, 0.4, 0.1)
    pairs: tuple[tuple[int, ...], ...] = ((0, 3), (0, 2))
    pair_weights: tuple[float, ...] = (1.0, 1.0)
    symmetric: bool = False
    max_anchors: int = 4096
    max_per_class: int = 2500
    min_views: int = 5
    group: MultiscaleGroup = "class"
    labels: MultiscaleLabels = "nearest"
    denominator: Denominator = "negatives"
    lonely: LonelyAnchors = "skip"
    norm: HeadNorm = "bn"
    hidden_layers: int = 2
    projection_dim: int = 256

    def __post_init__(self) -> None:
        _require_temperature("multiscale.temperature", self.temperature)
        _require_stages("multiscale.stages", self.stages)
        _require_weights("multiscale.stage_weights", self.stage_weights, len(self.stages), "stages")
        pairs_ok = bool(self.pairs) and all(
            len(pair) == 2 and pair[0] != pair[1] and set(pair) <= {0, 1, 2, 3} for pair in self.pairs
        )
        require(pairs_ok, "multiscale.pairs", self.pairs, "pairs of two different stages from 0 to 3")
        _require_weights("multiscale.pair_weights", self.pair_weights, len(self.pairs), "pairs")
        require(self.max_anchors >= 2, "multiscale.max_anchors", self.max_anchors, "2 or more")
        require(self.max_per_class >= 1, "multiscale.max_per_class", self.max_per_class, "1 or more")
        require(self.min_views >= 1, "multiscale.min_views", self.min_views, "1 or more")
        require(self.hidden_layers in (1, 2), "multiscale.hidden_layers", self.hidden_layers, "1 or 2")
        require(self.projection_dim >= 1, "multiscale.projection_dim", self.projection_dim, "1 or more")


@dataclass(frozen=True, kw_only=True)
class PneConfig:
    """Table ``[pne]``: Positive-Negative Equal contrast of wrongly classified cells, term ``pne`` (arXiv 2207.01417).

    Args:
        temperature: Divides cosines; below 0.3 the paper's own results collapse.
        max_anchors: Cap on the wrong cells of an image that become anchors.
        num_candidates: Cap on the right cells of a class that serve as positives and negatives in an image.
        normalize_weights: Divide a positive's confidence by the mean (paper); the code does not.
        detach: Keep gradients out of positives and negatives (the code's reading).
        resize: How logits come to the embedding's size; labels are always taken nearest.
        scope: Where positives and negatives come from: the anchor's ``image`` (paper) or the ``batch``.
        large_sets: More than ``max_anchors`` wrong cells: ``subsample`` draws from all, ``skip`` leaves out each pair
            of predicted and true class with more (the code).
        norm: Of the projection head: ``bn`` is the paper's, ``ln`` projects sampled cells only.
        projection_dim: Width of the projection.
    """

    temperature: float = 1.0
    max_anchors: int = 199
    num_candidates: int = 100
    normalize_weights: bool = True
    detach: bool = True
    resize: PneResize = "nearest"
    scope: PneScope = "image"
    large_sets: LargeSets = "subsample"
    norm: HeadNorm = "bn"
    projection_dim: int = 256

    def __post_init__(self) -> None:
        _require_temperature("pne.temperature", self.temperature)
        require(self.max_anchors >= 1, "pne.max_anchors", self.max_anchors, "1 or more")
        require(self.num_candidates >= 1, "pne.num_candidates", self.num_candidates, "1 or more")
        require(self.projection_dim >= 1, "pne.projection_dim", self.projection_dim, "1 or more")


def _require_stages(key: str, stages: tuple[int, ...]) -> None:
    holds = bool(stages) and set(stages) <= {0, 1, 2, 3} and len(set(stages)) == len(stages)
    require(holds, key, stages, "distinct numbers from 0 to 3")


def _require_weights(key: str, weights: tuple[float, ...], count: int, of_what: str) -> None:
    holds = len(weights) == count and all(0 <= weight < math.inf for weight in weights) and any(weights)
    require(holds, key, weights, f"{count} numbers of at least 0, not all 0, one for each of the {of_what}")


def _require_temperature(key: str, temperature: float) -> None:
    require(1e-6 <= temperature <= 1e6, key, temperature, "1e-6 to 1e6")
