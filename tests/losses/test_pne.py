from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ctrs.errors import ConfigError, CtrsWarning, UsageError
from ctrs.losses.pne import PneStats, PositiveNegativeEqualLoss
from ctrs.losses.pne_sampling import cell_verdicts, sample_verdicts
from ctrs.models.projection import NormProjectionHead

CHANNELS = 6


def make_head(norm: str = "bn", channels: int = CHANNELS) -> NormProjectionHead:
    torch.manual_seed(0)
    return NormProjectionHead(channels, [channels], 8, norm=norm, order="norm-relu")  # type: ignore[arg-type]


def make_loss(norm: str = "bn", num_classes: int = 3, **options: object) -> PositiveNegativeEqualLoss:
    return PositiveNegativeEqualLoss(make_head(norm), num_classes, **options)  # type: ignore[arg-type]


def embeddings(height: int, width: int, batch: int = 2, channels: int = CHANNELS) -> Tensor:
    g = torch.Generator().manual_seed(5)
    return torch.randn(batch, channels, height, width, generator=g).requires_grad_()


def noisy_labels(height: int, width: int, num_classes: int = 3, batch: int = 2, void: float = 0.1) -> Tensor:
    """Blocks of classes with some void pixels."""
    g = torch.Generator().manual_seed(3)
    coarse = torch.randint(0, num_classes, (batch, -(-height // 16), -(-width // 16)), generator=g)
    labels = coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :height, :width]
    return torch.where(torch.rand(labels.shape, generator=g) < void, 255, labels)


def logits_for(labels: Tensor, num_classes: int = 3, strength: float = 1.5) -> Tensor:
    """Logits that are right more often than not."""
    g = torch.Generator().manual_seed(4)
    noise = torch.randn(labels.shape[0], num_classes, *labels.shape[1:], generator=g)
    truth = labels[:, None] == torch.arange(num_classes)[:, None, None]
    return noise + strength * truth


def logits_saying(predicted: Tensor, num_classes: int = 3, strength: float = 2.0) -> Tensor:
    """Logits whose largest is the one of a given class."""
    return strength * (predicted[:, None] == torch.arange(num_classes)[:, None, None]).float()


def naive_loss(
    vectors: Tensor,
    logits: Tensor,
    labels: Tensor,
    stride: int,
    *,
    tau: float = 1.0,
    normalize: bool = True,
    resize: str = "nearest",
    scope: str = "image",
    skip_above: int | None = None,
) -> tuple[float, int]:
    """Eq. 7 to 9 over sets S_{l,k}, cell by cell; (B, D, h, w) vectors need not have unit length."""
    B, K, H, W = logits.shape
    right: dict[tuple[int, int], list[tuple[Tensor, float]]] = {}
    wrong: dict[tuple[int, int, int], list[Tensor]] = {}
    for b in range(B):
        for i in range(-(-H // stride)):
            for j in range(-(-W // stride)):
                y, x = i * stride, j * stride
                g = int(labels[b, y, x])
                if not 0 <= g < K:
                    continue
                scores = logits[b, :, y, x]
                if resize == "bilinear":
                    ys = [min(y + stride // 2 - 1 + d, H - 1) for d in (0, 1)]
                    xs = [min(x + stride // 2 - 1 + d, W - 1) for d in (0, 1)]
                    scores = torch.stack([logits[b, :, yy, xx] for yy in ys for xx in xs]).mean(0)
                exps = [math.exp(value) for value in scores.tolist()]
                p = max(range(K), key=exps.__getitem__)
                vector = vectors[b, :, i, j]
                vector = vector / vector.norm()
                if p == g:
                    right.setdefault((b if scope == "image" else 0, g), []).append((vector, max(exps) / sum(exps)))
                else:
                    wrong.setdefault((b, p, g), []).append(vector)
    losses = []
    for (b, predicted, true), anchors in wrong.items():
        group = b if scope == "image" else 0
        negatives, positives = right.get((group, predicted), []), right.get((group, true), [])
        if not negatives or not positives or (skip_above is not None and len(anchors) > skip_above):
            continue
        mean_weight = sum(w for _, w in positives) / len(positives) if normalize else 1.0
        for anchor in anchors:
            push = sum(math.exp(float(anchor @ n) / tau) for n, _ in negatives) / len(negatives)
            pull = sum(w / mean_weight * math.exp(float(anchor @ p) / tau) for p, w in positives) / len(positives)
            losses.append(math.log(1 + push / pull))
    return sum(losses) / max(1, len(losses)), len(losses)


def dense_vectors(head: NormProjectionHead, embedding: Tensor) -> Tensor:
    """Project every cell: (B, D, h, w)."""
    with torch.no_grad():
        features = embedding if head.dense is None else head.dense(embedding)
        return head(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [(52, 44), (50, 43), (64, 64)])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("tau", "normalize", "resize", "scope"),
    [(1.0, True, "nearest", "image"), (0.5, False, "bilinear", "image"), (1.0, True, "bilinear", "batch")],
)
def test_module_equals_a_loop_over_images_and_sets(
    size: tuple[int, int], padded: bool, tau: float, normalize: bool, resize: str, scope: str
) -> None:
    labels = noisy_labels(*size, num_classes=4)
    logits = logits_for(labels, 4).double()
    logits[1, 2] = -9  # class 2 is never right in the second image
    cells = [-(-side // 32) * 8 if padded else -(-side // 4) for side in size]
    embedding = embeddings(cells[0], cells[1]).detach().double()
    head = make_head().double()
    loss = PositiveNegativeEqualLoss(
        head,
        4,
        temperature=tau,
        normalize_weights=normalize,
        resize=resize,  # type: ignore[arg-type]
        scope=scope,  # type: ignore[arg-type]
        num_candidates=10_000,
        max_anchors=10_000,
    )
    found, stats = loss(embedding, logits, labels)
    expected, anchors = naive_loss(
        dense_vectors(head, embedding), logits, labels, 4, tau=tau, normalize=normalize, resize=resize, scope=scope
    )
    assert anchors > 10
    assert stats.anchors == anchors
    assert found.item() == pytest.approx(expected, abs=1e-6)
    assert stats.raw == found
    assert (stats.eligible < 1) == (scope == "image")


@pytest.mark.parametrize(("stride", "cells"), [(1, (64, 96)), (2, (32, 48)), (8, (8, 12)), (16, (4, 6))])
def test_other_strides(stride: int, cells: tuple[int, int]) -> None:
    labels = noisy_labels(64, 96, void=0.0)
    logits = logits_for(labels).double()
    embedding = embeddings(*cells).detach().double()
    head = make_head("ln").double()
    loss = PositiveNegativeEqualLoss(head, 3, embedding_stride=stride, num_candidates=10_000, max_anchors=10_000)
    found, stats = loss(embedding, logits, labels, loss.draw_keys(embedding))
    factor = max(1, 4 // stride)
    means = embedding.unfold(2, factor, factor).unfold(3, factor, factor).mean((-1, -2))
    expected, anchors = naive_loss(dense_vectors(head, means), logits, labels, max(4, stride))
    assert stats.anchors == anchors > 0
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_a_fine_embedding_of_a_size_that_4_does_not_divide() -> None:
    labels = noisy_labels(50, 43)
    embedding = embeddings(50, 43)
    loss = make_loss("ln", embedding_stride=1)
    value, stats = loss(embedding, logits_for(labels), labels, loss.draw_keys(embedding))
    value.backward()
    assert stats.anchors > 0
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()


def crafted_errors() -> tuple[Tensor, Tensor]:
    """Labels and predictions of 16 x 16 cells: class 0 taken 20 times for 1 and 3 times for 2, 2 5 times for 1."""
    truth = torch.zeros(1, 16, 16, dtype=torch.int64)
    truth[:, 6:11], truth[:, 11:] = 1, 2
    predicted = truth.clone()
    predicted[0, 0:2, 0:10] = 1
    predicted[0, 3, 2:5] = 2
    predicted[0, 15, 3:8] = 1
    return tuple(part.repeat_interleave(4, 1).repeat_interleave(4, 2) for part in (truth, predicted))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("large_sets", "max_anchors", "anchors", "eligible"),
    [
        ("subsample", 10, 10, 28),
        ("subsample", 22, 22, 28),
        ("subsample", 199, 28, 28),
        ("skip", 20, 20, 28),
        ("skip", 19, 8, 8),
        ("skip", 4, 3, 3),
        ("skip", 2, 0, 0),
    ],
)
def test_large_sets_are_subsampled_or_skipped(large_sets: str, max_anchors: int, anchors: int, eligible: int) -> None:
    labels, predicted = crafted_errors()
    logits, embedding = logits_saying(predicted).double(), embeddings(16, 16, batch=1).detach().double()
    head = make_head().double()
    loss = PositiveNegativeEqualLoss(
        head,
        3,
        large_sets=large_sets,  # type: ignore[arg-type]
        max_anchors=max_anchors,
        num_candidates=1000,
    )
    found, stats = loss(embedding, logits, labels)
    assert stats.anchors == anchors
    assert stats.eligible.item() == pytest.approx(eligible / 28)
    if anchors == eligible:
        skip_above = max_anchors if large_sets == "skip" else None
        expected, count = naive_loss(dense_vectors(head, embedding), logits, labels, 4, skip_above=skip_above)
        assert count == anchors
        assert found.item() == pytest.approx(expected, abs=1e-6)


def test_the_mean_is_over_all_anchors_of_the_batch() -> None:
    labels, predicted = crafted_errors()
    few = predicted.clone()
    few[:, :16] = labels[:, :16]
    both, embedding = torch.cat([labels, labels]), embeddings(16, 16)
    loss = make_loss("ln", num_candidates=1000)
    whole, stats = loss(embedding, logits_saying(torch.cat([predicted, few])), both)
    first, _ = loss(embedding[:1], logits_saying(predicted), labels)
    second, _ = loss(embedding[1:], logits_saying(few), labels)
    torch.testing.assert_close(whole, (28 * first + 5 * second) / 33)
    assert (stats.anchors, stats.images) == (33, 2)


def test_the_ignored_label_is_void_wherever_it_lies() -> None:
    labels, embedding = noisy_labels(64, 64, void=0.0), embeddings(16, 16)
    logits = logits_for(labels)
    keys = make_loss().draw_keys(embedding)
    within, stats = make_loss(ignore_index=1)(embedding, logits, labels, keys)
    outside, _ = make_loss()(embedding, logits, torch.where(labels == 1, -7, labels), keys)
    assert stats.anchors > 0
    assert within == outside != make_loss()(embedding, logits, labels, keys)[0]


class Drawn:
    """Random labels, predictions and keys of a small batch."""

    def __init__(self, seed: int, num_classes: int, scope: str, large_sets: str, max_anchors: int, count: int) -> None:
        g = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, num_classes, (3, 26, 30), generator=g)
        guess = torch.randint(0, num_classes, (3, 26, 30), generator=g)
        guess = torch.where(torch.rand(3, 26, 30, generator=g) < 0.5, labels, guess)
        labels = torch.where(torch.rand(3, 26, 30, generator=g) < 0.2, torch.tensor([255, -1])[guess % 2], labels)
        self.max_anchors, self.count, self.num_classes, self.scope = max_anchors, count, num_classes, scope
        self.verdicts = cell_verdicts(logits_saying(guess, num_classes), labels, (8, 8), stride=4)
        self.samples = sample_verdicts(
            self.verdicts,
            torch.rand(3 * 64, generator=g),
            num_classes=num_classes,
            max_anchors=max_anchors,
            num_candidates=count,
            scope=scope,  # type: ignore[arg-type]
            large_sets=large_sets,  # type: ignore[arg-type]
        )


@given(
    st.builds(
        Drawn,
        seed=st.integers(0, 10_000),
        num_classes=st.integers(1, 5),
        scope=st.sampled_from(["image", "batch"]),
        large_sets=st.sampled_from(["subsample", "skip"]),
        max_anchors=st.sampled_from([1, 6, 100]),
        count=st.sampled_from([1, 3, 500]),
    )
)
def test_anchors_are_errors_and_candidates_are_right(drawn: Drawn) -> None:
    label, predicted, _, valid = (part.flatten().tolist() for part in drawn.verdicts)
    samples = drawn.samples
    groups = 3 if drawn.scope == "image" else 1
    size = 3 * 64 // groups
    assert samples.candidates.shape[:2] == (groups, drawn.num_classes)
    exists = set()
    for group in range(groups):
        for c in range(drawn.num_classes):
            cells = samples.candidates[group, c][samples.candidate_valid[group, c]].tolist()
            pool = [i for i in range(group * size, (group + 1) * size) if valid[i] and label[i] == predicted[i] == c]
            assert len(set(cells)) == len(cells) == min(len(pool), drawn.count)
            assert set(cells) <= set(pool)
            exists |= {(group, c)} if cells else set()
    for image in range(3):
        group = image if groups == 3 else 0
        cells = samples.anchors[image][samples.anchor_valid[image]].tolist()
        assert len(set(cells)) == len(cells) <= drawn.max_anchors
        assert all(image * 64 <= i < (image + 1) * 64 and valid[i] and label[i] != predicted[i] for i in cells)
        assert all({(group, label[i]), (group, predicted[i])} <= exists for i in cells)
    assert samples.errors == sum(v and g != p for v, g, p in zip(valid, label, predicted, strict=True))
    assert samples.anchor_valid.sum() <= samples.eligible <= samples.errors


def test_equal_keys_give_equal_samples_and_other_keys_others() -> None:
    labels, embedding = noisy_labels(64, 64), embeddings(16, 16)
    loss = make_loss(max_anchors=5, num_candidates=3)
    logits = logits_for(labels)
    keys = loss.draw_keys(embedding, torch.Generator().manual_seed(1))
    first, _ = loss(embedding, logits, labels, keys)
    (gradient,) = torch.autograd.grad(first, embedding)
    for _ in range(3):
        again, _ = loss(embedding, logits, labels, loss.draw_keys(embedding, torch.Generator().manual_seed(1)))
        assert again == first
        assert torch.equal(torch.autograd.grad(again, embedding)[0], gradient)
    other, _ = loss(embedding, logits, labels, loss.draw_keys(embedding, torch.Generator().manual_seed(2)))
    assert other != first
    nhwc = embedding.detach().to(memory_format=torch.channels_last)
    torch.testing.assert_close(loss(nhwc, logits, labels, keys)[0], first)


def test_drawing_without_keys_uses_the_global_generator() -> None:
    labels, embedding = noisy_labels(64, 64), embeddings(16, 16)
    loss, logits = make_loss(max_anchors=5, num_candidates=3), logits_for(labels)
    torch.manual_seed(4)
    first, _ = loss(embedding, logits, labels)
    torch.manual_seed(4)
    assert loss(embedding, logits, labels)[0] == first
    assert loss(embedding, logits, labels)[0] != first


def test_keys_need_the_shape_only() -> None:
    shape = torch.empty(1).expand(2, 1, 16, 16)
    assert [key.shape for key in make_loss().draw_keys(shape)] == [(512,)]
    assert [key.shape for key in make_loss(embedding_stride=2).draw_keys(shape)] == [(128,)]


def test_gradient_is_orthogonal_and_at_anchors_only() -> None:
    labels, embedding = noisy_labels(64, 64), embeddings(16, 16)
    logits = logits_for(labels).requires_grad_()
    values = {}
    for detach in (True, False):
        loss = PositiveNegativeEqualLoss(nn.Identity(), 3, max_anchors=5, num_candidates=7, detach=detach)
        keys = loss.draw_keys(embedding, torch.Generator().manual_seed(1))
        value, stats = loss(embedding, logits, labels, keys)
        values[detach] = value
        (gradient,) = torch.autograd.grad(value, embedding)
        assert (gradient * embedding).sum(1).abs().max() < 1e-6
        verdicts = cell_verdicts(logits, labels, (16, 16), stride=4)
        wrong = (verdicts.valid & (verdicts.label != verdicts.predicted)).view(2, 16, 16)
        right = (verdicts.valid & (verdicts.label == verdicts.predicted)).view(2, 16, 16)
        moved = (gradient != 0).any(1)
        assert (moved & wrong).sum() == stats.anchors == 10
        assert (moved & ~wrong & ~right).sum() == 0
        assert (moved & right).any() == (not detach)
        assert (moved & right).sum() <= 2 * 3 * 7
    assert values[True] == values[False]
    assert not torch.autograd.grad(values[True], logits, allow_unused=True)[0]


def test_the_head_learns_from_anchors_only() -> None:
    labels, embedding = noisy_labels(64, 64), embeddings(16, 16).detach().double().requires_grad_()
    head = nn.Linear(CHANNELS, CHANNELS, bias=False).double()
    for detach in (True, False):
        loss = PositiveNegativeEqualLoss(head, 3, detach=detach)
        keys = loss.draw_keys(embedding, torch.Generator().manual_seed(1))
        value, _ = loss(embedding, logits_for(labels), labels, keys)
        found, at_cells = torch.autograd.grad(value, (head.weight, embedding))
        rows, gradients = (part.permute(0, 2, 3, 1).reshape(-1, CHANNELS) for part in (embedding, at_cells))
        verdicts = cell_verdicts(logits_for(labels), labels, (16, 16), stride=4)
        wrong = (verdicts.valid & (verdicts.label != verdicts.predicted)).flatten()
        of_vectors = torch.where(wrong[:, None], gradients, 0.0) @ head.weight.inverse()  # what the projections get
        assert torch.allclose(found, of_vectors.T @ rows) == detach


@pytest.mark.parametrize("detach", [True, False])
def test_descent_lowers_the_loss(detach: bool) -> None:
    labels, embedding = noisy_labels(64, 64), embeddings(16, 16)
    loss, logits = PositiveNegativeEqualLoss(nn.Identity(), 3, detach=detach), logits_for(labels)
    keys = loss.draw_keys(embedding, torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam([embedding], 1e-2)
    raws = []
    for _ in range(15):
        value, stats = loss(embedding, logits, labels, keys)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        raws.append(stats.raw.item())
    assert raws == sorted(raws, reverse=True)
    assert raws[-1] < raws[0] - 0.01


Batch = tuple[Tensor, Tensor]


def all_right() -> Batch:
    labels = noisy_labels(64, 64)
    return logits_saying(labels), labels


def all_wrong() -> Batch:
    labels = noisy_labels(64, 64)
    return logits_saying((labels + 1) % 3), labels


def only_void() -> Batch:
    labels = torch.full((2, 64, 64), 255)
    return logits_for(labels), labels


def one_class() -> Batch:
    labels = torch.ones(2, 64, 64, dtype=torch.int64)
    return logits_for(labels), labels


def a_class_never_right() -> Batch:
    """Class 1 is always taken for class 0."""
    labels = noisy_labels(64, 64, num_classes=2)
    return logits_saying(torch.zeros_like(labels)), labels


def a_class_predicted_nowhere_right() -> Batch:
    """Half of class 0 is taken for class 2, which is in no label."""
    labels = torch.zeros(2, 64, 64, dtype=torch.int64)
    predicted = labels.clone()
    predicted[:, 32:] = 2
    return logits_saying(predicted), labels


def right_in_the_other_image_only() -> Batch:
    """Image 0 has errors between classes that are right in image 1 only."""
    labels = noisy_labels(64, 64, num_classes=2, void=0.0)
    predicted = labels.clone()
    predicted[0] = 1 - labels[0]
    return logits_saying(predicted), labels


ZERO_CASES = [
    all_right,
    all_wrong,
    only_void,
    one_class,
    a_class_never_right,
    a_class_predicted_nowhere_right,
    right_in_the_other_image_only,
]


@pytest.mark.parametrize("norm", ["bn", "ln"])
@pytest.mark.parametrize("large_sets", ["subsample", "skip"])
@pytest.mark.parametrize("make", ZERO_CASES, ids=[make.__name__ for make in ZERO_CASES])
def test_batches_without_an_anchor_give_zero_with_a_graph(
    make: Callable[[], Batch], large_sets: str, norm: str
) -> None:
    logits, labels = make()
    embedding, loss = embeddings(16, 16), make_loss(norm, large_sets=large_sets)
    value, stats = loss(embedding, logits, labels)
    assert value == 0
    assert value.requires_grad
    value.backward()
    gradients = [embedding.grad, *(parameter.grad for parameter in loss.parameters())]
    assert all(gradient is not None and (gradient == 0).all() for gradient in gradients)
    assert (stats.anchors, stats.images, stats.eligible) == (0, 0, 0)


def test_the_batch_as_scope_finds_right_cells_in_other_images() -> None:
    logits, labels = right_in_the_other_image_only()
    _, stats = make_loss(scope="batch")(embeddings(16, 16), logits, labels)
    assert stats.anchors == 199
    assert stats.images == 1
    assert stats.eligible == 1


@pytest.mark.parametrize("norm", ["bn", "ln"])
@pytest.mark.parametrize("scope", ["image", "batch"])
@pytest.mark.parametrize("size", [(500, 500), (32, 32), (20, 36)])
def test_sizes_with_padded_embeddings(size: tuple[int, int], scope: str, norm: str) -> None:
    labels = noisy_labels(*size)
    embedding = embeddings(*(-(-side // 32) * 8 for side in size))
    loss = make_loss(norm, scope=scope)
    value, stats = loss(embedding, logits_for(labels), labels)
    value.backward()
    assert value > 0
    assert stats.anchors > 0
    gradients = [embedding.grad, *(parameter.grad for parameter in loss.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_one_cell() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    embedding, loss = embeddings(1, 1, batch=1), make_loss()
    value, _ = loss(embedding, logits_saying(labels + 1), labels)
    value.backward()
    assert value == 0
    assert all(parameter.grad is not None for parameter in loss.parameters())


def test_nan_in_cells_that_are_not_sampled_cannot_enter() -> None:
    labels, embedding, loss = noisy_labels(64, 64), embeddings(16, 16), make_loss("ln")
    labels[:, :8, :8] = 255
    with torch.no_grad():
        embedding[:, :, :2, :2] = float("nan")
    value, stats = loss(embedding, logits_for(labels), labels)
    value.backward()
    assert value.isfinite()
    assert stats.anchors > 0
    gradients = [embedding.grad, *(parameter.grad for parameter in loss.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("head", [nn.Identity(), make_head("ln"), make_head("bn")])
def test_embeddings_of_zeros_have_a_bounded_gradient(head: nn.Module) -> None:
    labels = noisy_labels(64, 64)
    embedding = torch.zeros(2, CHANNELS, 16, 16)
    embedding[:, 0, ::2] = 1  # some of them have a direction
    embedding.requires_grad_()
    value, stats = PositiveNegativeEqualLoss(head, 3)(embedding, logits_for(labels), labels)
    value.backward()
    assert value.isfinite()
    assert stats.anchors > 0
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()
    assert embedding.grad.abs().max() < 1e6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("norm", "stride"), [("bn", 4), ("ln", 4), ("ln", 2)])
def test_half_precision_autocast(dtype: torch.dtype, norm: str, stride: int) -> None:
    labels, embedding = noisy_labels(64, 64), embeddings(64 // stride, 64 // stride)
    logits, loss = logits_for(labels).to(dtype), make_loss(norm, embedding_stride=stride)
    keys = loss.draw_keys(embedding, torch.Generator().manual_seed(1))
    expected, _ = loss(embedding, logits.float(), labels, keys)
    half = embedding.detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype):
        found, stats = loss(half, logits, labels, keys)
    assert found.dtype == torch.float32
    assert stats.anchors > 0
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    found.backward()
    gradients = [half.grad, *(parameter.grad for parameter in loss.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings_are_compared_in_float32(dtype: torch.dtype) -> None:
    labels = noisy_labels(64, 64)
    embedding = (embeddings(16, 16).detach() * 10_000).to(dtype).requires_grad_()
    loss = PositiveNegativeEqualLoss(nn.Identity(), 3)
    keys = loss.draw_keys(embedding, torch.Generator().manual_seed(1))
    value, _ = loss(embedding, logits_for(labels), labels, keys)
    expected, _ = loss(embedding.detach().float(), logits_for(labels), labels, keys)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    value.backward()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()


@pytest.mark.parametrize("options", [{}, {"large_sets": "skip", "scope": "batch", "resize": "bilinear"}])
def test_no_host_synchronisation(
    options: dict[str, object], no_host_sync: Callable[[], AbstractContextManager[None]]
) -> None:
    labels, embedding, loss = noisy_labels(50, 50), embeddings(16, 16), make_loss(**options)
    logits, keys = logits_for(labels), loss.draw_keys(embedding)
    with no_host_sync():
        value, stats = loss(embedding, logits, labels, keys)
        loss.record(stats)
        value.backward()
    assert value > 0


def test_the_record_is_scalars_without_a_graph() -> None:
    labels, loss = noisy_labels(64, 64), make_loss()
    value, stats = loss(embeddings(16, 16), logits_for(labels), labels)
    record = loss.record(stats)
    assert isinstance(stats, PneStats)
    assert list(record) == ["raw", "anchors", "images", "eligible"]
    assert all(part.shape == () and not part.requires_grad for part in record.values())
    assert record["raw"] == value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature of the pne loss must be above 0, found 0"),
        ({"max_anchors": 0}, "max_anchors of the pne loss must be at least 1, found 0"),
        ({"num_candidates": 0}, "num_candidates .* at least 1"),
        ({"num_classes": 0}, "num_classes .* at least 1"),
        ({"embedding_stride": 3}, "embedding_stride .* power of two, found 3"),
        ({"embedding_stride": 0}, "embedding_stride .* power of two, found 0"),
        ({"resize": "area"}, "resize of the pne loss must be one of nearest, bilinear, found 'area'"),
        ({"scope": "world"}, "scope .* one of image, batch"),
        ({"large_sets": "drop"}, "large_sets .* one of subsample, skip"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_loss(**options)  # type: ignore[arg-type]


def test_a_low_temperature_is_warned_of() -> None:
    with pytest.warns(CtrsWarning, match="temperature 0.29 of the pne loss"):
        make_loss(temperature=0.29)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_loss(temperature=0.3)


def test_shapes_that_do_not_fit() -> None:
    labels = noisy_labels(64, 64)
    logits, loss = logits_for(labels), make_loss()
    with pytest.raises(UsageError, match=r"stride 4 for 2 images of 64 x 64 pixels must have 16 x 16 cells"):
        loss(embeddings(16, 16).permute(0, 2, 3, 1), logits, labels)
    with pytest.raises(UsageError, match="embedding of stride 4"):
        loss(embeddings(16, 16, batch=1), logits, labels)
    with pytest.raises(UsageError, match=r"logits must have the shape \(2, 3, 64, 64\)"):
        loss(embeddings(16, 16), logits[:, :, ::4, ::4], labels)
    with pytest.raises(UsageError, match="labels must be integers"):
        loss(embeddings(16, 16), logits, labels.float())


def assert_compiled_equals_eager(backend: str, norm: str, options: dict[str, object]) -> None:
    labels, embedding, loss = noisy_labels(50, 43), embeddings(16, 16), make_loss(norm, **options)
    logits, keys = logits_for(labels), loss.draw_keys(embedding, torch.Generator().manual_seed(1))
    expected, _ = loss(embedding, logits, labels, keys)
    gradients = torch.autograd.grad(expected, embedding)
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    found, stats = compiled(embedding, logits, labels, keys)
    assert stats.anchors > 0
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, embedding), gradients, rtol=1e-4, atol=1e-7)


def test_compiles_without_graph_breaks() -> None:
    assert_compiled_equals_eager("aot_eager", "bn", {"large_sets": "skip"})


OTHER_OPTIONS = {"scope": "batch", "resize": "bilinear", "detach": False}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "norm", "options"),
    [
        ("aot_eager", "bn", {}),
        ("aot_eager", "ln", OTHER_OPTIONS),
        ("inductor", "bn", OTHER_OPTIONS),
        ("inductor", "ln", {}),
    ],
)
def test_compiles_with_all_options(backend: str, norm: str, options: dict[str, object]) -> None:
    assert_compiled_equals_eager(backend, norm, options)
