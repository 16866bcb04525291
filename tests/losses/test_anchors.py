from __future__ import annotations

import torch
from torch import nn

from ctrs.losses.anchors import project_cells
from ctrs.models.projection import NormProjectionHead


def test_projecting_sampled_rows_equals_projecting_everything() -> None:
    features = torch.randn(2, 6, 4, 5, dtype=torch.float64, requires_grad=True)
    cells = torch.tensor([[0, 7, 39], [21, 7, 3]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    for norm in ("bn", "ln"):
        head = NormProjectionHead(6, [5, 7], 4, norm=norm).double()  # type: ignore[arg-type]
        found = project_cells(features, head, cells, valid)
        maps = features if head.dense is None else head.dense(features)
        rows = head(maps.permute(0, 2, 3, 1).reshape(40, -1))
        expected = (rows / rows.norm(dim=1, keepdim=True))[cells]
        torch.testing.assert_close(found[valid], expected[valid])
        assert found.isfinite().all()
        direction = torch.randn(2, 3, 4, dtype=torch.float64)
        torch.testing.assert_close(
            torch.autograd.grad((found * direction)[valid].sum(), features),
            torch.autograd.grad((expected * direction)[valid].sum(), features),
        )


def test_vectors_of_length_zero_have_a_bounded_gradient() -> None:
    features = torch.zeros(1, 6, 2, 2, requires_grad=True)
    found = project_cells(features, nn.Identity(), torch.tensor([[0, 3]]), torch.tensor([[True, True]]))
    assert (found == 0).all()
    found.sum().backward()
    assert features.grad is not None
    assert features.grad.abs().max() <= 1e6


def test_batch_statistics_are_taken_once_though_rows_are_computed_twice() -> None:
    head = NormProjectionHead(6, [5], 4)
    features = torch.randn(2, 6, 4, 5, requires_grad=True)
    project_cells(features, head, torch.tensor([[0, 3]]), torch.tensor([[True, True]])).sum().backward()
    assert head.dense is not None
    assert head.dense[-1].num_batches_tracked == 1
