"""``--loss`` and ``--segmentation``: terms joined by ``+``, each with a weight."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from ctrs.errors import ConfigError

DEFAULT_WEIGHTS: Mapping[str, float] = {"cl": 1.0, "infonce": 1.0, "supcon": 0.1, "cms": 0.1, "ccs": 0.1, "pne": 1.3}
"""Every contrast term and the weight it has where none is given: the papers', and for supcon that of its kin cms."""

TERM_TABLES: Mapping[str, str] = {
    "cl": "contrast",
    "infonce": "contrast",
    "supcon": "supcon",
    "cms": "multiscale",
    "ccs": "multiscale",
    "pne": "pne",
}
"""The table of hyper-parameters that each contrast term reads."""

SEGMENTATION_WEIGHTS: Mapping[str, float] = {"ce": 1.0, "dice": 1.0, "focal": 1.0, "lovasz": 1.0, "tversky": 1.0}
"""Every term of the segmentation loss and the weight it has where none is given."""


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """A term and its weight."""

    name: str
    weight: float = 1.0


def parse_loss(text: str) -> tuple[LossTerm, ...]:
    """Read ``--loss``: terms joined by ``+``, each with an optional weight after a colon; ``none`` for no contrast.

    Raises:
        ConfigError: A term is unknown or named twice, or a weight is no number of at least 0.

    Examples:
        >>> parse_loss("none")
        ()
        >>> parse_loss("cl:0.5+pne")
        (LossTerm(name='cl', weight=0.5), LossTerm(name='pne', weight=1.3))
    """
    if text.strip() == "none":
        return ()
    return _parse_terms(text, "loss", DEFAULT_WEIGHTS, "none, or ")


def unread_settings(text: str) -> set[str]:
    """Return the settings that a loss does not read: tables of terms that it has not, and what all terms share.

    Examples:
        >>> sorted(unread_settings("cl+pne")), sorted(unread_settings("none"))
        (['multiscale', 'supcon'], ['contrast', 'contrast_warmup_steps', 'multiscale', 'pne', 'supcon'])
    """
    terms = parse_loss(text)
    unread = set(TERM_TABLES.values()) - {TERM_TABLES[term.name] for term in terms}
    return unread if terms else unread | {"contrast_warmup_steps"}


def parse_segmentation(text: str) -> tuple[LossTerm, ...]:
    """Read ``--segmentation``: terms joined by ``+``, each with an optional weight after a colon.

    Raises:
        ConfigError: A term is unknown or named twice, a weight is no number of at least 0, or all are 0.

    Examples:
        >>> parse_segmentation("ce+lovasz:0.5")
        (LossTerm(name='ce', weight=1.0), LossTerm(name='lovasz', weight=0.5))
    """
    terms = _parse_terms(text, "segmentation", SEGMENTATION_WEIGHTS, "")
    if not any(term.weight for term in terms):
        raise ConfigError(
            f"segmentation {text!r}: all weights are 0, so the network would not learn the classes; expected at least "
            "one above 0, as in ce+dice:0.5"
        )
    return terms


def _parse_terms(text: str, key: str, weights: Mapping[str, float], besides: str) -> tuple[LossTerm, ...]:
    terms: list[LossTerm] = []
    for part in text.split("+"):
        name, colon, number = (piece.strip() for piece in part.partition(":"))
        if name == "none" and besides:
            raise ConfigError(f"{key} {text!r}: none stands alone, without a weight; leave it out beside other terms")
        if name not in weights:
            near = difflib.get_close_matches(name.lower(), weights, n=1)
            raise ConfigError(
                f"{key} {text!r}: unknown term {name!r}, expected {besides}{', '.join(weights)} joined by '+'"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
        if name in (term.name for term in terms):
            raise ConfigError(
                f"{key} {text!r}: term {name!r} stands twice; give it once, with a weight as in {name}:0.5"
            )
        try:
            weight = float(number) if colon else weights[name]
        except ValueError:
            weight = -1.0
        if not 0 <= weight < float("inf"):
            raise ConfigError(
                f"{key} {text!r}: weight {number!r} of {name!r} is not a number of at least 0, as in {name}:0.5"
            )
        terms.append(LossTerm(name=name, weight=weight))
    return tuple(terms)


def describe_loss(text: str) -> str:
    """Return a loss with the weight of every term.

    Examples:
        >>> describe_loss("cms+ccs:0.5"), describe_loss("none")
        ('cms:0.1+ccs:0.5', 'none')
    """
    return "+".join(f"{term.name}:{term.weight:g}" for term in parse_loss(text)) or "none"
