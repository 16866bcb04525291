from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F

from ctrs.errors import ConfigError
from ctrs.losses import SegmentationLoss


def example(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 9, 7, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(0, 4, (3, 9, 7), generator=generator)  # class 4 does not occur
    labels[:, :2] = 255
    return logits.requires_grad_(), labels


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 0.3])
def test_cross_entropy_equals_torch(smoothing: float) -> None:
    logits, labels = example()
    found = SegmentationLoss(5, label_smoothing=smoothing)(logits, labels).cross_entropy
    expected = F.cross_entropy(logits, labels, ignore_index=255, label_smoothing=smoothing)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("smooth", [0.0, 0.05, 1.0])
def test_dice_equals_smp(smooth: float) -> None:
    logits, labels = example()
    found = SegmentationLoss(5, dice_smooth=smooth)(logits, labels).dice
    # smp has (I + s) / (I + FP / 2 + FN / 2 + s): its s counts twice.
    expected = smp.losses.DiceLoss("multiclass", smooth=smooth / 2, ignore_index=255)(logits, labels)
    torch.testing.assert_close(found, expected)


def test_ignored_pixels_have_no_influence_and_no_gradient() -> None:
    logits, labels = example()
    loss = SegmentationLoss(5)
    total = sum(loss(logits, labels))
    (gradient,) = torch.autograd.grad(total, logits)
    assert (gradient[:, :, :2] == 0).all()
    assert (gradient[:, :, 2:] != 0).any()
    changed = logits.detach().clone()
    changed[:, :, :2] += 3
    torch.testing.assert_close(sum(loss(changed, labels)), total)


@pytest.mark.parametrize("void", [255, -1, 5])
def test_labels_outside_the_classes_are_void(void: int) -> None:
    logits, labels = example()
    expected = SegmentationLoss(5)(logits, labels)
    found = SegmentationLoss(5)(logits, torch.where(labels == 255, void, labels))
    assert torch.equal(found.cross_entropy, expected.cross_entropy)
    assert torch.equal(found.dice, expected.dice)


def test_uint8_labels_work() -> None:
    logits, labels = example()
    assert torch.equal(
        sum(SegmentationLoss(5)(logits, labels)), sum(SegmentationLoss(5)(logits, labels.to(torch.uint8)))
    )


def test_a_batch_without_labels_gives_zero_with_a_graph() -> None:
    logits, labels = example()
    total = sum(SegmentationLoss(5)(logits, torch.full_like(labels, 255)))
    assert total == 0
    (gradient,) = torch.autograd.grad(total, logits)
    assert (gradient == 0).all()


def test_half_precision_is_computed_in_float32() -> None:
    logits, labels = example(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = SegmentationLoss(5)(logits.detach().bfloat16(), labels)
    assert found.dice.dtype == torch.float32
    torch.testing.assert_close(sum(found), sum(SegmentationLoss(5)(logits.detach(), labels)), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes .* at least 1, found 0"),
        ({"num_classes": 2, "label_smoothing": 1.0}, "found 1.0 and 0.05"),
        ({"num_classes": 2, "dice_smooth": -1.0}, "found 0.05 and -1.0"),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SegmentationLoss(**options)  # type: ignore[arg-type]
