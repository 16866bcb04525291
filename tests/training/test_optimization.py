from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, PolynomialLR

from ctrs.config import TrainConfig
from ctrs.errors import CtrsWarning, UsageError
from ctrs.models.segmentation import create_model
from ctrs.training.optimization import create_optimizer, freeze, learning_rate_at, set_learning_rate
from ctrs.training.step import TrainingStep, create_training_step

RANDOM_WEIGHTS = "ignore:.* of the encoder are frozen with random weights"


def make_step(backbone: str = "test_convnext", decoder: str = "fpn") -> TrainingStep:
    torch.manual_seed(0)
    model = create_model(backbone, decoder, num_classes=2, in_channels=3, drop_path=0.0)
    return create_training_step(model, TrainConfig(loss="none"), num_classes=2)


def settings(**options: Any) -> TrainConfig:
    return TrainConfig(**{"learning_rate": 0.1, "device": "cpu", **options})


def groups_of(step: TrainingStep, config: TrainConfig) -> dict[str, dict[str, Any]]:
    return {group["name"]: group for group in create_optimizer(step, config).param_groups}


def by_parameter(step: TrainingStep, config: TrainConfig, key: str) -> dict[str, float]:
    names = {parameter: name for name, parameter in step.named_parameters()}
    optimizer = create_optimizer(step, config)
    found = {names[parameter]: group[key] for group in optimizer.param_groups for parameter in group["params"]}
    assert set(found) == set(names.values())  # each parameter once
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    return found


def test_the_default_is_one_group_of_adamw() -> None:
    step = make_step()
    optimizer = create_optimizer(step, settings(weight_decay=0.02))
    assert type(optimizer) is torch.optim.AdamW
    (group,) = optimizer.param_groups
    assert list(map(id, group["params"])) == list(map(id, step.parameters()))
    assert (group["name"], group["lr_scale"], group["weight_decay"]) == ("all", 1.0, 0.02)


def test_the_encoder_may_have_a_rate_of_its_own() -> None:
    step = make_step()
    scales = by_parameter(step, settings(encoder_rate=0.1), "lr_scale")
    assert all(scales[name] == (0.1 if name.startswith("model.encoder.") else 1.0) for name in scales)
    assert set(by_parameter(step, settings(encoder_rate=0.1), "weight_decay").values()) == {0.01}
    optimizer = create_optimizer(step, settings(encoder_rate=0.1))
    set_learning_rate(optimizer, 0.5)
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {"encoder": 0.05, "rest": 0.5}


def test_the_pyramid_of_a_plain_transformer_keeps_the_full_rate() -> None:
    scales = by_parameter(make_step("test_vit"), settings(encoder_rate=0.1), "lr_scale")
    assert scales["model.encoder.trunk.model.blocks.0.norm1.weight"] == 0.1
    assert {scales[name] for name in scales if name.startswith("model.encoder.pyramid.")} == {1.0}


def test_layer_decay_by_hand() -> None:
    """test_convnext: a stem and 9 blocks; the last block has the decay once."""
    step = make_step()
    scales = by_parameter(step, settings(layer_decay=0.5, encoder_rate=0.25), "lr_scale")
    encoder = "model.encoder."
    assert scales[encoder + "stages_3.blocks.1.conv_dw.weight"] == 0.25 * 0.5
    assert scales[encoder + "stages_3.blocks.0.conv_dw.weight"] == 0.25 * 0.5**2
    assert scales[encoder + "stages_2.blocks.3.norm.bias"] == 0.25 * 0.5**3
    assert scales[encoder + "stages_0.blocks.0.conv_dw.weight"] == 0.25 * 0.5**9
    assert scales[encoder + "stem_0.weight"] == 0.25 * 0.5**10
    assert {scales[name] for name in scales if not name.startswith(encoder)} == {1.0}


@pytest.mark.parametrize("backbone", ["test_convnext", "test_vit"])
def test_layer_decay_equals_timm(backbone: str) -> None:
    step = make_step(backbone)
    whole = timm.create_model(backbone, num_classes=2)
    names = {parameter: name for name, parameter in whole.named_parameters()}
    groups = param_groups_layer_decay(whole, 0.03, no_weight_decay_list=_undecayed(whole), layer_decay=0.7)
    expected = {
        names[parameter].replace(".", "_"): (group["lr_scale"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    config = settings(layer_decay=0.7, weight_decay=0.03)
    scales, decays = by_parameter(step, config, "lr_scale"), by_parameter(step, config, "weight_decay")
    compared = 0
    for name in scales:
        inner = name.removeprefix("model.encoder.").removeprefix("trunk.model.").replace(".", "_")
        if inner in expected and name.startswith("model.encoder."):
            assert (scales[name], decays[name]) == (pytest.approx(expected[inner][0], rel=1e-12), expected[inner][1])
            compared += 1
    assert compared == sum("head" not in name and "fc_norm" not in name for name in expected)


def _undecayed(model: nn.Module) -> set[str]:
    return set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()  # type: ignore[operator]


@pytest.mark.parametrize("options", [{"layer_decay": 0.9}, {"optimizer": "sgd"}])
def test_biases_and_norms_have_no_decay(options: dict[str, Any]) -> None:
    step = make_step(decoder="unetformer")
    decays = by_parameter(step, settings(**options), "weight_decay")
    shapes = {name: parameter.ndim for name, parameter in step.named_parameters()}
    for name, decay in decays.items():
        assert decay == (0.0 if shapes[name] <= 1 or name.endswith(".bias") else 0.01), name
    assert set(decays.values()) == {0.0, 0.01}


def loss_at(step: TrainingStep, number: int) -> Tensor:
    """Loss of the batch of a step; dropout is the same too."""
    torch.manual_seed(number)
    images, labels = torch.randn(2, 3, 32, 32), torch.randint(0, 2, (2, 32, 32))
    total: Tensor = step(images, labels, {})[0]
    return total


def train(
    step: TrainingStep, optimizer: Optimizer, config: TrainConfig, steps: range, *, freezing: bool = False
) -> TrainingStep:
    """Take steps of which five make an epoch."""
    for number in steps:
        if freezing and number % 5 == 0:
            step.train()
            freeze(step, config, number // 5)
        set_learning_rate(optimizer, learning_rate_at(number, config, steps_per_epoch=5))
        loss_at(step, number).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return step


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_torchs_with_nesterov_momentum_and_a_poly_schedule(momentum: float) -> None:
    config = settings(optimizer="sgd", schedule="poly", epochs=2, momentum=momentum, weight_decay=0.0)
    step = make_step()
    other = copy.deepcopy(step)
    train(step, create_optimizer(step, config), config, range(6))
    reference = torch.optim.SGD(other.parameters(), lr=0.1, momentum=momentum, nesterov=momentum > 0)
    schedule = PolynomialLR(reference, total_iters=10, power=0.9)
    for number in range(6):
        loss_at(other, number).backward()
        reference.step()
        schedule.step()
        reference.zero_grad()
    for name, value in other.state_dict().items():
        torch.testing.assert_close(step.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_constant_schedule() -> None:
    config = settings(epochs=4)
    assert {learning_rate_at(step, config, steps_per_epoch=5) for step in range(20)} == {0.1}


def torchs_rates(schedule: Callable[[Optimizer], Any], steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    following, rates = schedule(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        following.step()
    return rates


@pytest.mark.parametrize("warmup", [0, 1])
@pytest.mark.parametrize("power", [0.9, 2.0])
def test_poly_schedule_is_torchs(power: float, warmup: int) -> None:
    config = settings(epochs=4, schedule="poly", poly_power=power, warmup_epochs=warmup)
    rates = [learning_rate_at(step, config, steps_per_epoch=5) for step in range(5 * warmup, 20)]
    expected = torchs_rates(lambda o: PolynomialLR(o, total_iters=len(rates), power=power), len(rates))
    assert rates == pytest.approx(expected, rel=1e-9)
    assert rates[-1] > 0


def test_cosine_schedule_is_torchs_after_a_linear_rise() -> None:
    config = settings(epochs=4, schedule="cosine", warmup_epochs=1)
    rates = [learning_rate_at(step, config, steps_per_epoch=5) for step in range(20)]
    assert rates[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert rates[5:] == pytest.approx(torchs_rates(lambda o: CosineAnnealingLR(o, T_max=15), 15), rel=1e-9)
    assert rates[12] == pytest.approx(0.05 * (1 + math.cos(math.pi * 7 / 15)))
    assert 0 < rates[-1] < 0.002


def test_an_open_learning_rate_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="pass what effective_config returned"):
        learning_rate_at(0, TrainConfig(), steps_per_epoch=1)


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in after.items() if not torch.equal(before[name], value)}


@pytest.mark.filterwarnings(RANDOM_WEIGHTS)
def test_frozen_stages_stay_to_the_bit_and_the_rest_moves() -> None:
    step, config = (
        make_step("resnet18"),
        settings(frozen_stages=2, weight_decay=0.1, optimizer="sgd", learning_rate=1e-2),
    )
    before = state_of(step.model)
    train(step, create_optimizer(step, config), config, range(2), freezing=True)
    changed = moved(before, state_of(step.model))
    frozen = ("encoder.conv1", "encoder.bn1", "encoder.layer1", "encoder.layer2")  # BatchNorm's statistics among them
    assert not {name for name in changed if name.startswith(frozen)}
    assert {"encoder.layer3.0.bn1.running_mean", "encoder.layer3.0.conv1.weight"} <= changed
    assert any(name.startswith("head.") for name in changed)
    assert step.training
    assert step.model.encoder.layer3.training  # type: ignore[union-attr]
    assert not step.model.encoder.layer2[0].bn1.training  # type: ignore[index, union-attr]


@pytest.mark.filterwarnings(RANDOM_WEIGHTS)
def test_all_stages_frozen_leave_output_norms_and_decoder() -> None:
    step, config = make_step(), settings(frozen_stages=4)
    loss_at(step, 0).backward()  # of a trial step, say
    assert freeze(step, config, 0)
    assert all((parameter.grad is None) != parameter.requires_grad for parameter in step.parameters())
    trained = {name for name, parameter in step.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in step.named_parameters() if not name.startswith("model.encoder.")}
    assert not freeze(step, config, 1)


@pytest.mark.filterwarnings(RANDOM_WEIGHTS)
def test_frozen_epochs_end() -> None:
    step, config = make_step(), settings(frozen_stages=1, frozen_epochs=2)
    assert freeze(step.train(), config, 0)
    assert not step.model.encoder.stages_0.training  # type: ignore[union-attr]
    assert not freeze(step.train(), config, 1)
    assert freeze(step.train(), config, 2)
    assert all(parameter.requires_grad for parameter in step.parameters())
    assert all(module.training for module in step.modules())
    assert not freeze(step.train(), config, 3)


def test_nothing_is_frozen_by_default() -> None:
    step = make_step()
    assert not freeze(step, settings(), 0)
    assert not freeze(step, settings(frozen_stages=3, frozen_epochs=0), 0)


@pytest.mark.filterwarnings(RANDOM_WEIGHTS)
@pytest.mark.parametrize(("name", "cut"), [("adamw", 3), ("sgd", 7)])
def test_going_on_in_and_after_the_frozen_epochs_gives_the_same_bits(name: str, cut: int) -> None:
    """Frozen in steps 0 to 4, thawed from step 5 on: the optimizer has no state of frozen parameters."""
    config = settings(
        optimizer=name, learning_rate=1e-3, layer_decay=0.8, frozen_stages=2, frozen_epochs=1, epochs=2,
        schedule="poly",
    )  # fmt: skip
    step = make_step()
    expected = train(step, create_optimizer(step, config), config, range(10), freezing=True)

    first = make_step()
    optimizer = create_optimizer(first, config)
    train(first, optimizer, config, range(cut), freezing=True)
    with_state = {parameter for parameter, state in optimizer.state.items() if state}
    stem = next(first.model.encoder.parameters())
    assert (stem in with_state) == (cut > 5)

    again = make_step()
    again.load_state_dict(first.state_dict())
    other = create_optimizer(again, config)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again.train()
    freeze(again, config, cut // 5)
    train(again, other, config, range(cut, 10), freezing=True)
    assert not moved(state_of(expected), state_of(again))


def test_frozen_random_weights_are_warned_of() -> None:
    step = make_step()
    with pytest.warns(CtrsWarning, match="the first 2 stages of the encoder are frozen with random weights"):
        create_optimizer(step, settings(frozen_stages=2))
    with pytest.warns(CtrsWarning, match="all stages of the encoder are frozen"):
        create_optimizer(step, settings(frozen_stages=4))
    create_optimizer(step, settings(frozen_stages=4, weights="imagenet"))
    create_optimizer(step, settings(frozen_stages=4, frozen_epochs=0))


def test_stages_that_cannot_be_frozen_are_refused() -> None:
    step = make_step()
    step.model.architecture = dataclasses.replace(step.model.architecture, backbone="odd")
    step.model.encoder = nn.Sequential(step.model.encoder)
    with pytest.raises(UsageError, match="frozen_stages = 2 found, but the stages of backbone 'odd' do not stand"):
        create_optimizer(step, settings(frozen_stages=2, weights="imagenet"))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_optimizers_are_fused(name: str) -> None:
    optimizer = create_optimizer(make_step(), settings(optimizer=name, layer_decay=0.9))
    assert all(group["fused"] for group in optimizer.param_groups)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_fused_optimizers_step_on_cuda(name: str) -> None:
    step = make_step().cuda()
    before = [parameter.detach().clone() for parameter in step.parameters()]
    optimizer = create_optimizer(step, settings(optimizer=name, layer_decay=0.9))
    for parameter in step.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = [not torch.equal(old, new) for old, new in zip(before, step.parameters(), strict=True)]
    assert all(moved)
