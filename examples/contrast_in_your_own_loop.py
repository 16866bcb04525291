"""The CL loss on the features of any network, here a timm ResNet: python examples/contrast_in_your_own_loop.py."""

from __future__ import annotations

import timm
import torch
from torch import nn
from torch.nn import functional as F

from ctrs.losses import ContrastiveTransformerLoss
from ctrs.models import ProjectionHead


def main() -> None:
    torch.manual_seed(0)
    num_classes = 3
    encoder = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4))
    channels = encoder.feature_info.channels()
    classify = nn.Conv2d(channels[0], num_classes, 1)
    contrast = ContrastiveTransformerLoss(
        [ProjectionHead(count) for count in channels], num_classes, clip_mode="rescale"
    )
    parameters = [*encoder.parameters(), *classify.parameters(), *contrast.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)

    # Three classes that differ in colour and lie in vertical stripes; yours come from your loader.
    labels = torch.arange(3).repeat_interleave(64).expand(4, 128, 192)
    colors = torch.tensor([[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8]])
    for step in range(5):
        images = colors[labels].permute(0, 3, 1, 2) + 0.3 * torch.randn(4, 3, 128, 192)
        features = encoder(images)
        logits = F.interpolate(classify(features[0]), size=labels.shape[-2:], mode="bilinear")
        contrast_loss, stats = contrast(features, labels)
        loss = F.cross_entropy(logits, labels) + contrast_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.3f}, contrast {stats.raw.item():.3f}, anchors {stats.anchors.tolist()}")


if __name__ == "__main__":
    main()
