"""What training minimises: the segmentation loss plus a weighted sum of the contrast terms that ``--loss`` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ctrs.config import (
    ContrastConfig,
    LossTerm,
    MultiscaleConfig,
    PneConfig,
    SegmentationConfig,
    SupconConfig,
    parse_loss,
)
from ctrs.errors import ConfigError
from ctrs.losses.contrastive import ContrastiveTransformerLoss
from ctrs.losses.multiscale import MultiscaleContrastLoss
from ctrs.losses.pne import PositiveNegativeEqualLoss
from ctrs.losses.segmentation import SegmentationLoss, balanced_weights
from ctrs.losses.supcon import SupervisedContrastLoss

Keys = dict[str, tuple[Tensor, ...]]
"""Random keys by contrast module."""

ContrastLoss = ContrastiveTransformerLoss | SupervisedContrastLoss | MultiscaleContrastLoss | PositiveNegativeEqualLoss

MODULES: Mapping[str, str] = {
    "cl": "cl",
    "infonce": "infonce",
    "supcon": "supcon",
    "cms": "multiscale",
    "ccs": "multiscale",
    "pne": "pne",
}
"""The contrast module that computes each term; cms and ccs share one, with its heads and anchors."""


class ObjectiveOutput(NamedTuple):
    """The scalar to minimise and its named parts, detached scalars for the log."""

    total: Tensor
    parts: dict[str, Tensor]


class _Term(NamedTuple):
    """A term's value and what the log shall say of it, by full name."""

    value: Tensor
    record: dict[str, Tensor]


class Objective(nn.Module):
    """Segmentation loss + sum of weight * contrast term, and the segmentation loss of an auxiliary head.

    The contrast modules own their projection heads, and the objective the auxiliary head, so that
    ``objective.parameters()`` are what training needs beside the model's; they have no part in prediction.

    Args:
        segmentation: The segmentation loss.
        terms: Names and weights of the contrast terms.
        contrast: The contrast module of each of ``MODULES[term]``.
        auxiliary: Maps the decoder's inner maps to logits at the padded input's size (deep supervision); None: none.
        auxiliary_weight: Weight of its segmentation loss.

    Raises:
        ConfigError: Terms and modules do not belong together.
    """

    def __init__(
        self,
        segmentation: SegmentationLoss,
        terms: Sequence[LossTerm] = (),
        contrast: Mapping[str, ContrastLoss] | None = None,
        *,
        auxiliary: nn.Module | None = None,
        auxiliary_weight: float = 0.0,
    ) -> None:
        super().__init__()
        given = dict(contrast or {})
        if set(given) != module_names(terms):
            raise ConfigError(
                f"the objective has terms {', '.join(term.name for term in terms) or 'none'}, "
                f"but losses for {', '.join(given) or 'none'}; give one for each"
            )
        self.segmentation = segmentation
        self.terms = tuple(terms)
        self.contrast = nn.ModuleDict(given)
        self.auxiliary = auxiliary
        self.auxiliary_weight = auxiliary_weight

    @property
    def has_heads(self) -> bool:
        """Whether there is anything to learn here, and so to save: projection heads or an auxiliary head."""
        return next(self.parameters(), None) is not None

    def draw_keys(
        self, features: Sequence[Tensor], embedding: Tensor, generator: torch.Generator | None = None
    ) -> Keys:
        """Draw what `forward` needs at random for maps of these shapes; their values are not read."""
        keys: Keys = {}
        for name, module in self.contrast.items():
            if isinstance(module, PositiveNegativeEqualLoss):
                keys[name] = module.draw_keys(embedding, generator)
            elif isinstance(module, ContrastiveTransformerLoss | SupervisedContrastLoss | MultiscaleContrastLoss):
                keys[name] = module.draw_keys(features, generator)
        return keys

    def forward(
        self,
        logits: Tensor,
        features: Sequence[Tensor],
        embedding: Tensor,
        labels: Tensor,
        keys: Keys | None = None,
        *,
        contrast_scale: float = 1.0,
        inner: Sequence[Tensor] | None = None,
    ) -> ObjectiveOutput:
        """Compute the objective of a batch.

        Args:
            logits: (B, K, H, W).
            features: (B, C_s, h_s, w_s), the stages from fine to coarse.
            embedding: (B, C, h, w), the decoder's output.
            labels: (B, H, W) integer class indices.
            keys: From `draw_keys`; drawn from the global generator if None.
            contrast_scale: Factor on all contrast terms, 0 while they are to wait.
            inner: The decoder's inner maps, which the auxiliary head looks at where there is one.

        Returns:
            The total and its parts without their weights: those of the segmentation loss (``cross_entropy``,
            ``dice``, ...), ``auxiliary``, and for each term NAME ``NAME`` and what its module's ``record`` tells:
            ``NAME/raw``, ``NAME/clip_active``, ``NAME/anchors_S``, ... with the stride S.
        """
        keys = self.draw_keys(features, embedding) if keys is None else keys
        total, segmentation = self.segmentation(logits, labels)
        parts = {name: value.detach() for name, value in segmentation.items()}
        if self.auxiliary is not None and inner is not None:
            second = self.auxiliary(inner)[..., : labels.shape[-2], : labels.shape[-1]]
            value = self.segmentation(second, labels).total
            total = total + self.auxiliary_weight * value
            parts["auxiliary"] = value.detach()
        computed: dict[str, _Term] = {}
        for name, module in self.contrast.items():
            if isinstance(module, PositiveNegativeEqualLoss):
                value, pne_stats = module(embedding, logits, labels, keys[name])
                computed[name] = _Term(value, _prefixed(name, module.record(pne_stats)))
            elif isinstance(module, MultiscaleContrastLoss):
                values, multiscale_stats = module(features, labels, keys[name])
                record = module.record(multiscale_stats)
                for part, number in values._asdict().items():
                    own = {key: entry for key, entry in record.items() if key.startswith(f"{part}/")}
                    computed[part] = _Term(number, own)
            elif isinstance(module, ContrastiveTransformerLoss | SupervisedContrastLoss):
                value, stats = module(features, labels, keys[name])
                computed[name] = _Term(value, _prefixed(name, module.record(stats)))
        for term in self.terms:
            value, record = computed[term.name]
            total = total + contrast_scale * term.weight * value
            parts[term.name] = value.detach()
            parts |= record
        return ObjectiveOutput(total, parts)


def _prefixed(name: str, record: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}/{key}": value for key, value in record.items()}


def module_names(terms: Sequence[LossTerm]) -> set[str]:
    """Return the names of the contrast modules that terms need."""
    return {MODULES[term.name] for term in terms}


def head_stages(terms: Sequence[LossTerm], multiscale: MultiscaleConfig) -> tuple[int, ...]:
    """Return the stages for which the multi-scale terms need a head.

    Examples:
        >>> head_stages(parse_loss("ccs"), MultiscaleConfig(pairs=((0, 3),), pair_weights=(1.0,)))
        (0, 3)
    """
    names = {term.name for term in terms}
    stages = set(multiscale.stages) if "cms" in names else set()
    if "ccs" in names:
        stages |= {stage for pair in multiscale.pairs for stage in pair}
    return tuple(sorted(stages))


Heads = Sequence[nn.Module] | Mapping[int, nn.Module] | nn.Module
"""Heads of a contrast module: a list in the order of its stages; by stage for multiscale; one module for pne."""


def create_objective(
    loss: str,
    num_classes: int,
    heads: Mapping[str, Heads],
    *,
    config: ContrastConfig | None = None,
    supcon: SupconConfig | None = None,
    multiscale: MultiscaleConfig | None = None,
    pne: PneConfig | None = None,
    segmentation: SegmentationConfig | None = None,
    class_counts: Sequence[int] | None = None,
    auxiliary: nn.Module | None = None,
    label_smoothing: float = 0.05,
    dice_smooth: float = 0.05,
    ignore_index: int = 255,
    strides: Sequence[int] = (4, 8, 16, 32),
    embedding_stride: int = 4,
) -> Objective:
    """Build the objective that ``--loss`` names.

    Args:
        loss: See `parse_loss`.
        num_classes: K.
        heads: For each contrast module (``MODULES``) its projection heads: ``cl``, ``infonce``, ``supcon`` one for
            each of the configuration's stages, in that order; ``multiscale`` by stage, for `head_stages`; ``pne`` one
            for the embedding.
        config: Hyper-parameters of ``cl`` and ``infonce``.
        supcon: Hyper-parameters of ``supcon``.
        multiscale: Hyper-parameters of ``cms`` and ``ccs``.
        pne: Hyper-parameters of ``pne``.
        segmentation: Terms of the segmentation loss and their hyper-parameters.
        class_counts: Training pixels of each class, which ``class_weights = "balanced"`` needs.
        auxiliary: The auxiliary head; needed where ``segmentation.auxiliary`` is above 0, and only there.
        label_smoothing: Of the segmentation loss.
        dice_smooth: Of the segmentation loss.
        ignore_index: Label of void pixels.
        strides: Strides of the stages.
        embedding_stride: Stride of the embedding.

    Raises:
        ConfigError: Unknown term, missing heads or class counts, option outside its range.
    """
    terms = parse_loss(loss)
    missing = [term.name for term in terms if MODULES[term.name] not in heads]
    if missing:
        raise ConfigError(f"loss {loss!r}: no projection heads given for {', '.join(missing)}")
    contrast: dict[str, ContrastLoss] = {}
    for name in sorted(module_names(terms)):
        of = heads[name]
        if name == "pne" and isinstance(of, nn.Module):
            contrast[name] = PositiveNegativeEqualLoss(
                of,
                num_classes,
                ignore_index=ignore_index,
                embedding_stride=embedding_stride,
                **_options(pne or PneConfig(), "norm", "projection_dim"),
            )
        elif name == "multiscale" and isinstance(of, Mapping):
            contrast[name] = MultiscaleContrastLoss(
                of,
                num_classes,
                ignore_index=ignore_index,
                strides=strides,
                terms=tuple(term.name for term in terms if MODULES[term.name] == name),
                **_options(multiscale or MultiscaleConfig(), "norm", "hidden_layers", "projection_dim"),
            )
        elif name == "supcon" and isinstance(of, Sequence):
            contrast[name] = SupervisedContrastLoss(
                of,
                num_classes,
                ignore_index=ignore_index,
                strides=strides,
                **_options(supcon or SupconConfig(), "projection_dim"),
            )
        elif name in ("cl", "infonce") and isinstance(of, Sequence):
            contrast[name] = ContrastiveTransformerLoss(
                of,
                num_classes,
                kind="cl" if name == "cl" else "infonce",
                ignore_index=ignore_index,
                strides=strides,
                **_options(config or ContrastConfig(), "projection_dim"),
            )
        else:
            raise ConfigError(f"loss {loss!r}: heads of {name} come as {type(of).__name__}; see create_objective")
    options = segmentation or SegmentationConfig()
    if (options.auxiliary > 0) != (auxiliary is not None):
        raise ConfigError(
            f"segmentation.auxiliary = {options.auxiliary:g} found with {'an' if auxiliary is not None else 'no'} "
            "auxiliary head; give one where it is above 0"
        )
    loss_of_logits = _segmentation_loss(
        options,
        num_classes,
        class_counts,
        label_smoothing=label_smoothing,
        dice_smooth=dice_smooth,
        ignore_index=ignore_index,
    )
    return Objective(loss_of_logits, terms, contrast, auxiliary=auxiliary, auxiliary_weight=options.auxiliary)


def _segmentation_loss(
    config: SegmentationConfig, num_classes: int, class_counts: Sequence[int] | None, **options: Any
) -> SegmentationLoss:
    weights = None
    if config.class_weights == "balanced":
        if class_counts is None:
            raise ConfigError(
                "segmentation.class_weights = 'balanced' needs the training pixels of each class, found none; "
                "pass class_counts"
            )
        weights = balanced_weights(class_counts)
    return SegmentationLoss(
        num_classes,
        terms=config.terms,
        focal_gamma=config.focal_gamma,
        tversky_alpha=config.tversky_alpha,
        tversky_beta=config.tversky_beta,
        class_weights=weights,
        **options,
    )


def _options(config: ContrastConfig | SupconConfig | MultiscaleConfig | PneConfig, *of_heads: str) -> dict[str, Any]:
    """Return a configuration as keywords of its loss, without what the heads are built from."""
    return {key: value for key, value in asdict(config).items() if key not in of_heads}
