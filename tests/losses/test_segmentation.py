from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor
from torch.nn import functional as F

from ctrs.errors import ConfigError
from ctrs.losses import SegmentationLoss
from ctrs.losses.segmentation import balanced_weights


def example(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 9, 7, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(0, 4, (3, 9, 7), generator=generator)  # class 4 does not occur
    labels[:, :2] = 255
    return logits.requires_grad_(), labels


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 0.3])
def test_cross_entropy_equals_torch(smoothing: float) -> None:
    logits, labels = example()
    found = SegmentationLoss(5, label_smoothing=smoothing)(logits, labels).parts["cross_entropy"]
    expected = F.cross_entropy(logits, labels, ignore_index=255, label_smoothing=smoothing)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("smooth", [0.0, 0.05, 1.0])
def test_dice_equals_smp(smooth: float) -> None:
    logits, labels = example()
    found = SegmentationLoss(5, dice_smooth=smooth)(logits, labels).parts["dice"]
    # smp has (I + s) / (I + FP / 2 + FN / 2 + s): its s counts twice.
    expected = smp.losses.DiceLoss("multiclass", smooth=smooth / 2, ignore_index=255)(logits, labels)
    torch.testing.assert_close(found, expected)


ALL = "ce+dice+focal+lovasz+tversky"
PARTS = ("cross_entropy", "dice", "focal", "lovasz", "tversky")


@pytest.mark.parametrize("terms", ["ce+dice", ALL])
def test_ignored_pixels_have_no_influence_and_no_gradient(terms: str) -> None:
    logits, labels = example()
    loss = SegmentationLoss(5, terms=terms)
    total = loss(logits, labels).total
    (gradient,) = torch.autograd.grad(total, logits)
    assert (gradient[:, :, :2] == 0).all()
    assert (gradient[:, :, 2:] != 0).any()
    changed = logits.detach().clone()
    changed[:, :, :2] += torch.randn_like(changed[:, :, :2])
    torch.testing.assert_close(loss(changed, labels).total, total, rtol=1e-6, atol=0)  # lovasz in float32


@pytest.mark.parametrize("void", [255, -1, 5])
def test_labels_outside_the_classes_are_void(void: int) -> None:
    logits, labels = example()
    loss = SegmentationLoss(5, terms=ALL)
    expected = loss(logits, labels)
    found = loss(logits, torch.where(labels == 255, void, labels))
    assert torch.equal(found.total, expected.total)


def test_uint8_labels_work() -> None:
    logits, labels = example()
    assert torch.equal(
        SegmentationLoss(5)(logits, labels).total, SegmentationLoss(5)(logits, labels.to(torch.uint8)).total
    )


@pytest.mark.parametrize("part", ["total", *PARTS])
def test_a_batch_without_labels_gives_zero_with_a_graph(part: str) -> None:
    logits, labels = example()
    total, parts = SegmentationLoss(5, terms=ALL, class_weights=[1, 2, 0, 1, 1])(logits, torch.full_like(labels, 255))
    value = total if part == "total" else parts[part]
    assert value.shape == ()
    assert value == 0
    (gradient,) = torch.autograd.grad(value, logits)
    assert (gradient == 0).all()


def test_half_precision_is_computed_in_float32() -> None:
    logits, labels = example(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = SegmentationLoss(5)(logits.detach().bfloat16(), labels)
    assert found.total.dtype == torch.float32
    expected = SegmentationLoss(5)(logits.detach(), labels).total
    torch.testing.assert_close(found.total, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes .* at least 1, found 0"),
        ({"num_classes": 2, "label_smoothing": 1.0}, "found 1.0 and 0.05"),
        ({"num_classes": 2, "dice_smooth": -1.0}, "found 0.05 and -1.0"),
        ({"num_classes": 2, "terms": "ce+hinge"}, "unknown term 'hinge', expected ce, dice, focal, lovasz, tversky"),
        ({"num_classes": 2, "terms": "focal", "focal_gamma": 0.5}, "focal_gamma = 0.5 found, expected 0 or at least 1"),
        ({"num_classes": 2, "class_weights": [1.0]}, r"must be 2 numbers of at least 0, .* found \[1.0\]"),
        ({"num_classes": 2, "class_weights": [1.0, -1.0]}, "must be 2 numbers of at least 0"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SegmentationLoss(**options)


def test_total_is_the_weighted_sum_of_the_terms() -> None:
    logits, labels = example()
    total, parts = SegmentationLoss(5, terms="ce:0.5+lovasz:2+focal+tversky:0+dice")(logits, labels)
    assert set(parts) == set(PARTS)
    expected = 0.5 * parts["cross_entropy"] + 2 * parts["lovasz"] + parts["focal"] + parts["dice"]
    torch.testing.assert_close(total, expected)


def test_the_default_is_plain_cross_entropy_and_dice_to_the_bit() -> None:
    logits, labels = example(torch.float32)
    total, parts = SegmentationLoss(5)(logits, labels)
    assert list(parts) == ["cross_entropy", "dice"]
    assert torch.equal(total, parts["cross_entropy"] + parts["dice"])


def naive_focal(logits: Tensor, labels: Tensor, gamma: float, weights: list[float]) -> float:
    """Each class against the rest, pixel by pixel."""
    logits = logits.detach()
    total, count = 0.0, 0
    for image, row, col in itertools.product(*map(range, labels.shape)):
        truth = int(labels[image, row, col])
        if truth == 255:
            continue
        count += 1
        for k in range(logits.shape[1]):
            p = 1 / (1 + math.exp(-float(logits[image, k, row, col])))
            right = p if k == truth else 1 - p
            total += weights[truth] * (1 - right) ** gamma * -math.log(right) / logits.shape[1]
    return total / count


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_focal_equals_a_loop_over_pixels_and_smp(gamma: float) -> None:
    logits, labels = example()
    found = SegmentationLoss(5, terms="focal", focal_gamma=gamma)(logits, labels).total
    assert found.item() == pytest.approx(naive_focal(logits, labels, gamma, [1.0] * 5), rel=1e-12)
    # Of smp's own reduction, which picks valid pixels by a mask.
    torch.testing.assert_close(
        found, smp.losses.FocalLoss("multiclass", gamma=gamma, ignore_index=255)(logits, labels), rtol=1e-12, atol=0
    )
    weights = [0.5, 2.0, 0.0, 1.0, 3.0]
    weighted = SegmentationLoss(5, terms="focal", focal_gamma=gamma, class_weights=weights)(logits, labels).total
    assert weighted.item() == pytest.approx(naive_focal(logits, labels, gamma, weights), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_focal_has_finite_gradients_at_sure_pixels(gamma: float) -> None:
    logits = torch.tensor([60.0, -60.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    for label in range(3):
        loss = SegmentationLoss(3, terms="focal", focal_gamma=gamma)(logits, torch.full((1, 1, 1), label)).total
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.isfinite().all()


def naive_lovasz(logits: Tensor, labels: Tensor) -> float:
    """Sum of sorted errors times the growth of the Jaccard loss (Berman et al., 2018, Algorithm 1), set by set."""
    valid = labels != 255
    probability = logits.detach().softmax(1).movedim(1, -1)[valid]
    truth = labels[valid]
    losses = []
    for k in sorted(set(truth.tolist())):
        is_class = [int(label) == k for label in truth]
        errors = [abs(float(is_class[i]) - float(probability[i, k])) for i in range(len(truth))]
        mistaken: set[int] = set()
        loss = before = 0.0
        for i in sorted(range(len(errors)), key=lambda i: -errors[i]):
            mistaken.add(i)
            kept = sum(is_class) - sum(is_class[j] for j in mistaken)
            union = sum(is_class) + sum(not is_class[j] for j in mistaken)
            loss += errors[i] * (1 - kept / union - before)
            before = 1 - kept / union
        losses.append(loss)
    return sum(losses) / len(losses)


def test_lovasz_equals_a_loop_over_sets_and_smp() -> None:
    logits, labels = example()
    found = SegmentationLoss(5, terms="lovasz")(logits, labels).total
    # smp computes in float32.
    assert found.item() == pytest.approx(naive_lovasz(logits, labels), rel=1e-6)
    assert torch.equal(found, smp.losses.LovaszLoss("multiclass", ignore_index=255)(logits.float(), labels))


def naive_tversky(logits: Tensor, labels: Tensor, alpha: float, beta: float) -> float:
    probability, total = logits.detach().softmax(1), 0.0
    for k in range(logits.shape[1]):
        right = false_positive = false_negative = 0.0
        for image, row, col in itertools.product(*map(range, labels.shape)):
            truth, p = int(labels[image, row, col]), float(probability[image, k, row, col])
            if truth == k:
                right, false_negative = right + p, false_negative + 1 - p
            elif truth != 255:
                false_positive += p
        if right + false_negative > 0:
            total += 1 - right / (right + alpha * false_positive + beta * false_negative)
    return total / logits.shape[1]


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.3, 0.7), (1.0, 1.0)])
def test_tversky_equals_a_loop_over_pixels_and_smp(alpha: float, beta: float) -> None:
    logits, labels = example()
    found = SegmentationLoss(5, terms="tversky", tversky_alpha=alpha, tversky_beta=beta)(logits, labels).total
    assert found.item() == pytest.approx(naive_tversky(logits, labels, alpha, beta), rel=1e-12)
    expected = smp.losses.TverskyLoss("multiclass", ignore_index=255, alpha=alpha, beta=beta)(logits, labels)
    assert torch.equal(found, expected)
    if alpha == beta == 0.5:
        dice = SegmentationLoss(5, terms="dice", dice_smooth=0)(logits, labels).total
        torch.testing.assert_close(found, dice, rtol=1e-12, atol=0)


def test_absent_classes_count_as_they_do_in_the_docstring() -> None:
    """Tversky and Dice: a term of 0 in the mean over all K; Lovász: no term."""
    logits, labels = example()  # class 4 does not occur
    with_it = SegmentationLoss(5, terms="lovasz+tversky")(logits, labels).parts
    without = logits.detach().clone()
    without[:, 4] = -1e4
    of_five = SegmentationLoss(5, terms="lovasz+tversky")(without, labels).parts
    of_four = SegmentationLoss(4, terms="lovasz+tversky")(without[:, :4], labels).parts
    torch.testing.assert_close(of_five["lovasz"], of_four["lovasz"])
    torch.testing.assert_close(of_five["tversky"], of_four["tversky"] * 4 / 5)
    assert all(value > 0 for value in with_it.values())


def test_class_weights_multiply_the_pixels_of_a_class() -> None:
    logits, labels = example()
    weights = [0.5, 2.0, 0.25, 4.0, 0.0]
    found = SegmentationLoss(5, terms="ce", label_smoothing=0.0, class_weights=weights)(logits, labels).total
    expected = F.cross_entropy(
        logits, labels, torch.tensor(weights, dtype=torch.float64), ignore_index=255, reduction="sum"
    )
    torch.testing.assert_close(found, expected / (labels != 255).sum())
    smoothed = SegmentationLoss(5, terms="ce", label_smoothing=0.2, class_weights=weights)(logits, labels).total
    each = F.cross_entropy(logits, labels, ignore_index=255, label_smoothing=0.2, reduction="none")
    by_hand = sum(weights[k] * each[labels == k].sum() for k in range(5)) / (labels != 255).sum()
    torch.testing.assert_close(smoothed, by_hand)


def test_balanced_weights_give_each_class_the_same_share() -> None:
    counts = [9000, 900, 0, 100]
    weights = balanced_weights(counts)
    shares = [weight * count for weight, count in zip(weights, counts, strict=True)]
    assert shares == pytest.approx([10000 / 3, 10000 / 3, 0, 10000 / 3])
    assert sum(shares) / sum(counts) == pytest.approx(1)  # mean 1 over the pixels
    assert weights[2] == 0


def test_weights_are_not_saved() -> None:
    assert SegmentationLoss(2, terms=ALL, class_weights=[1, 2]).state_dict() == {}


def test_float32_is_near_float64() -> None:
    logits, labels = example()
    loss = SegmentationLoss(5, terms=ALL, class_weights=[1, 2, 3, 4, 5])
    torch.testing.assert_close(
        loss(logits.float(), labels).total.double(), loss(logits, labels).total, rtol=1e-5, atol=0
    )


@pytest.mark.slow
@pytest.mark.parametrize("terms", ["ce+dice", "ce+focal+tversky"])
def test_all_but_lovasz_compile_into_one_graph(terms: str) -> None:
    logits, labels = example(torch.float32)
    loss = SegmentationLoss(5, terms=terms, class_weights=[1, 2, 3, 4, 5])
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, labels).total, loss(logits, labels).total)
    (gradient,) = torch.autograd.grad(compiled(logits, labels).total, logits)
    (expected,) = torch.autograd.grad(loss(logits, labels).total, logits)
    torch.testing.assert_close(gradient, expected)


# Dynamo looks at what reaches the frames around the break.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")
def test_lovasz_stays_outside_a_compiled_graph() -> None:
    logits, labels = example(torch.float32)
    loss = SegmentationLoss(5, terms="ce+lovasz")
    compiled = torch.compile(loss, backend="eager")
    torch.testing.assert_close(compiled(logits, labels).total, loss(logits, labels).total)
