"""Each setting of a training arrives where it acts: in the workbench, its loaders, or the loop that works with it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ctrs.config import (
    AugmentConfig,
    ContrastConfig,
    MultiscaleConfig,
    PneConfig,
    SegmentationConfig,
    SupconConfig,
    TrainConfig,
    parse_loss,
    parse_segmentation,
)
from ctrs.data.dataset import make_loader
from ctrs.data.mixing import CutMix, Mosaic
from ctrs.data.sampling import repeat_factors
from ctrs.models.projection import CellBatchNorm
from ctrs.tiles.manifest import Manifest
from ctrs.training import batch_step, train, trainer, workbench
from ctrs.training.distributed import open_fabric
from ctrs.training.settings import effective_config
from ctrs.training.workbench import Workbench, loader, set_up

CPU = torch.device("cpu")
ALL_TERMS = "cl:0.3+infonce+supcon+cms+ccs+pne"

DEFAULT = TrainConfig(backbone="test_convnext", decoder="unetformer", loss=ALL_TERMS, device="cpu")
"""Default settings, but with each contrast term, whose hyper-parameters have no effect without it."""

OTHER = TrainConfig(
    backbone="test_convnext2",
    decoder="unetformer",
    loss=ALL_TERMS.replace("0.3", "0.7"),
    drop_path=0.3,
    batch_size=2,
    accumulate=2,
    epochs=3,
    learning_rate=1e-3,
    optimizer="sgd",
    weight_decay=0.03,
    momentum=0.8,
    schedule="poly",
    poly_power=0.7,
    warmup_epochs=1,
    encoder_rate=0.5,
    layer_decay=0.6,
    frozen_stages=1,
    frozen_epochs=2,
    ema=0.97,
    gradient_clip=0.125,
    crop=32,
    sampling="repeat-factor",
    repeat_threshold=1.0,
    tile_draws=3,
    label_smoothing=0.2,
    dice_smooth=0.3,
    workers=0,
    cache="none",
    seed=7,
    device="cpu",
    precision="bf16",
    compile=True,
    channels_last=True,
    deterministic=True,
    threads=1,
    log=(),
    segmentation=SegmentationConfig(
        terms="ce+dice+focal:0.5+tversky", focal_gamma=1.5, tversky_alpha=0.3, tversky_beta=0.6,
        class_weights="balanced", auxiliary=0.4,
    ),
    contrast=ContrastConfig(
        stages=(1, 2), num_pairs=100, top=0.4, smoothing=0.2, form="prob", temperature=0.2, variant="author", clip=2.0,
        clip_mode="none", void="allow", average="valid", min_positives=3, min_negatives=4, min_positive_pairs=2,
        projection_dim=16,
    ),
    supcon=SupconConfig(stages=(1, 3), num_patches=32, temperature=0.3, projection_dim=24),
    multiscale=MultiscaleConfig(
        temperature=0.4, stages=(1, 2), stage_weights=(0.5, 0.25), pairs=((1, 3),), pair_weights=(0.5,),
        symmetric=True, max_anchors=256, max_per_class=100, min_views=2, group="image_class", labels="center",
        denominator="all", lonely="zero", norm="ln", hidden_layers=1, projection_dim=40,
    ),
    pne=PneConfig(
        temperature=0.5, max_anchors=50, num_candidates=20, normalize_weights=False, detach=False, resize="bilinear",
        scope="batch", large_sets="skip", norm="ln", projection_dim=48,
    ),
    augment=AugmentConfig(
        flip=False, rotate90=False, scale=(0.5, 2.0), rotate=20.0, brightness=0.3, contrast=0.4, gamma=0.2, noise=0.05,
        blur=1.5, band_shift=0.1, cutmix=0.25, mosaic=0.5,
    ),
)  # fmt: skip
"""Each setting otherwise, as far as they go together on the CPU."""

Probe = Callable[[Workbench], object]


def term(name: str, field: str) -> Probe:
    return lambda work: getattr(work.step.objective.contrast[name], field)


def out_features(name: str, kind: type[nn.Module] = nn.Linear) -> Probe:
    """Width of what a contrast term's last projection puts out."""
    return lambda work: (
        [m for m in work.step.objective.contrast[name].modules() if isinstance(m, kind)][-1].out_features
    )


def norm(name: str) -> Probe:
    return lambda work: (
        "bn" if any(isinstance(m, CellBatchNorm) for m in work.step.objective.contrast[name].modules()) else "ln"
    )


def hidden_layers(work: Workbench) -> int:
    """Projections of the multi-scale head of stage 1 before the last one."""
    head = work.step.objective.contrast["multiscale"].heads["1"]
    return sum(isinstance(module, nn.Linear | nn.Conv2d) for module in head.modules()) - 1


def focal_gamma(work: Workbench) -> float | None:
    terms: Any = work.step.objective.segmentation.by_smp
    return terms["focal"]._by_element.keywords["gamma"] if "focal" in terms else None


def tversky(field: str) -> Probe:
    def found(work: Workbench) -> float | None:
        terms: Any = work.step.objective.segmentation.by_smp
        return getattr(terms["tversky"]._loss, field) if "tversky" in terms else None

    return found


def chain(work: Workbench) -> dict[str, Any]:
    """What training tiles go through, by the name of its class."""
    cut: Any = work.train_set.transform.cut
    found: dict[str, Any] = {}
    for kind in (CutMix, Mosaic):
        if isinstance(cut, kind):
            found[kind.__name__] = cut
            cut = cut.base if isinstance(cut, CutMix) else cut.crop
    found["ZoomCrop"] = cut
    for change in work.train_set.transform.changes:
        found[type(change).__name__] = change
        for step in getattr(getattr(change, "_compose", None), "transforms", ()):
            found[type(step).__name__] = step
    return found


def change(name: str, field: str = "most") -> Probe:
    return lambda work: getattr(chain(work).get(name), field, 0.0)


def first_group(key: str) -> Probe:
    return lambda work: work.optimizer.param_groups[0].get(key)


def repeats(work: Workbench) -> list[float] | None:
    found = work.train_batches.order.repeats
    return None if found is None else found.tolist()


def drop_path(work: Workbench) -> float | None:
    return max((getattr(module, "drop_prob", None) or 0.0 for module in work.step.model.modules()), default=0.0) or None


def scales(work: Workbench) -> set[float]:
    return {group["lr_scale"] for group in work.optimizer.param_groups}


ARRIVES: dict[str, Probe] = {
    "backbone": lambda work: work.step.model.architecture.backbone,
    "loss": lambda work: "+".join(f"{entry.name}:{entry.weight:g}" for entry in work.step.objective.terms),
    "drop_path": drop_path,
    "batch_size": lambda work: work.train_batches.batch_size,
    "accumulate": lambda work: work.train_batches.accumulate,
    "optimizer": lambda work: type(work.optimizer).__name__.lower(),
    "learning_rate": lambda work: work.optimizer.defaults["lr"],
    "weight_decay": lambda work: work.optimizer.defaults["weight_decay"],
    "momentum": lambda work: work.optimizer.defaults.get("momentum"),
    "ema": lambda work: None if work.average is None else work.average.decay,
    "crop": lambda work: chain(work)["ZoomCrop"].crop_px,
    "seed": lambda work: (work.train_set.seed, work.train_batches.order.seed),
    "channels_last": lambda work: (
        work.memory_format == torch.channels_last
        and all(p.is_contiguous(memory_format=torch.channels_last) for p in work.step.parameters() if p.ndim == 4)
    ),
    "label_smoothing": lambda work: work.step.objective.segmentation.label_smoothing,
    "dice_smooth": lambda work: work.step.objective.segmentation.dice_smooth,
    "segmentation.terms": lambda work: work.step.objective.segmentation.terms,
    "segmentation.focal_gamma": focal_gamma,
    "segmentation.tversky_alpha": tversky("alpha"),
    "segmentation.tversky_beta": tversky("beta"),
    "segmentation.class_weights": lambda work: (
        "none" if work.step.objective.segmentation.class_weights is None else "balanced"
    ),
    "segmentation.auxiliary": lambda work: (
        work.step.objective.auxiliary_weight if work.step.objective.auxiliary is not None else 0.0
    ),
    **{
        f"contrast.{field.name}": term("cl", field.name)
        for field in dataclasses.fields(ContrastConfig)
        if field.name != "projection_dim"
    },
    "contrast.projection_dim": out_features("cl"),
    **{f"supcon.{name}": term("supcon", name) for name in ("stages", "num_patches", "temperature")},
    "supcon.projection_dim": out_features("supcon"),
    **{
        f"multiscale.{field.name}": term("multiscale", field.name)
        for field in dataclasses.fields(MultiscaleConfig)
        if field.name not in ("stages", "pairs", "norm", "hidden_layers", "projection_dim")
    },
    "multiscale.stages": term("multiscale", "cms_stages"),
    "multiscale.pairs": term("multiscale", "ccs_pairs"),
    "multiscale.norm": norm("multiscale"),
    "multiscale.hidden_layers": hidden_layers,
    "multiscale.projection_dim": out_features("multiscale"),
    **{
        f"pne.{field.name}": term("pne", field.name)
        for field in dataclasses.fields(PneConfig)
        if field.name not in ("norm", "projection_dim")
    },
    "pne.norm": norm("pne"),
    "pne.projection_dim": out_features("pne"),
    "augment.flip": lambda work: {"HorizontalFlip", "VerticalFlip"} <= set(chain(work)),
    "augment.rotate90": lambda work: "QuarterTurn" in chain(work),
    "augment.scale": lambda work: chain(work)["ZoomCrop"].scale,
    "augment.rotate": lambda work: vars(chain(work)["Turn"]).popitem()[1] if "Turn" in chain(work) else 0.0,
    "augment.brightness": lambda work: chain(work)["BrightnessContrast"].brightness_limit[1],
    "augment.contrast": lambda work: chain(work)["BrightnessContrast"].contrast_limit[1],
    "augment.gamma": change("Gamma"),
    "augment.noise": change("Noise"),
    "augment.blur": change("Blur"),
    "augment.band_shift": change("BandShift"),
    "augment.cutmix": change("CutMix", "share"),
    "augment.mosaic": change("Mosaic", "share"),
}
"""What the workbench holds of a setting, by key."""

HELD_AS: dict[str, Callable[[Any], object]] = {
    "loss": lambda text: "+".join(f"{entry.name}:{entry.weight:g}" for entry in parse_loss(text)),
    "seed": lambda seed: (seed, seed),
    "segmentation.terms": parse_segmentation,
}
"""How a setting is written there, where it is not itself."""

TESTED_BELOW = {
    "decoder", "sampling", "repeat_threshold", "encoder_rate", "layer_decay", "gradient_clip", "weights", "workers",
    "schedule", "poly_power", "warmup_epochs", "frozen_stages", "frozen_epochs", "cache", "device", "precision",
    "compile", "deterministic", "threads", "log", "epochs",
}  # fmt: skip
TESTED_BY_EFFECT = {
    "init",  # test_init.py
    "recipe",  # test_trainer.py: ct-paper resizes
    "auto",  # test_preflight.py, test_tuning.py
    "patience",  # test_engine.py
    "save_minutes",  # test_engine.py
    "contrast_warmup_steps",  # test_trainer.py
    "tile_draws",  # tests/data/test_sampling.py, test_training_tiles.py
    "train_share",  # test_training_tiles.py
    "fold",  # tests/evaluation/test_fold_choice.py
    "devices",  # test_distributed.py
    "num_nodes",  # test_distributed.py
}


def keys_of(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each setting with its key as the TOML file has it."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from keys_of(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, write_prepared: Any) -> Path:
    """Prepared data that no test changes."""
    path: Path = write_prepared(tmp_path_factory.mktemp("data") / "town")
    return path


def uneven(manifest: Manifest) -> Manifest:
    """As if one training tile alone held buildings: the others count as rare."""
    tiles = [
        dataclasses.replace(tile, class_counts=(4096, 0) if number else (3000, 1096))
        for number, tile in enumerate(manifest.tiles)
    ]
    return dataclasses.replace(manifest, tiles=tuple(tiles))


@pytest.fixture(scope="module")
def bench(town: Path) -> Callable[[TrainConfig], Workbench]:
    """Set up what a configuration names."""

    def build(config: TrainConfig) -> Workbench:
        manifest = uneven(Manifest.open(town))
        config = effective_config(config, manifest.tile_px, CPU)
        with open_fabric(config, CPU) as fabric, torch.random.fork_rng():
            return set_up(config, manifest, fabric, pretrained=True)

    return build


@pytest.fixture(scope="module")
def usual(bench: Callable[[TrainConfig], Workbench]) -> Workbench:
    """What default settings make."""
    return bench(DEFAULT)


@pytest.fixture(scope="module")
def other(bench: Callable[[TrainConfig], Workbench]) -> Workbench:
    """What other settings make."""
    with pytest.warns(UserWarning, match="frozen with random weights"):
        return bench(OTHER)


def test_each_setting_has_a_test() -> None:
    keys = {key for key, _ in keys_of(TrainConfig())}
    assert set(ARRIVES) | TESTED_BELOW | TESTED_BY_EFFECT == keys
    usual_values, other_values = dict(keys_of(DEFAULT)), dict(keys_of(OTHER))
    assert [key for key in ARRIVES if usual_values[key] == other_values[key]] == []


@pytest.mark.parametrize("key", ARRIVES)
def test_a_setting_arrives(key: str, usual: Workbench, other: Workbench) -> None:
    wanted = HELD_AS.get(key, lambda value: value)(dict(keys_of(OTHER))[key])
    found = ARRIVES[key](other)
    assert found == pytest.approx(wanted) if isinstance(wanted, float) else found == wanted
    assert ARRIVES[key](usual) != wanted


def test_options_of_cl_are_those_of_infonce(other: Workbench) -> None:
    cl, infonce = (other.step.objective.contrast[name] for name in ("cl", "infonce"))
    assert (cl.kind, infonce.kind) == ("cl", "infonce")
    for field in dataclasses.fields(ContrastConfig):
        if field.name != "projection_dim":
            assert getattr(infonce, field.name) == getattr(cl, field.name)


def test_class_weights_come_from_the_training_tiles(other: Workbench) -> None:
    weights = other.step.objective.segmentation.class_weights
    assert weights is not None
    ground, building = 3000 + 5 * 4096, 1096
    assert (weights[1] / weights[0]).item() == pytest.approx(ground / building)


def test_the_decoder_is_the_one_named(bench: Callable[[TrainConfig], Workbench], usual: Workbench) -> None:
    assert usual.step.model.architecture.decoder == "unetformer"
    fpn = bench(dataclasses.replace(DEFAULT, decoder="fpn", loss="none"))
    assert fpn.step.model.architecture.decoder == "fpn"
    assert type(fpn.step.model.decoder) is not type(usual.step.model.decoder)


@pytest.mark.parametrize(
    ("sampling", "threshold", "largest"),
    [
        ("shuffle", 1.0, None),
        ("repeat-factor", 1.0, 6**0.5),
        ("repeat-factor", 0.5, 3**0.5),
        ("class-balanced", 1.0, 3),
    ],
)
def test_tiles_are_drawn_as_told(
    bench: Callable[[TrainConfig], Workbench], sampling: Any, threshold: float, largest: float | None
) -> None:
    plain = dataclasses.replace(DEFAULT, loss="none", sampling=sampling, repeat_threshold=threshold)
    found = repeats(bench(plain))
    if largest is None:
        assert found is None
        return
    assert found is not None
    assert found[0] == max(found) > found[1]
    if sampling == "repeat-factor":
        counts = [(3000, 1096)] + [(4096, 0)] * 5
        assert found == repeat_factors(counts, threshold).tolist()
        assert found[0] == pytest.approx(largest)
    else:  # the only tile with the rare class, as often as may be
        assert found[0] > largest


def test_rates_of_the_encoder(usual: Workbench, other: Workbench, bench: Callable[[TrainConfig], Workbench]) -> None:
    assert scales(usual) == {1.0}
    assert max(scales(other)) == 1.0
    assert 0.5 in {round(scale / 0.6**k, 9) for scale in scales(other) - {1.0} for k in range(1, 9)}
    assert len(scales(other)) > 3
    half = bench(dataclasses.replace(DEFAULT, loss="none", encoder_rate=0.25))
    assert scales(half) == {1.0, 0.25}


def test_weights_are_those_named_unless_a_saved_state_replaces_them(
    town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    create = workbench.create_model

    def without_download(*args: Any, weights: str, **options: Any) -> Any:
        asked.append(weights)
        return create(*args, weights="none", **options)

    monkeypatch.setattr(workbench, "create_model", without_download)
    manifest = Manifest.open(town)
    config = dataclasses.replace(DEFAULT, loss="none", weights="imagenet")
    config = effective_config(config, manifest.tile_px, CPU)
    with open_fabric(config, CPU) as fabric:
        set_up(config, manifest, fabric, pretrained=True)
        set_up(config, manifest, fabric, pretrained=False)
    assert asked == ["imagenet", "none"]


def test_loaders_have_the_workers_that_are_told(usual: Workbench) -> None:
    made = loader(usual, usual.train_set, usual.train_batches, dataclasses.replace(DEFAULT, workers=2))
    assert (made.num_workers, made.prefetch_factor, made.persistent_workers) == (2, 2, True)
    assert vars(made.dataset)["_dataset"] is usual.train_set  # behind what hands errors over
    assert made.batch_sampler is usual.train_batches
    assert made.worker_init_fn is not None
    assert not made.pin_memory  # nothing is copied to a device
    alone = loader(usual, usual.train_set, usual.train_batches, dataclasses.replace(DEFAULT, workers=0))
    assert (alone.num_workers, alone.prefetch_factor, alone.persistent_workers) == (0, None, False)


def test_batches_for_a_gpu_are_page_locked(usual: Workbench) -> None:
    fabric: Any = SimpleNamespace(device=torch.device("cuda"))
    on_cuda = dataclasses.replace(usual, fabric=fabric)
    assert loader(on_cuda, usual.train_set, usual.train_batches, DEFAULT).pin_memory
    ahead = make_loader(usual.train_set, usual.train_batches, workers=1, pin_memory=False, prefetch_factor=5)
    assert ahead.prefetch_factor == 5


@pytest.mark.parametrize("largest", [0.125, 1e-3])
def test_the_gradient_is_clipped_to_the_norm_that_is_told(usual: Workbench, largest: float) -> None:
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    step = dataclasses.replace(usual, optimizer=torch.optim.SGD([weight], lr=1.0))
    norm_before = batch_step.optimize(step, dataclasses.replace(DEFAULT, gradient_clip=largest))
    assert norm_before.item() == pytest.approx(5.0)
    assert torch.linalg.vector_norm(weight).item() == pytest.approx(largest, rel=1e-4)


def test_the_average_takes_in_each_step(bench: Callable[[TrainConfig], Workbench]) -> None:
    work = bench(dataclasses.replace(DEFAULT, loss="none", ema=0.9))
    assert work.average is not None
    batch_step.optimize(work, DEFAULT)
    assert work.average.num_updates == 1
    assert work.judged is work.average.module


class StopError(Exception):
    """What ends a training once all has been told."""


@pytest.fixture(scope="module")
def told(town: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a training with other settings tells those that it calls, until its first step."""
    found: dict[str, Any] = {}
    patch = pytest.MonkeyPatch()

    def listen(place: Any, name: str, *, through: bool = True) -> None:
        call = getattr(place, name)

        def heard(*args: Any, **options: Any) -> Any:
            found[name] = (args, options)
            return call(*args, **options) if through else args[0]

        patch.setattr(place, name, heard)

    def stop(work: Workbench, *_: Any, **__: Any) -> Any:
        found["work"] = work
        found["rates"] = {group["lr"] / group["lr_scale"] for group in work.optimizer.param_groups}
        found["threads"] = torch.get_num_threads()
        found["deterministic"] = torch.are_deterministic_algorithms_enabled()
        raise StopError

    @contextmanager
    def logs(_: Any, config: TrainConfig, **__: Any) -> Iterator[None]:
        found["logs"] = config
        yield

    with patch.context() as patch:
        for name in ("fill_cache", "resolve_device", "open_fabric", "learning_rate_at", "loader", "freeze"):
            listen(trainer, name)
        listen(torch, "compile", through=False)
        patch.setattr(trainer, "_plan", lambda *_, **__: SimpleNamespace(describe=str))
        patch.setattr(trainer, "RunLogs", logs)
        patch.setattr(batch_step, "accumulate", stop)
        with pytest.raises(StopError), pytest.warns(UserWarning, match="frozen with random weights"):
            train(town, tmp_path_factory.mktemp("runs") / "a", OTHER)
    return found


def test_the_loop_is_told_of_its_settings(told: dict[str, Any]) -> None:
    assert told["fill_cache"][0][1] == "none"
    assert told["fill_cache"][1]["workers"] == 0
    assert told["resolve_device"][0] == ("cpu",)
    assert told["open_fabric"][0][0].precision == "bf16"
    assert told["work"].fabric.strategy.precision.precision == "bf16-mixed"
    assert told["compile"][0][0] is told["work"].step
    assert told["deterministic"]
    assert told["threads"] == 1
    assert told["logs"].log == ()
    assert told["loader"][0][3].workers == 0


def test_the_first_step_has_the_rate_of_the_schedule(told: dict[str, Any]) -> None:
    (step, config), options = told["learning_rate_at"]
    assert (step, config.epochs, config.schedule, config.poly_power) == (0, 3, "poly", 0.7)
    assert options["steps_per_epoch"] == told["work"].train_batches.num_steps
    (rate,) = {round(rate, 12) for rate in told["rates"]}
    assert rate == pytest.approx(1e-3 / options["steps_per_epoch"])  # one epoch of linear rise
    assert told["work"].train_batches.num_steps > 1


def test_frozen_stages_are_frozen_before_the_first_step(told: dict[str, Any]) -> None:
    (_, config, epoch), _ = told["freeze"]
    assert (config.frozen_stages, config.frozen_epochs, epoch) == (1, 2, 0)
    encoder = told["work"].step.model.encoder
    asks = [parameter.requires_grad for parameter in encoder.parameters()]
    assert 0 < sum(asks) < len(asks)


def test_logs_are_those_that_are_named(town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "_plan", lambda *_, **__: SimpleNamespace(describe=str))
    monkeypatch.setattr(batch_step, "accumulate", _stop)
    for names in ((), ("tensorboard",)):
        config = dataclasses.replace(DEFAULT, loss="none", crop=32, batch_size=2, epochs=1, log=names)
        with pytest.raises(StopError):
            train(town, tmp_path / "-".join(("run", *names)), config)
        assert (tmp_path / "-".join(("run", *names)) / "tensorboard").is_dir() == bool(names)


def _stop(*_: Any, **__: Any) -> Any:
    raise StopError


def test_what_takes_minutes_before_the_first_step_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda module: module)
    fabric: Any = SimpleNamespace(device=CPU, is_global_zero=True, world_size=1, setup_module=lambda module: module)
    bench: Any = SimpleNamespace(fabric=fabric, step=nn.Identity(), wrapped=None)
    with caplog.at_level("INFO"):
        Workbench.wrap(bench, TrainConfig())
        assert not caplog.messages
        bench.wrapped = None
        for _ in range(2):
            Workbench.wrap(bench, TrainConfig(compile=True))
        cpp_extension = logging.getLogger("torch.utils.cpp_extension")
        cpp_extension.warning("No CUDA runtime is found")
    assert caplog.messages == ["compiling the network, which takes minutes on a CPU before the first step"]
