"""Contrast terms on the features of any network, here a timm ResNet: python examples/contrast_in_your_own_loop.py.

Every loss is a module that owns its projection heads and returns its value, unweighted, and a record of what it did.
"""

from __future__ import annotations

import timm
import torch
from torch import nn
from torch.nn import functional as F

from ctrs.losses import (
    ContrastiveTransformerLoss,
    MultiscaleContrastLoss,
    PositiveNegativeEqualLoss,
    SupervisedContrastLoss,
)
from ctrs.models import NormProjectionHead, ProjectionHead


def main() -> None:
    torch.manual_seed(0)
    num_classes = 3
    encoder = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4))
    channels = encoder.feature_info.channels()
    classify = nn.Conv2d(channels[0], num_classes, 1)

    # Heads without a norm, row by row: CL or InfoNCE (kind="infonce"), and SupCon.
    cl = ContrastiveTransformerLoss([ProjectionHead(count) for count in channels], num_classes, clip_mode="rescale")
    supcon = SupervisedContrastLoss([ProjectionHead(count) for count in channels], num_classes)
    # Heads with batch norm, as in the papers; norm="ln" projects sampled cells only.
    multiscale = MultiscaleContrastLoss(
        [NormProjectionHead(count, (count, 256), norm="bn", order="relu-norm") for count in channels], num_classes
    )
    pne = PositiveNegativeEqualLoss(
        NormProjectionHead(channels[0], (channels[0],), norm="bn", order="norm-relu"), num_classes, embedding_stride=4
    )
    modules = [encoder, classify, cl, supcon, multiscale, pne]
    optimizer = torch.optim.AdamW([p for module in modules for p in module.parameters()], lr=1e-3)

    # Three classes that differ in colour and lie in vertical stripes; yours come from your loader.
    labels = torch.arange(3).repeat_interleave(64).expand(4, 128, 192)
    colors = torch.tensor([[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8]])
    generator = torch.Generator().manual_seed(1)
    for step in range(5):
        images = colors[labels].permute(0, 3, 1, 2) + 0.3 * torch.randn(4, 3, 128, 192)
        features = encoder(images)  # strides 4, 8, 16, 32
        logits = F.interpolate(classify(features[0]), size=labels.shape[-2:], mode="bilinear")

        cl_value, cl_stats = cl(features, labels)
        # Equal keys, equal samples: draw them yourself to repeat a step, or for torch.compile(fullgraph=True).
        supcon_value, _ = supcon(features, labels, supcon.draw_keys(features, generator))
        (cms_value, ccs_value), _ = multiscale(features, labels)
        # The embedding is the decoder's output before the classifier; this network has the finest stage in its place.
        pne_value, pne_stats = pne(features[0], logits, labels)

        loss = F.cross_entropy(logits, labels)
        loss = loss + cl_value + 0.1 * supcon_value + 0.1 * cms_value + 0.1 * ccs_value + 1.3 * pne_value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(
            f"step {step}: loss {loss.item():.3f}, cl {cl_stats.raw.item():.3f} ({cl_stats.anchors.tolist()} anchors), "
            f"supcon {supcon_value.item():.3f}, cms {cms_value.item():.3f}, ccs {ccs_value.item():.3f}, "
            f"pne {pne_value.item():.3f} ({pne_stats.anchors.item()} anchors)"
        )


if __name__ == "__main__":
    main()
