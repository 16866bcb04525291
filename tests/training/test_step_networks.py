"""A step of every loss on networks of each kind: dilated stages, a pyramid, a map at each stride."""

from __future__ import annotations

import pytest
import torch

from ctrs.config import TrainConfig
from ctrs.models import create_model
from ctrs.training.step import create_training_step


@pytest.mark.parametrize(
    ("backbone", "decoder"),
    [
        ("resnet10t", "deeplabv3"),
        ("resnet10t", "deeplabv3plus"),
        ("vit_tiny_patch16_224", "unetformer"),
        ("convnext_atto", "unet"),
    ],
)
def test_every_loss_on_every_kind_of_network(backbone: str, decoder: str) -> None:
    loss = "cl+infonce+supcon+cms+ccs+pne"
    model = create_model(backbone, decoder, num_classes=3)
    step = create_training_step(model, TrainConfig(backbone=backbone, decoder=decoder, loss=loss), num_classes=3)
    images = torch.randn(2, 3, 100, 130)  # padded to 128 x 160
    labels = torch.zeros(2, 100, 130, dtype=torch.long)
    labels[:, :50], labels[:, :, 64:] = 1, 2
    total, parts = step(images, labels, step.draw_keys(images, seed=0, epoch=0, step=0))
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in step.parameters())
    assert all(value.isfinite().all() for value in parts.values())
    for term in ("cl", "infonce", "supcon", "cms", "ccs", "pne"):
        assert parts[term].item() > 0, term
