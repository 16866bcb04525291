from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctrs.classes import ClassMap, LandClass
from ctrs.config import Precision, SegmentationConfig, TrainConfig
from ctrs.data.dataset import Batch
from ctrs.errors import ConfigError, CtrsWarning, TrainingError, UsageError
from ctrs.evaluation.protocols import score_protocols
from ctrs.losses import SegmentationLoss
from ctrs.losses.objective import ObjectiveOutput
from ctrs.metrics import ConfusionMatrix
from ctrs.models import load_module, save_module
from ctrs.models.segmentation import create_model
from ctrs.training.distributed import open_fabric
from ctrs.training.epoch_meter import EpochMeter
from ctrs.training.expected_time import expected_epoch_seconds
from ctrs.training.step import TrainingStep, create_training_step
from ctrs.training.validation import selection_scores, validate

CPU = torch.device("cpu")


def make_step(loss: str = "cl") -> TrainingStep:
    torch.manual_seed(0)
    model = create_model("test_convnext", "fpn", num_classes=2, in_channels=3)
    return create_training_step(model, TrainConfig(loss=loss), num_classes=2)


def test_keys_are_a_function_of_seed_epoch_and_step() -> None:
    step, images = make_step("cl+infonce"), torch.rand(2, 3, 50, 70)
    keys = step.draw_keys(images, seed=1, epoch=2, step=3)
    assert {name: [len(key) for key in stages] for name, stages in keys.items()} == {
        "cl": [2 * 16 * 24, 2 * 8 * 12, 2 * 4 * 6, 2 * 2 * 3],
        "infonce": [2 * 16 * 24, 2 * 8 * 12, 2 * 4 * 6, 2 * 2 * 3],
    }
    torch.manual_seed(99)
    again = step.draw_keys(images, seed=1, epoch=2, step=3)
    assert all(torch.equal(*pair) for name in keys for pair in zip(keys[name], again[name], strict=True))
    for other in ({"seed": 0}, {"epoch": 0}, {"step": 0}):
        changed = step.draw_keys(images, **{"seed": 1, "epoch": 2, "step": 3, **other})
        assert not torch.equal(changed["cl"][0], keys["cl"][0])
    total, parts = step(images, torch.zeros(2, 50, 70, dtype=torch.long), keys)
    assert total.requires_grad
    assert {"cross_entropy", "dice", "cl", "infonce", "cl/raw", "cl/clip_active"} <= set(parts)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_less_precision_does_not_round_the_keys(
    precision: Precision, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, images = make_step("cl+cms"), torch.rand(2, 3, 64, 64)
    keys = step.draw_keys(images, seed=1, epoch=2, step=3)
    seen: dict[str, Any] = {}

    def objective(logits: torch.Tensor, features: Any, embedding: Any, labels: Any, keys: Any, **_: Any) -> Any:
        seen.update(keys=keys, logits=logits.dtype)
        return ObjectiveOutput(logits.sum(), {})

    monkeypatch.setattr(step.objective, "forward", objective)
    with open_fabric(TrainConfig(loss="cl", precision=precision, threads=1), CPU) as fabric:
        fabric.setup_module(step)(images, torch.zeros(2, 64, 64, dtype=torch.long), keys)
    assert seen["logits"] == dtype
    for name, stages in keys.items():
        assert all(torch.equal(*pair) for pair in zip(seen["keys"][name], stages, strict=True))


def test_heads_belong_to_the_step_and_not_to_the_model() -> None:
    step = make_step("cl:0.5")
    with_heads = sum(parameter.numel() for parameter in step.parameters())
    assert with_heads > sum(parameter.numel() for parameter in step.model.parameters())
    plain = make_step("none")
    assert [name for name, _ in plain.objective.named_parameters()] == []


def supervised(auxiliary: float = 0.4, decoder: str = "unetformer") -> TrainingStep:
    torch.manual_seed(0)
    model = create_model("test_convnext", decoder, num_classes=2, in_channels=3)
    config = TrainConfig(loss="none", segmentation=SegmentationConfig(auxiliary=auxiliary))
    return create_training_step(model, config, num_classes=2)


def test_deep_supervision_adds_the_weighted_loss_of_the_auxiliary_head() -> None:
    step, plain = supervised(), supervised(0.0)
    batch = make_batch()
    images, labels = batch["image"][..., :44], batch["mask"][..., :44]  # padded by the network, cropped again
    torch.manual_seed(1)
    total, parts = step(images, labels, {})
    assert set(parts) == {"cross_entropy", "dice", "auxiliary"}
    torch.testing.assert_close(total, parts["cross_entropy"] + parts["dice"] + 0.4 * parts["auxiliary"])
    torch.manual_seed(1)
    _, without = plain(images, labels, {})
    assert set(without) == {"cross_entropy", "dice"}
    assert torch.equal(without["cross_entropy"], parts["cross_entropy"])  # the network is the same
    total.backward()
    assert all(parameter.grad is not None for parameter in step.parameters())


def test_the_auxiliary_head_learns_from_its_own_logits() -> None:
    step, batch = supervised().train(), make_batch()
    inner = step.model(batch["image"]).inner
    assert inner is not None
    assert step.objective.auxiliary is not None
    step.objective.auxiliary.eval()  # no dropout
    expected = step.objective.segmentation(step.objective.auxiliary(inner)[..., :48, :48], batch["mask"]).total
    output = step.model.eval()(batch["image"])
    parts = step.objective(output.logits, output.features, output.embedding, batch["mask"], {}, inner=inner).parts
    torch.testing.assert_close(parts["auxiliary"], expected.detach())


def test_prediction_knows_nothing_of_deep_supervision(tmp_path: Path) -> None:
    step, plain = supervised(), supervised(0.0)
    assert step.model.state_dict().keys() == plain.model.state_dict().keys()
    assert all(torch.equal(value, plain.model.state_dict()[name]) for name, value in step.model.state_dict().items())
    assert step.model.eval()(make_batch()["image"]).inner is None
    _, parts = step.eval()(make_batch()["image"], make_batch()["mask"], {})
    assert set(parts) == {"cross_entropy", "dice"}
    names = {name for name, _ in step.objective.named_parameters()}
    assert names
    assert all(name.startswith("auxiliary.") for name in names)
    assert step.objective.has_heads
    assert not plain.objective.has_heads
    save_module(tmp_path / "heads.safetensors", step.objective)
    other = supervised()
    with torch.no_grad():
        for parameter in other.objective.parameters():
            parameter.zero_()
    load_module(tmp_path / "heads.safetensors", other.objective)
    assert all(
        torch.equal(value, other.objective.state_dict()[name]) for name, value in step.objective.state_dict().items()
    )


@pytest.mark.parametrize("decoder", ["dcfam", "fpn"])
def test_deep_supervision_of_other_decoders_is_refused(decoder: str) -> None:
    with pytest.raises(UsageError, match=f"auxiliary = 0.4 found, but decoder {decoder} has no auxiliary head; set it"):
        supervised(decoder=decoder)


def test_balanced_class_weights_come_from_the_training_pixels() -> None:
    model = create_model("test_convnext", "fpn", num_classes=2, in_channels=3)
    config = TrainConfig(loss="none", segmentation=SegmentationConfig(terms="ce+focal", class_weights="balanced"))
    step = create_training_step(model, config, num_classes=2, class_counts=(90, 10))
    weights = step.objective.segmentation.class_weights
    assert weights is not None
    assert weights.tolist() == pytest.approx([100 / 180, 5.0])
    with pytest.raises(ConfigError, match="class_weights = 'balanced' needs the training pixels of each class"):
        create_training_step(model, config, num_classes=2)


def test_terms_of_the_segmentation_loss_reach_the_step() -> None:
    model = create_model("test_convnext", "fpn", num_classes=2, in_channels=3)
    segmentation = SegmentationConfig(terms="focal+tversky:0.5", focal_gamma=1.0, tversky_alpha=0.2, tversky_beta=0.8)
    step = create_training_step(model, TrainConfig(loss="none", segmentation=segmentation), num_classes=2)
    batch = make_batch()
    logits = step.model.eval()(batch["image"]).logits
    total, parts = step(batch["image"], batch["mask"], {})
    torch.testing.assert_close(total, parts["focal"] + 0.5 * parts["tversky"])
    expected = SegmentationLoss(
        2, terms="focal+tversky:0.5", focal_gamma=1.0, tversky_alpha=0.2, tversky_beta=0.8
    )(logits, batch["mask"])  # fmt: skip
    assert torch.equal(total, expected.total)


def test_unknown_losses_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown term 'magic'"):
        make_step("magic")


def test_pne_on_a_coarse_embedding_is_warned_of() -> None:
    model = create_model("test_convnext", "pspnet", num_classes=2, in_channels=3)
    with pytest.warns(CtrsWarning, match="decoder pspnet puts out stride 32: pne contrasts single cells"):
        create_training_step(model, TrainConfig(loss="pne"), num_classes=2)


def make_batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, 2, (2, 48, 48), generator=generator)
    mask[:, :4] = 255
    return {"image": torch.rand(2, 3, 48, 48, generator=generator), "mask": mask}


def test_validation_counts_like_a_naive_loop_and_restores_the_mode() -> None:
    model = make_step().model.train()
    batches = [make_batch(0), make_batch(1)]
    matrix = validate(model, batches, 2, device=CPU, autocast=torch.autocast("cpu", enabled=False))
    assert model.training
    expected = np.zeros((2, 3), np.int64)
    model.eval()
    for batch in batches:
        predicted = model(batch["image"]).logits.argmax(1)
        for truth, pred in zip(batch["mask"].flatten().tolist(), predicted.flatten().tolist(), strict=True):
            if truth != 255:
                expected[truth, pred] += 1
    np.testing.assert_array_equal(matrix.counts, expected)


def table(*scored: bool) -> ClassMap:
    names = ("a", "b", "clutter")
    return ClassMap(
        classes=tuple(
            LandClass(value=index, name=names[index], color=(index, 0, 0), scored=counts)
            for index, counts in enumerate(scored)
        )
    )


def test_selection_leaves_out_pixels_whose_truth_is_not_scored() -> None:
    counts = np.array([[60, 10, 5], [8, 30, 2], [4, 6, 10]])
    scores = selection_scores(ConfusionMatrix.from_counts(counts), table(True, True, False))
    assert scores == {
        "mean_iou": pytest.approx((60 / 83 + 30 / 50) / 2), "overall_accuracy": pytest.approx(90 / 115),
        "iou a": pytest.approx(60 / 83), "iou b": pytest.approx(30 / 50), "iou clutter": pytest.approx(10 / 27),
    }  # fmt: skip


@pytest.mark.parametrize("scored", [(True, True, False), (True, True, True), (False, False, False)])
def test_selection_goes_by_the_headline_of_eval(scored: tuple[bool, ...]) -> None:
    matrix = ConfusionMatrix.from_counts(np.random.default_rng(0).integers(0, 99, (3, 4)))
    headline = score_protocols({"strict": matrix}, table(*scored))[0]
    scores = selection_scores(matrix, table(*scored))
    assert (scores["mean_iou"], scores["overall_accuracy"]) == (headline.mean_iou, headline.overall_accuracy)


def add(meter: EpochMeter, total: float, norm: float = 1.0) -> None:
    meter.add(
        torch.tensor(total), {"dice": torch.tensor(total / 2)}, torch.tensor(norm), num_images=4, learning_rate=0.25
    )


def test_meter_means_and_speed() -> None:
    meter = EpochMeter(1, device=CPU)
    for _ in meter.timed([make_batch(), make_batch()]):
        add(meter, 1.0)
    add(meter, 4.0, 4.0)
    assert meter.finish() == {"total": 2.0, "grad_norm": 2.0, "dice": 1.0}
    assert meter.images_per_second > 0
    assert 0 < meter.data_wait < 1


@pytest.mark.parametrize(
    ("total", "norm", "words"), [(math.nan, 1.0, "loss is nan"), (1.0, math.inf, "gradient's norm is inf")]
)
def test_values_that_are_not_finite_are_named_with_epoch_and_step(total: float, norm: float, words: str) -> None:
    meter = EpochMeter(7, device=CPU)
    add(meter, 1.0)
    with pytest.raises(TrainingError, match=rf"epoch 7, step 2: the {words} at learning rate 0\.25; .*--learning-rate"):
        add(meter, total, norm)


def test_on_a_gpu_values_are_checked_now_and_then_and_at_the_end() -> None:
    meter = EpochMeter(1, device=torch.device("cuda", 0))
    for number in range(30):
        add(meter, math.nan if number == 24 else 1.0)
    with pytest.raises(TrainingError, match="epoch 1, step 25"):
        meter.finish()


def test_timing_leaves_no_trace() -> None:
    step = make_step()
    step.register_buffer("counter", torch.zeros(1))

    class Tiles:
        def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
            torch.rand(3)
            return {"image": torch.rand(3, 32, 32), "mask": torch.zeros(32, 32, dtype=torch.long)}

    def train_step(batch: Any) -> torch.Tensor:
        step.counter += 1
        step.model.encoder(torch.nn.functional.dropout(batch["image"]))[0].sum().backward()
        return torch.zeros(())

    weights = {name: value.clone() for name, value in step.state_dict().items()}
    before = torch.get_rng_state()
    tiles: Any = Tiles()
    batches: Any = [[(0, 0), (0, 1)]] * 10
    seconds = expected_epoch_seconds(
        step, train_step=train_step, val_step=train_step, train=(tiles, batches), val=(tiles, batches), workers=0
    )
    assert seconds > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in step.state_dict().items())
    assert all(parameter.grad is None for parameter in step.parameters())
