"""What moves the weights: optimizers, learning rates over the run and over the network's depth, frozen stages."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch.optim import Optimizer

from ctrs.config import TrainConfig
from ctrs.errors import CtrsWarning
from ctrs.models.encoder_depth import NUM_STAGES, encoder_depth, stage_modules
from ctrs.models.feature_pyramid import PyramidEncoder
from ctrs.training.step import TrainingStep


def create_optimizer(step: TrainingStep, config: TrainConfig) -> Optimizer:
    """Build the optimizer over all parameters of a training step, frozen ones among them.

    Each group has the keys ``lr_scale``, the factor on the run's learning rate that `set_learning_rate` applies, and
    ``name``. AdamW without ``layer_decay`` and ``encoder_rate`` has one group with weight decay on everything.

    - ``encoder_rate`` is a factor for the whole encoder; output norms, decoder, heads and the pyramid of a plain vision
      transformer have fresh weights and keep the full rate.
    - ``layer_decay`` d: a block of the encoder has the factor d^k, where k is 1 for the last block and grows by one
      with each block towards the stem (Bao et al., BEiT, 2021; the factors are those of timm's
      ``param_groups_layer_decay``, whose classifier stands where our decoder does). Both factors multiply.
    - With ``layer_decay`` or ``sgd``, vectors (biases, norms, layer scales) and what the encoder's authors name
      (position embeddings) have no weight decay.

    Args:
        step: Network and objective, on the device where they train.
        config: From ``effective_config``.

    Raises:
        UsageError: The encoder can't be taken apart as ``layer_decay`` or ``frozen_stages`` ask for.
    """
    if config.frozen_stages:
        _check_frozen(step, config)
    rate = _peak(config)
    groups = _parameter_groups(step, config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            groups,
            lr=rate,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
            weight_decay=config.weight_decay,
            fused=True,
        )
    return torch.optim.AdamW(groups, lr=rate, weight_decay=config.weight_decay, fused=True)


def _parameter_groups(step: TrainingStep, config: TrainConfig) -> list[dict[str, Any]]:
    spares_vectors = config.layer_decay is not None or config.optimizer == "sgd"
    if not spares_vectors and config.encoder_rate == 1:
        return [{"params": list(step.parameters()), "lr_scale": 1.0, "name": "all"}]
    model = step.model
    depth = encoder_depth(model.encoder, model.architecture.backbone) if config.layer_decay is not None else None
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in step.named_parameters():
        inner = name.removeprefix("model.encoder.")
        in_encoder = inner != name and not (isinstance(model.encoder, PyramidEncoder) and inner.startswith("pyramid."))
        label, scale, undecayed = "rest", 1.0, False
        if in_encoder:
            label, scale = "encoder", config.encoder_rate
            if depth is not None and config.layer_decay is not None:
                block = depth.block[inner]
                label = f"encoder {block}/{depth.num_blocks}"
                scale *= config.layer_decay ** (depth.num_blocks - block)
                undecayed = inner in depth.undecayed
        options: dict[str, Any] = {"lr_scale": scale}
        if spares_vectors and (undecayed or parameter.ndim <= 1 or name.endswith(".bias")):
            label, options["weight_decay"] = f"{label}, no decay", 0.0
        group = groups.setdefault(label, {"params": [], "name": label, **options})
        group["params"].append(parameter)
    return list(groups.values())


def learning_rate_at(step: int, config: TrainConfig, *, steps_per_epoch: int) -> float:
    """Return the learning rate of a step.

    After a linear rise over ``warmup_epochs``, with t from 0 to 1 over what is left of the run: ``constant``;
    ``cosine``, a half wave down to 0 (Loshchilov and Hutter, SGDR, 2017, without restarts); ``poly``,
    (1 - t)^``poly_power`` (Chen et al., DeepLab, 2017).

    Args:
        step: From 0, over the whole run.
        config: From ``effective_config``.
        steps_per_epoch: Steps in each epoch.
    """
    peak = _peak(config)
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.schedule == "constant":
        return peak
    rest = config.epochs * steps_per_epoch - warmup
    if config.schedule == "poly":
        return peak * math.pow(1 - (step - warmup) / rest, config.poly_power)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / rest))


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give each group the run's learning rate times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def freeze(step: TrainingStep, config: TrainConfig, epoch: int) -> bool:
    """Freeze or thaw the encoder's first stages for an epoch; called after ``step.train()``.

    Frozen parameters ask for no gradient and have none, so that the optimizer leaves them and its state of them alone,
    weight decay too. Frozen modules are in evaluation mode: BatchNorm keeps its statistics, stochastic depth is off (as
    in mmsegmentation's ``_freeze_stages``).

    Args:
        step: Network and objective, in training mode.
        config: What is frozen, and for how long.
        epoch: From 0.

    Returns:
        Whether other parameters than before ask for a gradient: what has looked at them (DistributedDataParallel,
        a compiled graph) must look again.

    Raises:
        UsageError: The encoder can't be taken apart as ``frozen_stages`` asks for.
    """
    model = step.model
    holds = config.frozen_epochs is None or epoch < config.frozen_epochs
    modules = stage_modules(model.encoder, model.architecture.backbone, config.frozen_stages if holds else 0)
    frozen = {parameter for module in modules for parameter in module.parameters(recurse=False)}
    changed = False
    for parameter in step.parameters():
        asks = parameter not in frozen
        changed |= parameter.requires_grad != asks
        parameter.requires_grad_(asks)
        if not asks:
            parameter.grad = None
    for module in modules:
        module.training = False  # not eval(), which would reach children of later stages
    return changed


def _check_frozen(step: TrainingStep, config: TrainConfig) -> None:
    """Refuse what `freeze` could not do, and warn of what makes no sense."""
    model = step.model
    stage_modules(model.encoder, model.architecture.backbone, config.frozen_stages)
    if config.frozen_epochs != 0 and config.weights == "none" and config.init is None:
        what = "all stages" if config.frozen_stages == NUM_STAGES else f"the first {config.frozen_stages} stages"
        warnings.warn(
            CtrsWarning(
                f"{what} of the encoder are frozen with random weights: they learn nothing; "
                "pass --weights imagenet, a file of weights, or --init"
            ),
            stacklevel=3,
        )


def _peak(config: TrainConfig) -> float:
    if config.learning_rate is None:
        raise ValueError("learning_rate is open; pass what effective_config returned")
    return config.learning_rate
