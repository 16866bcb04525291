from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ctrs.losses.functional.pne import pne_terms

Vector = Sequence[float]


def cosine(a: Vector, b: Vector) -> float:
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms


def naive_pne(anchor: Vector, negatives: list[Vector], positives: list[tuple[Vector, float]], tau: float) -> float:
    """Eq. 8 with sums, for sets of equal size."""
    mean_weight = sum(w for _, w in positives) / len(positives)
    push = sum(math.exp(cosine(anchor, n) / tau) for n in negatives)
    pull = sum(w / mean_weight * math.exp(cosine(anchor, p) / tau) for p, w in positives)
    return math.log(1 + push / pull)


def naive_mean_form(
    anchor: Vector, negatives: list[Vector], positives: list[tuple[Vector, float]], tau: float, *, normalize: bool
) -> float:
    if not negatives or not positives:
        return 0.0
    mean_weight = sum(w for _, w in positives) / len(positives) if normalize else 1.0
    push = sum(math.exp(cosine(anchor, n) / tau) for n in negatives) / len(negatives)
    pull = sum(w / mean_weight * math.exp(cosine(anchor, p) / tau) for p, w in positives) / len(positives)
    return math.log(1 + push / pull)


class Drawn:
    """Random unit vectors of which some count; the others hold rubbish that must not."""

    def __init__(self, seed: int, groups: int, num_classes: int, size: int, width: int, dtype: torch.dtype) -> None:
        g = torch.Generator().manual_seed(seed)
        self.anchors = self._unit(torch.randn(groups, 5, width, generator=g, dtype=torch.float64)).to(dtype)
        shape = (groups, num_classes, size)
        self.candidates = self._unit(torch.randn(*shape, width, generator=g, dtype=torch.float64)).to(dtype)
        self.valid = torch.rand(shape, generator=g) < 0.6
        self.confidences = torch.rand(shape, generator=g, dtype=torch.float64).clamp_min(0.05).to(dtype)
        self.confidences[~self.valid] *= 100
        self.predicted = torch.randint(0, num_classes, (groups, 5), generator=g)
        self.true = torch.randint(0, num_classes, (groups, 5), generator=g)

    @staticmethod
    def _unit(vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=-1)

    def arguments(self) -> tuple[Tensor, ...]:
        return self.anchors, self.candidates, self.valid, self.confidences, self.predicted, self.true

    def of_class(self, group: int, c: int) -> list[tuple[Vector, float]]:
        kept = self.valid[group, c]
        vectors, weights = self.candidates[group, c][kept], self.confidences[group, c][kept]
        return list(zip(vectors.double().tolist(), weights.double().tolist(), strict=True))


drawn = st.builds(
    Drawn,
    seed=st.integers(0, 100_000),
    groups=st.integers(1, 3),
    num_classes=st.integers(1, 4),
    size=st.integers(1, 9),
    width=st.integers(2, 5),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)


@given(data=drawn, tau=st.sampled_from([0.1, 1.0, 10.0]), normalize=st.booleans())
def test_core_equals_naive_loops(data: Drawn, tau: float, normalize: bool) -> None:
    found = pne_terms(*data.arguments(), temperature=tau, normalize_weights=normalize)
    expected = [
        [
            naive_mean_form(
                data.anchors[group, a].double().tolist(),
                [vector for vector, _ in data.of_class(group, int(data.predicted[group, a]))],
                data.of_class(group, int(data.true[group, a])),
                tau,
                normalize=normalize,
            )
            for a in range(data.anchors.shape[1])
        ]
        for group in range(data.anchors.shape[0])
    ]
    tolerance = 1e-6 if found.dtype == torch.float64 else 1e-4
    torch.testing.assert_close(
        found.double(), torch.tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance
    )


def directions(*degrees: float) -> Tensor:
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angle.cos(), angle.sin()], -1)


def lone_anchor(
    anchor: Tensor, negatives: Tensor, positives: Tensor, confidences: Sequence[float], tau: float = 1.0
) -> Tensor:
    """Loss of one anchor of class 1 that was taken for class 0."""
    n = max(len(negatives), len(positives))
    rows = [nn.functional.pad(part, (0, 0, 0, n - len(part))) for part in (negatives, positives)]
    valid = torch.stack([torch.arange(n) < len(negatives), torch.arange(n) < len(positives)])
    weights = torch.ones(1, 2, n, dtype=torch.float64)
    weights[0, 1, : len(confidences)] = torch.tensor(confidences, dtype=torch.float64)
    return pne_terms(
        anchor[None],
        torch.stack(rows)[None],
        valid[None],
        weights,
        torch.tensor([[0]]),
        torch.tensor([[1]]),
        temperature=tau,
    )


def test_hand_checked_value() -> None:
    found = lone_anchor(directions(0), directions(90, 180), directions(60, 90), (0.9, 0.3))
    assert found.item() == pytest.approx(0.378497, abs=1e-6)


def test_means_equal_the_papers_sums_for_sets_of_equal_size() -> None:
    negatives, positives = directions(10, 200, 75), directions(50, 300, 20)
    found = lone_anchor(directions(0), negatives, positives, (0.9, 0.3, 0.5), tau=0.5)
    expected = naive_pne(
        (1.0, 0.0), negatives.tolist(), list(zip(positives.tolist(), (0.9, 0.3, 0.5), strict=True)), 0.5
    )
    assert found.item() == pytest.approx(expected, abs=1e-9)


def test_repeating_a_set_changes_nothing() -> None:
    negatives, positives = directions(10, 200), directions(50, 300)
    once = lone_anchor(directions(0), negatives, positives, (0.9, 0.3))
    thrice = lone_anchor(directions(0), negatives.repeat(3, 1), positives, (0.9, 0.3))
    torch.testing.assert_close(once, thrice)


def test_the_more_confident_of_two_symmetric_positives_pulls_harder() -> None:
    anchor = directions(0).requires_grad_()
    positives = directions(60, -60).requires_grad_()
    loss = lone_anchor(anchor, directions(180), positives, (0.9, 0.3))
    pull, on_positives = torch.autograd.grad(-loss.sum(), (anchor, positives))
    assert pull[0, 1] > 1e-3  # upwards, to the positive at +60 degrees
    assert on_positives[0].norm() > 2.9 * on_positives[1].norm() > 0
    even = lone_anchor(anchor, directions(180), directions(60, -60), (0.6, 0.6))
    (level,) = torch.autograd.grad(even.sum(), anchor)
    assert level[0, 1].abs() < 1e-12


def test_gradient_attracts_positives_and_repels_negatives() -> None:
    anchor, negatives, positives = directions(0), directions(40, 250), directions(100, 300)
    raw = [part.clone().requires_grad_() for part in (anchor, negatives, positives)]
    loss = lone_anchor(*(nn.functional.normalize(part, dim=-1) for part in raw), (0.7, 0.8))
    gradients = torch.autograd.grad(loss.sum(), raw)
    for part, gradient in zip(raw, gradients, strict=True):
        assert (part * gradient).sum(-1).abs().max() < 1e-12  # orthogonal to each vector
    step = 1e-3
    for part, gradient, sign in ((negatives, gradients[1], -1), (positives, gradients[2], 1)):
        moved = nn.functional.normalize(part - step * gradient, dim=-1)
        assert (sign * ((moved @ anchor[0]) - (part @ anchor[0])) > 0).all()
    closer = nn.functional.normalize(anchor - step * gradients[0], dim=-1)
    assert lone_anchor(closer, negatives, positives, (0.7, 0.8)) < loss


@pytest.mark.parametrize("has_candidates", [(False, True), (True, False), (False, False)])
def test_an_empty_set_gives_zero_and_no_gradient(has_candidates: tuple[bool, bool]) -> None:
    anchor = directions(0).requires_grad_()
    valid = torch.tensor(has_candidates)[:, None].expand(2, 3)
    found = pne_terms(
        anchor[None],
        directions(10, 20, 30, 40, 50, 60).view(1, 2, 3, 2),
        valid[None],
        torch.where(valid, 0.5, float("nan"))[None],
        predicted=torch.tensor([[0]]),
        true=torch.tensor([[1]]),
        temperature=0.01,
    )
    assert found.item() == 0
    (gradient,) = torch.autograd.grad(found.sum(), anchor)
    assert (gradient == 0).all()


@pytest.mark.parametrize("tau", [1e-3, 1e3])
def test_extreme_temperatures_stay_finite(tau: float) -> None:
    data = Drawn(1, 2, 3, 8, 4, torch.float32)
    anchors = data.anchors.requires_grad_()
    found = pne_terms(anchors, *data.arguments()[1:], temperature=tau)
    found.sum().backward()
    assert found.isfinite().all()
    assert anchors.grad is not None
    assert anchors.grad.isfinite().all()


def test_what_does_not_count_has_no_influence() -> None:
    data = Drawn(2, 2, 3, 8, 4, torch.float64)
    candidates = data.candidates.clone().requires_grad_()
    found = pne_terms(data.anchors, candidates, *data.arguments()[2:])
    (gradient,) = torch.autograd.grad(found.sum(), candidates)
    assert (gradient[~data.valid] == 0).all()
    assert (gradient[data.valid] != 0).any()
    changed = torch.where(data.valid[..., None], data.candidates, 1e3)
    confidences = torch.where(data.valid, data.confidences, float("nan"))
    torch.testing.assert_close(
        pne_terms(data.anchors, changed, data.valid, confidences, data.predicted, data.true), found.detach()
    )


def test_core_compiles_without_graph_breaks() -> None:
    data = Drawn(3, 2, 3, 8, 4, torch.float32)
    anchors = data.anchors.requires_grad_()
    expected = pne_terms(anchors, *data.arguments()[1:])
    found = torch.compile(pne_terms, fullgraph=True, backend="aot_eager")(anchors, *data.arguments()[1:])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), anchors), torch.autograd.grad(expected.sum(), anchors))
