from __future__ import annotations

import pytest
import torch
from torch import nn

from ctrs.errors import ConfigError, UsageError
from ctrs.models import ProjectionHead
from ctrs.models.projection import NormProjectionHead


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


def kinds(module: nn.Module | None) -> list[str]:
    return [type(layer).__name__ for layer in module.modules() if not list(layer.children())] if module else []


def test_batch_norm_layers_run_on_maps_and_the_last_layer_on_rows() -> None:
    cms = NormProjectionHead(6, [6, 8], 4)
    assert kinds(cms.dense) == ["Conv2d", "ReLU", "CellBatchNorm"] * 2
    assert kinds(cms.layers) == ["Linear"]
    pne = NormProjectionHead(6, [6], 4, order="norm-relu")
    assert kinds(pne.dense) == ["Conv2d", "CellBatchNorm", "ReLU"]
    # Two hidden layers without bias, two norms, one layer with bias.
    assert sum(p.numel() for p in cms.parameters()) == 6 * 6 + 6 * 8 + 2 * (6 + 8) + 8 * 4 + 4


def test_layer_norm_heads_need_rows_only() -> None:
    head = NormProjectionHead(6, [6, 8], 4, norm="ln")
    assert head.dense is None
    assert kinds(head) == ["Linear", "ReLU", "LayerNorm"] * 2 + ["Linear"]
    rows = torch.randn(5, 6)
    torch.testing.assert_close(head(rows)[3], head(rows[3:4])[0])


@pytest.mark.parametrize("order", ["relu-norm", "norm-relu"])
def test_hidden_layers_equal_their_formula(order: str) -> None:
    maps = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    head = NormProjectionHead(6, [7], 4, order=order).double()  # type: ignore[arg-type]
    assert head.dense is not None
    linear = torch.einsum("oc,bchw->bohw", head.dense[0].weight[:, :, 0, 0], maps)
    hidden = linear.relu() if order == "relu-norm" else linear
    mean, variance = hidden.mean((0, 2, 3), keepdim=True), hidden.var((0, 2, 3), keepdim=True, correction=0)
    hidden = (hidden - mean) / (variance + 1e-5).sqrt()
    torch.testing.assert_close(head.dense(maps), hidden if order == "relu-norm" else hidden.relu())


@pytest.mark.parametrize("order", ["relu-norm", "norm-relu"])
@pytest.mark.parametrize("norm", ["bn", "ln"])
def test_gradients_are_right_though_relu_works_in_place(order: str, norm: str) -> None:
    head = NormProjectionHead(4, [5, 6], 3, order=order, norm=norm).double()  # type: ignore[arg-type]
    maps = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)

    def run(maps: torch.Tensor) -> torch.Tensor:
        dense = maps if head.dense is None else head.dense(maps)
        return head(dense.permute(0, 2, 3, 1).reshape(12, -1))

    torch.autograd.gradcheck(run, (maps,))


def test_one_cell_is_normalised_by_running_statistics() -> None:
    head = NormProjectionHead(4, [5], 3)
    assert head.dense is not None
    head.dense(torch.randn(2, 4, 6, 6))
    before = {name: value.clone() for name, value in head.named_buffers()}
    one = torch.randn(1, 4, 1, 1)
    in_training = head.dense(one)
    assert all(torch.equal(value, before[name]) for name, value in head.named_buffers())
    torch.testing.assert_close(in_training, head.eval().dense(one))
    in_training.sum().backward()
    assert all(p.grad is not None for p in head.dense.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_channels": []}, "hidden_channels of a projection head is empty"),
        ({"norm": "gn"}, "norm of a projection head must be one of bn, ln, found 'gn'"),
        ({"order": "relu"}, "order of a projection head must be one of relu-norm, norm-relu, found 'relu'"),
    ],
)
def test_heads_that_do_not_exist(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NormProjectionHead(4, **{"hidden_channels": [4], **options})  # type: ignore[arg-type]


def test_rows_of_another_width_are_refused_in_our_words() -> None:
    with pytest.raises(UsageError, match=r"for 4 channels got rows of 5; build one head for each stage"):
        ProjectionHead(4)(torch.zeros(2, 5))
    with pytest.raises(UsageError, match=r"for 4 channels got rows of 5"):
        NormProjectionHead(4, [8], norm="ln")(torch.zeros(2, 5))
    head = NormProjectionHead(4, [8, 6])
    assert head.dense is not None
    with pytest.raises(UsageError, match=r"for 4 channels got a map of 5"):
        head.dense(torch.zeros(2, 5, 3, 3))
    with pytest.raises(UsageError, match=r"for 6 channels got rows of 4"):
        head(torch.zeros(2, 4))
    assert set(head.state_dict()) >= {"dense.0.weight", "dense.2.weight", "layers.weight"}
