from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from torch import Tensor

from ctrs.config import ContrastConfig
from ctrs.errors import ConfigError
from ctrs.losses import LossTerm, Objective, SegmentationLoss, create_objective, parse_loss
from ctrs.models import ProjectionHead

CHANNELS = (4, 6, 8, 10)


def heads() -> list[ProjectionHead]:
    return [ProjectionHead(c, out_channels=8) for c in CHANNELS]


def batch(height: int = 64, width: int = 96) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (2, height // 16, width // 16), generator=generator)
    labels = labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
    features = [
        torch.randn(2, c, -(-height // r), -(-width // r), generator=generator).requires_grad_()
        for c, r in zip(CHANNELS, (4, 8, 16, 32), strict=True)
    ]
    logits = torch.randn(2, 3, height, width, generator=generator).requires_grad_()
    return logits, features, features[0], labels


def test_parse_loss() -> None:
    assert parse_loss("none") == ()
    assert parse_loss(" cl:0.5 + infonce") == (LossTerm(name="cl", weight=0.5), LossTerm(name="infonce", weight=1.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("triplet", "unknown term 'triplet', expected none, or cl, infonce joined by"),
        ("cl+none", "unknown term 'none'"),
        ("", "unknown term ''"),
        ("cl+cl:2", "'cl' stands twice"),
        ("cl:much", "weight 'much' of 'cl'"),
        ("cl:", "weight '' of 'cl'"),
        ("cl:-1", "weight '-1' of 'cl'"),
        ("cl:inf", "weight 'inf' of 'cl'"),
        ("cl:nan", "weight 'nan' of 'cl'"),
    ],
)
def test_parse_loss_refuses(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_loss(text)


def test_total_is_the_weighted_sum() -> None:
    logits, features, embedding, labels = batch()
    objective = create_objective("cl:0.5+infonce:2", 3, {"cl": heads(), "infonce": heads()})
    keys = objective.draw_keys(features, torch.Generator().manual_seed(1))
    total, parts = objective(logits, features, embedding, labels, keys)
    expected = parts["cross_entropy"] + parts["dice"] + 0.5 * parts["cl"] + 2 * parts["infonce"]
    torch.testing.assert_close(total, expected)
    assert total.requires_grad
    assert not any(part.requires_grad for part in parts.values())
    assert all(part.ndim == 0 for part in parts.values())
    assert {"cl/raw", "cl/clip_active", "cl/anchors_4", "cl/valid_terms_32"} <= parts.keys()
    assert parts["cl/anchors_4"] == 2 * 16 * 24


def test_weight_zero_gives_exactly_the_plain_loss_and_gradient() -> None:
    logits, features, embedding, labels = batch()
    plain = create_objective("none", 3, {})(logits, features, embedding, labels)
    weighted = create_objective("cl:0", 3, {"cl": heads()})(logits, features, embedding, labels)
    assert torch.equal(plain.total, weighted.total)
    (expected,) = torch.autograd.grad(plain.total, logits)
    gradients = torch.autograd.grad(weighted.total, [logits, *features])
    assert torch.equal(gradients[0], expected)
    assert all((gradient == 0).all() for gradient in gradients[1:])
    assert plain.parts.keys() == {"cross_entropy", "dice"}


def test_equal_keys_give_equal_losses_and_other_keys_others() -> None:
    logits, features, embedding, labels = batch()
    objective = create_objective("infonce", 3, {"infonce": heads()}, config=ContrastConfig(num_pairs=10))
    totals = [
        objective(
            logits, features, embedding, labels, objective.draw_keys(features, torch.Generator().manual_seed(seed))
        )
        for seed in (1, 1, 2)
    ]
    assert totals[0].total == totals[1].total
    assert totals[0].parts["infonce/raw"] != totals[2].parts["infonce/raw"]


def test_config_reaches_the_terms() -> None:
    config = ContrastConfig(stages=(0, 2), clip_mode="none", temperature=0.3, variant="author", num_pairs=50)
    objective = create_objective("infonce", 3, {"infonce": heads()[::2]}, config=config, ignore_index=2)
    loss = objective.contrast["infonce"]
    assert (loss.stages, loss.clip_mode, loss.temperature, loss.variant) == ((0, 2), "none", 0.3, "author")
    assert (loss.num_pairs, loss.kind, loss.ignore_index) == (50, "infonce", 2)
    logits, features, embedding, labels = batch()
    parts = objective(logits, features, embedding, labels).parts
    assert "infonce/anchors_16" in parts
    assert "infonce/anchors_8" not in parts


def test_every_setting_reaches_the_terms() -> None:
    changed = ContrastConfig(
        stages=(1, 3), num_pairs=7, top=0.25, smoothing=0.2, form="prob", temperature=0.3, variant="author", clip=2.0,
        clip_mode="none", void="allow", average="valid", min_positives=2, min_negatives=3, min_positive_pairs=4,
        projection_dim=9,
    )  # fmt: skip
    settings, defaults = asdict(changed), asdict(ContrastConfig())
    assert [name for name in settings if settings[name] == defaults[name]] == [], "change every setting in this test"
    loss = create_objective("cl", 3, {"cl": heads()[1::2]}, config=changed).contrast["cl"]
    assert {name: getattr(loss, name) for name in settings if name != "projection_dim"} == {
        name: value for name, value in settings.items() if name != "projection_dim"
    }


def test_command_line_default_keeps_a_gradient_above_the_clip() -> None:
    logits, features, embedding, labels = batch()
    objective = create_objective("cl", 3, {"cl": heads()}, config=ContrastConfig())
    output = objective(logits, features, embedding, labels)
    assert output.parts["cl/clip_active"] == 1
    output.total.backward()
    heads_with_terms = objective.contrast["cl"].heads[:3]  # no window of 32 px is homogeneous
    assert all(p.grad is not None and (p.grad != 0).any() for p in heads_with_terms.parameters())
    assert all(p.grad is not None for p in objective.parameters())


def test_heads_are_owned() -> None:
    objective = create_objective("cl", 3, {"cl": heads()})
    assert sum(p.numel() for p in objective.parameters()) == sum(p.numel() for h in heads() for p in h.parameters())


def test_missing_heads_and_losses_are_refused() -> None:
    with pytest.raises(ConfigError, match="no projection heads given for infonce"):
        create_objective("cl+infonce", 3, {"cl": heads()})
    with pytest.raises(ConfigError, match="has terms cl, but losses for none"):
        Objective(SegmentationLoss(3), parse_loss("cl"))
