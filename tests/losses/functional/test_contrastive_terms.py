from __future__ import annotations

import shutil
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ctrs.losses.functional import cl_terms, infonce_terms, mine_pairs, soft_cross_entropy

Vector = Sequence[float]


class Drawn:
    """Random unit vectors with random counts, padded with rubbish that must not count."""

    def __init__(self, seed: int, num_classes: int, size: int, width: int, dtype: torch.dtype) -> None:
        g = torch.Generator().manual_seed(seed)
        raw = torch.randn(2, num_classes, size, width, generator=g, dtype=torch.float64)
        self.counts = torch.randint(0, size + 1, (2, num_classes), generator=g)
        self.positives, self.negatives = nn.functional.normalize(raw, dim=-1).to(dtype)

    def lists(self, c: int) -> tuple[list[Vector], list[Vector]]:
        p, n = self.positives[c].double().tolist(), self.negatives[c].double().tolist()
        return p[: int(self.counts[0, c])], n[: int(self.counts[1, c])]


drawn = st.builds(
    Drawn,
    seed=st.integers(0, 100_000),
    num_classes=st.integers(1, 3),
    size=st.integers(1, 13),
    width=st.integers(2, 5),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
tops = st.sampled_from([0.1, 0.5, 0.7, 1.0])


def assert_near(found: Tensor, expected: list[float], extra: float = 0.0) -> None:
    tolerance = 1e-6 if found.dtype == torch.float64 else 1e-4 + extra
    torch.testing.assert_close(
        found.double(), torch.tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance
    )


def logarithm_rounding(data: Drawn) -> float:
    """What float32's rounding of a cosine, 3e-7, makes of log s and log(1 - s) for the pair nearest to +1 or -1."""
    every = torch.cat([data.positives, data.negatives], 1).double()
    cosines = (data.positives.double() @ every.mT).abs()
    cosines.diagonal(dim1=1, dim2=2).zero_()  # no vector is a pair with itself
    return 3e-7 / max(1e-6, 1 - float(cosines.max()))


@given(data=drawn, top=tops, smoothing=st.sampled_from([0.0, 0.1]), form=st.sampled_from(["logit", "prob"]))
def test_cl_equals_naive_loops(naive: SimpleNamespace, data: Drawn, top: float, smoothing: float, form: str) -> None:
    found = cl_terms(
        data.positives,
        data.negatives,
        *data.counts,
        top=top,
        smoothing=smoothing,
        form=form,  # type: ignore[arg-type]
    )
    expected = [naive.cl(*data.lists(c), top, smoothing, form) for c in range(len(data.positives))]
    extra = logarithm_rounding(data) if form == "prob" else 0.0
    assert_near(found[0], [negative for negative, _ in expected], extra)
    assert_near(found[1], [positive for _, positive in expected], extra)


@given(data=drawn, top=tops, tau=st.sampled_from([0.1, 1.0]), variant=st.sampled_from(["paper", "author"]))
def test_infonce_equals_naive_loops(naive: SimpleNamespace, data: Drawn, top: float, tau: float, variant: str) -> None:
    found = infonce_terms(
        data.positives,
        data.negatives,
        *data.counts,
        top=top,
        temperature=tau,
        variant=variant,  # type: ignore[arg-type]
    )
    expected = [naive.infonce(*data.lists(c), top, tau, variant) for c in range(len(data.positives))]
    assert_near(found, expected)


def directions(*degrees: float) -> Tensor:
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angle.cos(), angle.sin()], -1)[None]


def test_cl_hand_checked_value() -> None:
    four = torch.tensor([4])
    negative, positive = cl_terms(directions(0, 60, 90, 180), directions(90, 0, 180, 60), four, four)
    assert negative.item() == pytest.approx(0.821112, abs=1e-6)
    assert positive.item() == pytest.approx(0.949077, abs=1e-6)
    assert (negative + positive).item() == pytest.approx(1.770189, abs=1e-6)


def test_logit_form_equals_two_class_cross_entropy_and_its_slopes_are_bounded() -> None:
    x = torch.linspace(-1, 1, 41, dtype=torch.float64, requires_grad=True)
    s = (x + 1) / 2
    for positive in (True, False):
        found = soft_cross_entropy(x, positive=positive)
        target = torch.full((41,), int(positive))
        expected = nn.functional.cross_entropy(
            torch.stack([1 - s, s], 1), target, label_smoothing=0.1, reduction="none"
        )
        torch.testing.assert_close(found, expected)
        (slope,) = torch.autograd.grad(found.sum(), x)
        low, high = (-0.6811, -0.2189) if positive else (0.2189, 0.6811)
        assert (slope >= low).all()
        assert (slope <= high).all()


def test_discarded_pairs_have_no_gradient() -> None:
    p, n = directions(0, 60, 90, 180).requires_grad_(), directions(90, 0, 180, 60).requires_grad_()
    four = torch.tensor([4])
    negative, _ = cl_terms(p, n, four, four)
    (gradient,) = torch.autograd.grad(negative.sum(), n)
    assert (gradient[0, 1] != 0).any()  # cosine 0.5 is kept, -0.5 is not
    assert (gradient[0, 3] == 0).all()


@pytest.mark.parametrize("count", [0, 1, 3, 10, 12])
@pytest.mark.parametrize("hardest", ["highest", "lowest"])
def test_mining_keeps_the_hardest_share_of_the_real_pairs(count: int, hardest: str) -> None:
    cosines = torch.tensor([[0.3, -0.9, 0.8, 0.1, -0.2, 0.7, 0.0, -0.5, 0.6, 0.9, -1.0, 1.0]])
    mined = mine_pairs(cosines, torch.tensor([count]), top=0.7, hardest=hardest)  # type: ignore[arg-type]
    keep = max(1, count * 7 // 10) if count else 0
    expected = sorted(range(count), key=lambda k: float(cosines[0, k]), reverse=hardest == "highest")[:keep]
    assert mined.pairs[mined.kept].tolist() == expected
    torch.testing.assert_close(mined.similarity[mined.kept], cosines[0, expected])


def test_infonce_equals_a_plain_implementation() -> None:
    """Cross entropy of the logits [q.k, q.v_1, ..., q.v_M] / tau with target 0: the usual unpaired InfoNCE."""
    positives, negatives = (nn.functional.normalize(torch.randn(1, 40, 16), dim=-1) for _ in range(2))
    forty = torch.tensor([40])
    found = infonce_terms(positives, negatives, forty, forty, top=1.0, temperature=0.07)
    query, key, shared = positives[0, :20], positives[0, 20:], negatives[0]
    logits = torch.cat([(query * key).sum(1, keepdim=True), query @ shared.T], 1) / 0.07
    expected = nn.functional.cross_entropy(logits, torch.zeros(20, dtype=torch.int64))
    torch.testing.assert_close(found[0], expected)


def test_infonce_has_no_value_without_queries_or_negatives() -> None:
    vectors = nn.functional.normalize(torch.randn(2, 3, 6, 4), dim=-1).requires_grad_()
    counts = torch.tensor([[6, 1, 0], [0, 6, 6]])
    for variant in ("paper", "author"):
        found = infonce_terms(*vectors, *counts, variant=variant)  # type: ignore[arg-type]
        assert found.tolist() == [0, 0, 0]
        (gradient,) = torch.autograd.grad(found.sum(), vectors)
        assert (gradient == 0).all()


def terms(kind: str, p: Tensor, n: Tensor, option: str) -> Tensor:
    counts = torch.tensor([[p.shape[1]] * p.shape[0], [n.shape[1]] * p.shape[0]])
    if kind == "cl":
        negative, positive = cl_terms(p, n, *counts, top=1.0, form=option)  # type: ignore[arg-type]
        return negative + positive
    return infonce_terms(p, n, *counts, top=1.0, variant=option)  # type: ignore[arg-type]


CORES = [("cl", "logit"), ("cl", "prob"), ("infonce", "paper"), ("infonce", "author")]


@pytest.mark.parametrize(("kind", "option"), CORES)
def test_descent_draws_positives_together_and_pushes_negatives_away(kind: str, option: str) -> None:
    """Unit vectors in 32 dimensions; the gradient of unnormalised ones is orthogonal to each."""
    raw = torch.randn(2, 2, 8, 32, dtype=torch.float64).requires_grad_()
    p, n = nn.functional.normalize(raw, dim=-1)
    value = terms(kind, p, n, option).sum()
    (gradient,) = torch.autograd.grad(value, raw)
    assert (gradient * raw).sum(-1).abs().max() < 1e-12
    assert (gradient != 0).any(-1).all()  # negatives are not detached, and every pair is kept
    with torch.no_grad():
        for moved, rises in ((0, True), (1, False)):
            step = torch.zeros_like(raw)
            step[moved] = gradient[moved]
            if rises:
                step[0, :, :4] = 0  # one end of each positive pair
            q, v = nn.functional.normalize(raw - 1e-3 * step, dim=-1)
            if rises:
                change = (q[:, :4] * q[:, 4:]).sum(-1) - (p[:, :4] * p[:, 4:]).sum(-1)
            else:
                change = (p * v).sum(-1) - (p * n).sum(-1)
            assert (change.mean() > 0) == rises
        q, v = nn.functional.normalize(raw - 1e-3 * gradient, dim=-1)
        assert terms(kind, q, v, option).sum() < value


def compare_compiled(backend: str, kind: str, option: str) -> None:
    data = Drawn(3, 3, 12, 5, torch.float32)
    p, n = data.positives.requires_grad_(), data.negatives.requires_grad_()

    def core(p: Tensor, n: Tensor, a: Tensor, b: Tensor) -> Tensor:
        if kind == "cl":
            return torch.stack(cl_terms(p, n, a, b, form=option))  # type: ignore[arg-type]
        return infonce_terms(p, n, a, b, variant=option)  # type: ignore[arg-type]

    torch.compiler.reset()
    expected = core(p, n, *data.counts)
    found = torch.compile(core, fullgraph=True, backend=backend)(p, n, *data.counts)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(value.sum(), (p, n)) for value in (found, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
    assert (expected > 0).any()


@pytest.mark.parametrize(("kind", "option"), CORES)
def test_cores_compile_without_graph_breaks(kind: str, option: str) -> None:
    compare_compiled("aot_eager", kind, option)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize(("kind", "option"), CORES)
def test_cores_compile_with_inductor(kind: str, option: str) -> None:
    compare_compiled("inductor", kind, option)
