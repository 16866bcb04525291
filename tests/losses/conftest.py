"""The formulas of the losses in plain loops over Python floats, and what all losses must refrain from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace

import pytest
import torch

Vector = Sequence[float]


def cosine(a: Vector, b: Vector) -> float:
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms


def naive_entropy(x: float, one: float, form: str) -> float:
    s = (x + 1) / 2
    if form == "logit":
        denominator = math.exp(1 - s) + math.exp(s)
        return -(one * math.log(math.exp(s) / denominator) + (1 - one) * math.log(math.exp(1 - s) / denominator))
    s = min(max(s, 1e-6), 1 - 1e-6)
    return -(one * math.log(s) + (1 - one) * math.log(1 - s))


def hardest(values: list[tuple[float, int]], top: float, *, highest: bool) -> list[tuple[float, int]]:
    keep = max(1, math.floor(round(len(values) * top, 9))) if values else 0
    return sorted(values, reverse=highest)[:keep]


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def naive_cl(p: list[Vector], n: list[Vector], top: float, smoothing: float, form: str) -> tuple[float, float]:
    negative = [(cosine(p[k], n[k]), k) for k in range(min(len(p), len(n)))]
    q = len(p) // 2
    positive = [(cosine(p[k], p[k + q]), k) for k in range(q)]
    negative_part = mean([naive_entropy(x, smoothing / 2, form) for x, _ in hardest(negative, top, highest=True)])
    positive_part = mean([naive_entropy(x, 1 - smoothing / 2, form) for x, _ in hardest(positive, top, highest=False)])
    return negative_part, positive_part


def naive_infonce(p: list[Vector], n: list[Vector], top: float, tau: float, variant: str) -> float:
    mined = hardest([(cosine(p[k], n[k]), k) for k in range(min(len(p), len(n)))], top, highest=True)
    shared = [n[k] for _, k in mined]
    if variant == "author":
        kept = [p[k] for _, k in mined]
        half = len(kept) // 2
        pairs = [(kept[k], kept[k + half]) for k in range(half)]
    else:
        half = len(p) // 2
        chosen = hardest([(cosine(p[k], p[k + half]), k) for k in range(half)], top, highest=False)
        pairs = [(p[k], p[k + half]) for _, k in chosen]
    if not shared:
        return 0.0
    losses = []
    for q, key in pairs:
        own = math.exp(cosine(q, key) / tau)
        losses.append(-math.log(own / (own + sum(math.exp(cosine(q, v) / tau) for v in shared))))
    return mean(losses)


def naive_supervised(
    anchors: list[tuple[Vector, int]],
    others: list[tuple[Vector, int]],
    tau: float,
    *,
    same: bool,
    denominator: str = "negatives",
    lonely: str = "skip",
) -> float:
    """Eq. 1 and 2 of Pissas et al., Eq. 2 of Khosla et al. with ``denominator="all"``, over (vector, class) pairs."""
    losses = []
    for i, (vector, label) in enumerate(anchors):
        exponentials = [math.exp(cosine(vector, other) / tau) for other, _ in others]
        positives = [j for j, (_, kind) in enumerate(others) if kind == label and not (same and i == j)]
        negatives = [j for j, (_, kind) in enumerate(others) if kind != label]
        below = sum(exponentials[j] for j in (negatives if denominator == "negatives" else negatives + positives))
        terms = []
        for j in positives:
            share = exponentials[j] / (below + (exponentials[j] if denominator == "negatives" else 0))
            terms.append(-math.log(share))
        if positives or lonely == "zero":
            losses.append(mean(terms))
    return mean(losses)


@pytest.fixture(scope="session")
def naive() -> SimpleNamespace:
    """The naive formulas by name."""
    return SimpleNamespace(
        cosine=cosine, entropy=naive_entropy, cl=naive_cl, infonce=naive_infonce, supervised=naive_supervised
    )


_WAITS = ("item", "tolist", "nonzero", "unique", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__")


@pytest.fixture
def no_host_sync(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """A context in which everything that makes the host wait for the device raises."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the host waits for the device")

    @contextmanager
    def context() -> Iterator[None]:
        with monkeypatch.context() as patch:
            for name in _WAITS:
                patch.setattr(torch.Tensor, name, refuse)
            for name in ("nonzero", "unique", "masked_select", "argwhere"):
                patch.setattr(torch, name, refuse)
            yield

    return context
