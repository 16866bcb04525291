from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ctrs.errors import ConfigError
from ctrs.losses.functional import multiscale
from ctrs.losses.functional.multiscale import supervised_contrast

DENOMINATORS = ("negatives", "all")
Labelled = list[tuple[list[float], int]]


class Drawn:
    """Two sets of random unit vectors of which random entries are valid."""

    def __init__(self, seed: int, num_classes: int, n: int, m: int, same: bool, dtype: torch.dtype) -> None:
        g = torch.Generator().manual_seed(seed)
        self.same = same
        self.anchors = nn.functional.normalize(
            torch.randn(num_classes, n, 4, generator=g, dtype=torch.float64), dim=-1
        ).to(dtype)
        self.anchor_valid = torch.rand(num_classes, n, generator=g) < 0.7
        self.others, self.other_valid = self.anchors, self.anchor_valid
        if not same:
            self.others = nn.functional.normalize(
                torch.randn(num_classes, m, 4, generator=g, dtype=torch.float64), dim=-1
            ).to(dtype)
            self.other_valid = torch.rand(num_classes, m, generator=g) < 0.7

    @property
    def sets(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.anchors, self.anchor_valid, self.others, self.other_valid

    @property
    def lists(self) -> tuple[Labelled, Labelled]:
        return listed(self.anchors, self.anchor_valid), listed(self.others, self.other_valid)


def listed(vectors: Tensor, valid: Tensor) -> Labelled:
    return [
        (vectors[c, i].double().tolist(), c)
        for c in range(vectors.shape[0])
        for i in range(vectors.shape[1])
        if valid[c, i]
    ]


drawn = st.builds(
    Drawn,
    seed=st.integers(0, 100_000),
    num_classes=st.integers(1, 4),
    n=st.integers(1, 5),
    m=st.integers(1, 6),
    same=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)


@given(
    data=drawn,
    tau=st.sampled_from([0.07, 0.1, 1.0]),
    denominator=st.sampled_from(DENOMINATORS),
    lonely=st.sampled_from(["skip", "zero"]),
)
def test_equals_naive_loops(naive: SimpleNamespace, data: Drawn, tau: float, denominator: str, lonely: str) -> None:
    found, count = supervised_contrast(
        *data.sets,
        temperature=tau,
        same=data.same,
        denominator=denominator,  # type: ignore[arg-type]
        lonely=lonely,  # type: ignore[arg-type]
    )
    anchors, others = data.lists
    expected = naive.supervised(anchors, others, tau, same=data.same, denominator=denominator, lonely=lonely)
    tolerance = 1e-6 if found.dtype == torch.float64 else 1e-4
    assert found.item() == pytest.approx(expected, rel=tolerance, abs=tolerance)
    alone = [sum(kind == label for _, kind in others) <= data.same for _, label in anchors]
    assert count == (len(anchors) if lonely == "zero" else len(anchors) - sum(alone))


@given(
    seed=st.integers(0, 1000), shape=st.tuples(st.integers(1, 4), st.integers(1, 5)), tau=st.sampled_from([0.1, 1.0])
)
def test_all_others_below_equals_the_equation_of_khosla(seed: int, shape: tuple[int, int], tau: float) -> None:
    """Eq. 2 of arXiv 2004.11362, written down from the paper: sums over A(i), P(i) of a flat batch with labels."""
    own = Drawn(seed, *shape, 1, True, torch.float64)
    batch = listed(own.anchors, own.anchor_valid)
    z, y = [vector for vector, _ in batch], [label for _, label in batch]
    terms = []
    for i in range(len(z)):
        a = [k for k in range(len(z)) if k != i]
        p = [k for k in a if y[k] == y[i]]
        product = [sum(x * w for x, w in zip(z[i], z[k], strict=True)) / tau for k in range(len(z))]
        if p:
            below = math.log(sum(math.exp(product[k]) for k in a))
            terms.append(-sum(product[k] - below for k in p) / len(p))
    found, _ = supervised_contrast(*own.sets, temperature=tau, denominator="all")
    assert found.item() == pytest.approx(sum(terms) / len(terms) if terms else 0, abs=1e-6)


def directions(*degrees: float) -> Tensor:
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angle.cos(), angle.sin()], -1)


@pytest.mark.parametrize(("tau", "expected"), [(1.0, 0.948501), (0.1, 3.089933)])
def test_hand_checked_values(tau: float, expected: float) -> None:
    vectors, valid = directions(0, 60, 90, 180).view(2, 2, 2), torch.ones(2, 2, dtype=torch.bool)
    for denominator in DENOMINATORS:  # one positive each: both are the same
        loss, count = supervised_contrast(
            vectors,
            valid,
            vectors,
            valid,
            temperature=tau,
            denominator=denominator,  # type: ignore[arg-type]
        )
        assert loss.item() == pytest.approx(expected, abs=1e-6)
        assert count == 4


def test_denominators_differ_where_an_anchor_has_two_positives() -> None:
    vectors, valid = directions(0, 60, 80, 90, 180, 200).view(2, 3, 2), torch.ones(2, 3, dtype=torch.bool)
    sets = (vectors, valid, vectors, valid)
    assert supervised_contrast(*sets)[0] < supervised_contrast(*sets, denominator="all")[0] - 0.1


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_the_gradient_is_that_of_the_value(same: bool, denominator: str) -> None:
    data = Drawn(3, 3, 4, 3, same, torch.float64)
    assert data.anchor_valid.any()
    assert not data.anchor_valid.all()
    anchors, others = data.anchors.clone().requires_grad_(), data.others.clone().requires_grad_()

    def loss(anchors: Tensor, others: Tensor) -> Tensor:
        return supervised_contrast(
            anchors,
            data.anchor_valid,
            anchors if same else others,
            data.other_valid,
            temperature=0.5,
            same=same,
            denominator=denominator,  # type: ignore[arg-type]
        )[0]

    torch.autograd.gradcheck(loss, (anchors, others))
    gradients = torch.autograd.grad(loss(anchors, others), (anchors, others), allow_unused=same)
    assert (gradients[0][~data.anchor_valid] == 0).all()
    if not same:
        assert (gradients[1][~data.other_valid] == 0).all()


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("rows", [1, 8, 1024])
def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch, denominator: str, rows: int) -> None:
    data = Drawn(5, 5, 4, 4, True, torch.float64)
    vectors = data.anchors.clone().requires_grad_()

    def run() -> tuple[Tensor, Tensor]:
        loss, _ = supervised_contrast(
            vectors,
            data.anchor_valid,
            vectors,
            data.anchor_valid,
            denominator=denominator,  # type: ignore[arg-type]
        )
        return loss, torch.autograd.grad(loss, vectors)[0]

    expected = run()
    monkeypatch.setattr(multiscale, "_BLOCK_ROWS", rows)
    torch.testing.assert_close(run(), expected)


def test_slopes_pull_positives_and_push_negatives() -> None:
    vectors = nn.functional.normalize(torch.randn(2, 3, 8, dtype=torch.float64), dim=-1)
    valid = torch.ones(2, 3, dtype=torch.bool)
    only_first = torch.zeros(2, 3, dtype=torch.bool)
    only_first[0, 0] = True
    others = vectors.clone().requires_grad_()
    for denominator in DENOMINATORS:
        loss, _ = supervised_contrast(
            vectors,
            only_first,
            others,
            valid,
            temperature=1.0,
            denominator=denominator,  # type: ignore[arg-type]
        )
        (gradient,) = torch.autograd.grad(loss, others)
        slopes = gradient @ vectors[0, 0]
        assert (gradient[0, 0] == 0).all()  # itself
        assert (slopes[0, 1:] < 0).all()
        assert (slopes[1] > 0).all()


Sets = tuple[Tensor, Tensor, Tensor, Tensor]


def few(valid: list[list[int]]) -> Sets:
    vectors = directions(0, 10, 20, 90, 100, 110).view(2, 3, 2).requires_grad_()
    mask = torch.tensor(valid, dtype=torch.bool)
    return vectors, mask, vectors, mask


@pytest.mark.parametrize("valid", [[[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 1, 0]]])
@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("lonely", ["skip", "zero"])
def test_without_positives_there_is_a_zero_with_a_graph(valid: list[list[int]], denominator: str, lonely: str) -> None:
    sets = few(valid)
    loss, count = supervised_contrast(*sets, denominator=denominator, lonely=lonely)  # type: ignore[arg-type]
    assert loss == 0
    assert count == (sum(map(sum, valid)) if lonely == "zero" else 0)
    (gradient,) = torch.autograd.grad(loss, sets[0])
    assert (gradient == 0).all()


def test_lonely_anchors_are_left_out_or_count_as_zero() -> None:
    sets = few([[1, 1, 1], [1, 0, 0]])
    skipped, three = supervised_contrast(*sets)
    counted, four = supervised_contrast(*sets, lonely="zero")
    assert (three, four) == (3, 4)
    torch.testing.assert_close(counted, skipped * 3 / 4)


def test_without_negatives_there_is_no_loss_unless_all_stand_below() -> None:
    sets = few([[1, 1, 1], [0, 0, 0]])
    loss, count = supervised_contrast(*sets)
    assert loss == 0
    assert count == 3
    (gradient,) = torch.autograd.grad(loss, sets[0])
    assert (gradient == 0).all()
    everything, _ = supervised_contrast(*sets, denominator="all")
    assert everything > math.log(2) - 0.5


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("tau", [1e-6, 1e-4, 1e-3, 0.01, 1e3])
def test_any_temperature_is_finite(denominator: str, tau: float) -> None:
    for dtype in (torch.float32, torch.float64):
        data = Drawn(2, 3, 4, 4, True, dtype)
        vectors = data.anchors.clone().requires_grad_()
        loss, _ = supervised_contrast(
            vectors,
            data.anchor_valid,
            vectors,
            data.anchor_valid,
            temperature=tau,
            denominator=denominator,  # type: ignore[arg-type]
        )
        (gradient,) = torch.autograd.grad(loss, vectors)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        assert loss > 0


def test_low_temperature_is_the_worst_negative_against_each_positive() -> None:
    vectors = directions(0, 155, 7, 200, 240, 50).view(2, 3, 2)
    valid = torch.tensor([[True, True, False], [True, True, False]])
    loss, _ = supervised_contrast(vectors, valid, vectors, valid, temperature=1e-5)
    cosine = {degrees: math.cos(math.radians(degrees)) for degrees in (40, 45, 85, 120, 155, 160)}
    # Nearest negative, then the positive, of the anchors at 0, 155, 200 and 240 degrees.
    gaps = [
        cosine[120] - cosine[155],
        cosine[45] - cosine[155],
        cosine[45] - cosine[40],
        cosine[85] - cosine[40],
    ]
    assert gaps[2] < 0
    assert loss.item() == pytest.approx(sum(max(0, gap) for gap in gaps) / 4 / 1e-5, rel=1e-6)


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_only_the_gradient_stays_alive(denominator: str) -> None:
    vectors = nn.functional.normalize(torch.randn(4, 64, 3), dim=-1).requires_grad_()
    valid = torch.ones(4, 64, dtype=torch.bool)
    alive: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        alive.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        supervised_contrast(vectors, valid, vectors, valid, denominator=denominator)  # type: ignore[arg-type]
    assert 0 < sum(alive) <= 3 * vectors.numel()  # a similarity matrix has 85 times as many


def test_nothing_is_kept_without_gradients() -> None:
    data = Drawn(2, 3, 4, 4, False, torch.float32)
    expected, _ = supervised_contrast(data.anchors.clone().requires_grad_(), *data.sets[1:], same=False)
    plain, _ = supervised_contrast(*data.sets, same=False)
    assert not plain.requires_grad
    assert plain == expected
    others = data.others.clone().requires_grad_()
    one, _ = supervised_contrast(data.anchors, data.anchor_valid, others, data.other_valid, same=False)
    one.backward()
    assert others.grad is not None
    assert others.grad.abs().sum() > 0


def test_autocast_is_off_inside() -> None:
    data = Drawn(2, 3, 5, 5, True, torch.float32)
    expected, _ = supervised_contrast(*data.sets)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = supervised_contrast(*data.sets)
    assert found.dtype == torch.float32
    assert found == expected


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_no_host_synchronisation(denominator: str, no_host_sync: Callable[[], AbstractContextManager[None]]) -> None:
    data = Drawn(2, 3, 5, 5, True, torch.float32)
    vectors = data.anchors.clone().requires_grad_()
    with no_host_sync():
        loss, _ = supervised_contrast(
            vectors,
            data.anchor_valid,
            vectors,
            data.anchor_valid,
            denominator=denominator,  # type: ignore[arg-type]
        )
        loss.backward()
    assert loss.isfinite()


def compiled_equals_eager(backend: str, same: bool, denominator: str) -> None:
    data = Drawn(2, 3, 5, 6, same, torch.float32)
    anchors, others = data.anchors.clone().requires_grad_(), data.others.clone().requires_grad_()

    def run(anchors: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        return supervised_contrast(
            anchors,
            data.anchor_valid,
            anchors if same else others,
            data.other_valid,
            same=same,
            denominator=denominator,  # type: ignore[arg-type]
        )

    torch._dynamo.reset()
    expected, count = run(anchors, others)
    found, found_count = torch.compile(run, fullgraph=True, backend=backend)(anchors, others)
    torch.testing.assert_close(found, expected)
    assert found_count == count
    torch.testing.assert_close(torch.autograd.grad(found, anchors), torch.autograd.grad(expected, anchors))


@pytest.mark.parametrize(("same", "denominator"), [(True, "negatives"), (False, "all")])
def test_compiles_without_graph_breaks(same: bool, denominator: str) -> None:
    compiled_equals_eager("aot_eager", same, denominator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*_prims_common:FutureWarning")  # torch's own, inside inductor
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_compiles_with_inductor(same: bool, denominator: str) -> None:
    compiled_equals_eager("inductor", same, denominator)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature .* above 0, found 0.0"),
        ({"denominator": "none"}, "denominator .* one of negatives, all, found 'none'"),
        ({"lonely": "drop"}, "lonely .* one of skip, zero, found 'drop'"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        supervised_contrast(*few([[1, 1, 1], [1, 1, 1]]), **options)  # type: ignore[arg-type]
