from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ctrs.losses.functional import cl_terms, infonce_terms, soft_cross_entropy

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


def assert_near(found: Tensor, expected: list[float]) -> None:
    tolerance = 1e-6 if found.dtype == torch.float64 else 1e-4
    torch.testing.assert_close(
        found.double(), torch.tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance
    )


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
    assert_near(found[0], [negative for negative, _ in expected])
    assert_near(found[1], [positive for _, positive in expected])


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
