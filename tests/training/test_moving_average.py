from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ctrs.training.moving_average import MovingAverage


def make_module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))


def move(module: nn.Module, steps: int, average: MovingAverage[nn.Sequential]) -> list[torch.Tensor]:
    """Draw new weights ``steps`` times; return those of the first parameter."""
    seen = []
    for _ in range(steps):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
        module(torch.randn(4, 2, 2, 2))  # moves the statistics
        average.update(module)  # type: ignore[arg-type]
        seen.append(next(module.parameters()).detach().clone())
    return seen


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.999])
def test_it_is_the_recursion_with_a_decay_that_rises(decay: float) -> None:
    module = make_module()
    average = MovingAverage(module, decay)
    expected = next(module.parameters()).detach().clone().double()
    for number, weights in enumerate(move(module, 30, average)):
        keep = min(decay, (1 + number) / (10 + number))
        expected = keep * expected + (1 - keep) * weights.double()
    torch.testing.assert_close(next(average.module.parameters()).double(), expected, rtol=1e-5, atol=1e-6)


def test_the_first_weights_are_soon_forgotten() -> None:
    module = make_module()
    average = MovingAverage(module, 0.999)
    with torch.no_grad():
        module[0].weight.fill_(1.0)
    for _ in range(10):
        average.update(module)
    torch.testing.assert_close(average.module[0].weight, torch.ones(3, 2, 1, 1), rtol=1e-4, atol=1e-4)


def test_buffers_are_copied() -> None:
    module = make_module()
    average = MovingAverage(module, 0.9)
    move(module, 3, average)
    for own, other in zip(average.module.buffers(), module.buffers(), strict=True):
        assert torch.equal(own, other)
        assert own is not other
    assert average.module[1].num_batches_tracked == 3


def test_the_average_stands_apart_from_training() -> None:
    module = make_module()
    average = MovingAverage(module, 0.9)
    assert not average.module.training
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    before = copy.deepcopy(module.state_dict())
    average.update(module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_going_on_gives_the_same_bits() -> None:
    module = make_module()
    average = MovingAverage(module, 0.95)
    move(module, 5, average)
    saved = {name: value.clone() for name, value in average.state_dict().items()}
    weights, random = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    move(module, 5, average)

    again = make_module()
    restored = MovingAverage(again, 0.95)
    again.load_state_dict(weights)
    restored.load_state_dict(saved)
    torch.set_rng_state(random)
    move(again, 5, restored)
    assert restored.num_updates == average.num_updates == 10
    for name, value in average.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value), name


def test_a_state_of_another_module_is_refused() -> None:
    average = MovingAverage(make_module(), 0.9)
    with pytest.raises(KeyError):
        average.load_state_dict(make_module().state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        average.load_state_dict({"num_updates": torch.tensor(1)})
