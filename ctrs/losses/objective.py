"""What training minimises: the segmentation loss plus a weighted sum of the contrast terms that ``--loss`` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ctrs.config import ContrastConfig
from ctrs.errors import ConfigError
from ctrs.losses.contrastive import ContrastiveTransformerLoss, ContrastKind
from ctrs.losses.segmentation import SegmentationLoss

Keys = dict[str, tuple[Tensor, ...]]
"""Random keys by term: one tensor for each stage."""

KNOWN_TERMS: dict[str, ContrastKind] = {"cl": "cl", "infonce": "infonce"}


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """A contrast term and its weight beside the segmentation loss."""

    name: str
    weight: float = 1.0


def parse_loss(text: str) -> tuple[LossTerm, ...]:
    """Read ``--loss``: terms joined by ``+``, each with an optional weight after a colon; ``none`` for no contrast.

    Raises:
        ConfigError: A term is unknown or named twice, or a weight is no number of at least 0.

    Examples:
        >>> parse_loss("none")
        ()
        >>> parse_loss("cl:0.5+infonce")
        (LossTerm(name='cl', weight=0.5), LossTerm(name='infonce', weight=1.0))
    """
    if text.strip() == "none":
        return ()
    terms: list[LossTerm] = []
    for part in text.split("+"):
        name, colon, number = (piece.strip() for piece in part.partition(":"))
        if name not in KNOWN_TERMS:
            raise ConfigError(
                f"loss {text!r}: unknown term {name!r}, expected none, or {', '.join(KNOWN_TERMS)} joined by '+'"
            )
        if name in (term.name for term in terms):
            raise ConfigError(
                f"loss {text!r}: term {name!r} stands twice; give it once, with a weight as in {name}:0.5"
            )
        try:
            weight = float(number) if colon else 1.0
        except ValueError:
            weight = -1.0
        if not 0 <= weight < float("inf"):
            raise ConfigError(
                f"loss {text!r}: weight {number!r} of {name!r} is not a number of at least 0, as in {name}:0.5"
            )
        terms.append(LossTerm(name=name, weight=weight))
    return tuple(terms)


class ObjectiveOutput(NamedTuple):
    """The scalar to minimise and its named parts, detached scalars for the log."""

    total: Tensor
    parts: dict[str, Tensor]


class Objective(nn.Module):
    """Segmentation loss + sum of weight * contrast term.

    The terms own their projection heads, so that ``objective.parameters()`` are what training needs beside the
    model's; they have no part in prediction.

    Args:
        segmentation: The segmentation loss.
        terms: Names and weights of the contrast terms.
        losses: The contrast loss of each term, by name.
    """

    def __init__(
        self,
        segmentation: SegmentationLoss,
        terms: Sequence[LossTerm] = (),
        losses: Mapping[str, ContrastiveTransformerLoss] | None = None,
    ) -> None:
        super().__init__()
        given = dict(losses or {})
        if set(given) != {term.name for term in terms}:
            raise ConfigError(
                f"the objective has terms {', '.join(term.name for term in terms) or 'none'}, "
                f"but losses for {', '.join(given) or 'none'}; give one for each"
            )
        self.segmentation = segmentation
        self.terms = tuple(terms)
        self.contrast = nn.ModuleDict(given)

    def draw_keys(self, features: Sequence[Tensor], generator: torch.Generator | None = None) -> Keys:
        """Draw what `forward` needs at random for feature maps of these shapes."""
        return {term.name: self._loss(term).draw_keys(features, generator) for term in self.terms}

    def forward(
        self,
        logits: Tensor,
        features: Sequence[Tensor],
        embedding: Tensor,
        labels: Tensor,
        keys: Keys | None = None,
        *,
        contrast_scale: float = 1.0,
    ) -> ObjectiveOutput:
        """Compute the objective of a batch.

        Args:
            logits: (B, K, H, W).
            features: (B, C_s, h_s, w_s) at strides 4, 8, 16, 32.
            embedding: (B, C, h, w), the decoder's output; no term of today reads it.
            labels: (B, H, W) integer class indices.
            keys: From `draw_keys`; drawn from the global generator if None.
            contrast_scale: Factor on all contrast terms, 0 while they are to wait.

        Returns:
            The total and its parts: ``cross_entropy``, ``dice``, and for each term NAME ``NAME``, ``NAME/raw``,
            ``NAME/clip_active``, ``NAME/anchors_S``, ``NAME/valid_terms_S`` with the stride S.
        """
        del embedding
        keys = self.draw_keys(features) if keys is None else keys
        cross_entropy, dice = self.segmentation(logits, labels)
        total = cross_entropy + dice
        parts = {"cross_entropy": cross_entropy.detach(), "dice": dice.detach()}
        for term in self.terms:
            loss = self._loss(term)
            value, stats = loss(features, labels, keys[term.name])
            total = total + contrast_scale * term.weight * value
            parts[term.name] = value.detach()
            parts[f"{term.name}/raw"] = stats.raw
            parts[f"{term.name}/clip_active"] = stats.clip_active
            for index, stage in enumerate(loss.stages):
                parts[f"{term.name}/anchors_{loss.strides[stage]}"] = stats.anchors[index]
                parts[f"{term.name}/valid_terms_{loss.strides[stage]}"] = stats.valid_terms[index]
        return ObjectiveOutput(total, parts)

    def _loss(self, term: LossTerm) -> ContrastiveTransformerLoss:
        loss = self.contrast[term.name]
        if not isinstance(loss, ContrastiveTransformerLoss):
            raise TypeError(f"term {term.name!r} is no contrast loss")
        return loss


def create_objective(
    loss: str,
    num_classes: int,
    heads: Mapping[str, Sequence[nn.Module]],
    *,
    config: ContrastConfig | None = None,
    label_smoothing: float = 0.05,
    dice_smooth: float = 0.05,
    ignore_index: int = 255,
) -> Objective:
    """Build the objective that ``--loss`` names.

    Args:
        loss: See `parse_loss`.
        num_classes: K.
        heads: For each term's name one projection head for each of ``config.stages``, in that order.
        config: Hyper-parameters of the contrast terms.
        label_smoothing: Of the segmentation loss.
        dice_smooth: Of the segmentation loss.
        ignore_index: Label of void pixels.

    Raises:
        ConfigError: Unknown term, missing heads, option outside its range.
    """
    terms = parse_loss(loss)
    missing = [term.name for term in terms if term.name not in heads]
    if missing:
        raise ConfigError(f"loss {loss!r}: no projection heads given for {', '.join(missing)}")
    options = asdict(config or ContrastConfig())
    options.pop("projection_dim")
    losses = {
        term.name: ContrastiveTransformerLoss(
            heads[term.name], num_classes, kind=KNOWN_TERMS[term.name], ignore_index=ignore_index, **options
        )
        for term in terms
    }
    segmentation = SegmentationLoss(
        num_classes, label_smoothing=label_smoothing, dice_smooth=dice_smooth, ignore_index=ignore_index
    )
    return Objective(segmentation, terms, losses)
