from __future__ import annotations

import torch

from ctrs.models import ProjectionHead


def test_rows_do_not_know_each_other() -> None:
    head = ProjectionHead(6, out_channels=4)
    rows = torch.randn(5, 6)
    torch.testing.assert_close(head(rows)[3], head(rows[3:4])[0])


def test_layers_are_linear_gelu_linear_with_bias() -> None:
    head = ProjectionHead(6, 5, 4)
    state = head.state_dict()
    rows = torch.randn(3, 6)
    hidden = torch.nn.functional.gelu(rows @ state["layers.0.weight"].T + state["layers.0.bias"])
    torch.testing.assert_close(head(rows), hidden @ state["layers.2.weight"].T + state["layers.2.bias"])
    assert sum(p.numel() for p in ProjectionHead(64).parameters()) == 64 * 128 + 128 + 128 * 128 + 128
