from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Literal

import pytest
import torch
from torch import Tensor

from ctrs.config import (
    ContrastConfig,
    LossTerm,
    MultiscaleConfig,
    PneConfig,
    SegmentationConfig,
    SupconConfig,
    parse_loss,
)
from ctrs.errors import ConfigError
from ctrs.losses import Objective, SegmentationLoss, create_objective
from ctrs.losses.objective import Heads, head_stages
from ctrs.models.projection import NormProjectionHead, ProjectionHead

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


def all_heads(
    loss: str = "cms+ccs", norm: Literal["bn", "ln"] = "bn", multiscale: MultiscaleConfig | None = None
) -> dict[str, Heads]:
    """Heads of every contrast module, those of multiscale for the terms of ``loss``."""
    by_stage = {
        stage: NormProjectionHead(CHANNELS[stage], (CHANNELS[stage], 8), 8, norm=norm, order="relu-norm")
        for stage in head_stages(parse_loss(loss), multiscale or MultiscaleConfig())
    }
    pne = NormProjectionHead(CHANNELS[0], (CHANNELS[0],), out_channels=8, norm=norm, order="norm-relu")
    return {"cl": heads(), "infonce": heads(), "supcon": heads(), "multiscale": by_stage, "pne": pne}


def test_parse_loss() -> None:
    assert parse_loss("none") == ()
    assert parse_loss(" cl:0.5 + infonce") == (LossTerm(name="cl", weight=0.5), LossTerm(name="infonce", weight=1.0))
    assert parse_loss("cms+ccs+pne+supcon") == tuple(
        LossTerm(name=name, weight=weight)
        for name, weight in (("cms", 0.1), ("ccs", 0.1), ("pne", 1.3), ("supcon", 0.1))
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("triplet", "unknown term 'triplet', expected none, or cl, infonce, supcon, cms, ccs, pne joined by"),
        ("cl+none", "none stands alone"),
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


TERMS = ("cl", "infonce", "supcon", "cms", "ccs", "pne")


@pytest.mark.parametrize("loss", ["cl:0.5+infonce:2", "cms+ccs:0.3", "ccs", "cl:0.5+pne:1.3", "+".join(TERMS)])
def test_total_is_the_weighted_sum(loss: str) -> None:
    logits, features, embedding, labels = batch()
    objective = create_objective(loss, 3, all_heads(loss))
    keys = objective.draw_keys(features, embedding, torch.Generator().manual_seed(1))
    total, parts = objective(logits, features, embedding, labels, keys)
    expected = parts["cross_entropy"] + parts["dice"] + sum(t.weight * parts[t.name] for t in parse_loss(loss))
    torch.testing.assert_close(total, expected)
    assert all(parts[term.name] > 0 for term in parse_loss(loss))
    assert total.requires_grad
    assert not any(part.requires_grad for part in parts.values())
    assert all(part.ndim == 0 for part in parts.values())


def test_parts_tell_whether_each_term_is_alive() -> None:
    logits, features, embedding, labels = batch()
    parts = create_objective("+".join(TERMS), 3, all_heads())(logits, features, embedding, labels).parts
    assert {"cl/raw", "cl/clip_active", "cl/valid_terms_32", "cms/K_4", "cms/anchors_32", "pne/anchors"} <= parts.keys()
    counts = labels[:, ::4, ::4].flatten().bincount()
    assert parts["cl/anchors_4"] == counts.sum() == 2 * 16 * 24
    assert parts["supcon/anchors_4"] == counts.clamp_max(256).sum()
    assert parts["pne/anchors"] == 2 * 199
    assert parts["cms/anchors_4"] == 3 * parts["cms/K_4"] > 0
    assert all(any(name.startswith(f"{term}/") for name in parts) for term in TERMS)


def test_cms_and_ccs_share_heads_and_anchors() -> None:
    """Together they are what they are apart, on the same keys."""
    logits, features, embedding, labels = batch()
    of = all_heads()
    both = create_objective("cms+ccs", 3, of)
    keys = both.draw_keys(features, embedding, torch.Generator().manual_seed(3))
    parts = both(logits, features, embedding, labels, keys).parts
    assert len(both.contrast) == 1
    apart = create_objective("cms", 3, of)(logits, features, embedding, labels, keys).parts
    assert parts["cms"] == apart["cms"]
    assert {"ccs", "ccs/anchors_4_32"} <= parts.keys() - apart.keys()


@pytest.mark.parametrize("loss", ["none", "cl", "+".join(TERMS)])
def test_scale_zero_lets_contrast_wait(loss: str) -> None:
    logits, features, embedding, labels = batch()
    objective = create_objective(loss, 3, all_heads())
    output = objective(logits, features, embedding, labels, contrast_scale=0.0)
    plain = create_objective("none", 3, {})(logits, features, embedding, labels)
    assert torch.equal(output.total, plain.total)
    output.total.backward()
    assert all(p.grad is not None and (p.grad == 0).all() for p in objective.parameters())


DEGENERATE = {
    "all void": lambda labels: labels * 0 + 255,
    "one class": lambda labels: labels * 0,
    "absent class": lambda labels: labels.clamp_max(1),
    "one patch": lambda labels: torch.where(torch.arange(96) < 4, 1, 255).expand_as(labels).clone(),
    "void beside one class": lambda labels: torch.where(labels == 0, 0, 255),
    "specks": lambda labels: torch.randint(0, 3, labels.shape),
    "values out of range": lambda labels: labels - 7,
}


@pytest.mark.parametrize("zero", [False, True], ids=["features", "zero features"])
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("norm", ["bn", "ln"])
def test_any_batch_gives_a_finite_total_and_reaches_every_head(
    norm: Literal["bn", "ln"], case: str, zero: bool
) -> None:
    logits, features, embedding, labels = batch()
    if zero:
        features = [(feature.detach() * 0).requires_grad_() for feature in features]
        embedding = features[0]
    objective = create_objective("+".join(TERMS), 3, all_heads(norm=norm))
    total, parts = objective(logits, features, embedding, DEGENERATE[case](labels))
    total.backward()
    assert total.isfinite()
    assert all(part.isfinite() for part in parts.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [logits, *features, *objective.parameters()])
    if case in ("all void", "values out of range"):
        assert total == 0


@pytest.mark.parametrize(("right", "anchors"), [(True, 0), (False, 0)], ids=["nothing wrong", "nothing right"])
def test_pne_without_errors_or_without_anything_right(right: bool, anchors: int) -> None:
    _, features, embedding, labels = batch()
    shown = labels if right else (labels + 1) % 3
    logits = (torch.nn.functional.one_hot(shown, 3).movedim(-1, 1) * 9.0).requires_grad_()
    objective = create_objective("pne", 3, all_heads())
    output = objective(logits, features, embedding, labels)
    assert (output.parts["pne"], output.parts["pne/anchors"]) == (0, anchors)
    output.total.backward()
    assert embedding.grad is not None
    assert (embedding.grad == 0).all()
    assert all(p.grad is not None for p in objective.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_keeps_all_terms_finite(dtype: torch.dtype) -> None:
    logits, features, embedding, labels = batch()
    objective = create_objective("+".join(TERMS), 3, all_heads())
    keys = objective.draw_keys(features, embedding, torch.Generator().manual_seed(1))
    exact = objective(logits, features, embedding, labels, keys).parts
    with torch.autocast("cpu", dtype=dtype):
        total, parts = objective(logits.to(dtype), [f.to(dtype) for f in features], embedding.to(dtype), labels, keys)
    total.backward()
    assert total.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())
    for term in TERMS:
        torch.testing.assert_close(parts[term], exact[term], rtol=0.05, atol=0.02, check_dtype=False)


def test_input_of_500_pixels() -> None:
    labels = torch.arange(3).repeat_interleave(170)[:500].expand(1, 500, 500)
    sizes = (125, 63, 32, 16)
    features = [torch.randn(1, c, n, n).requires_grad_() for c, n in zip(CHANNELS, sizes, strict=True)]
    logits = torch.randn(1, 3, 500, 500, requires_grad=True)
    total, parts = create_objective("+".join(TERMS), 3, all_heads())(logits, features, features[0], labels)
    total.backward()
    assert total.isfinite()
    assert all(parts[f"{term}/anchors_32"] > 0 for term in ("supcon", "cms"))


def test_no_term_waits_for_the_device(no_host_sync: Callable[[], AbstractContextManager[None]]) -> None:
    logits, features, embedding, labels = batch()
    objective = create_objective("+".join(TERMS), 3, all_heads())
    keys = objective.draw_keys(features, embedding)
    with no_host_sync():
        total, _ = objective(logits, features, embedding, labels, keys)
        total.backward()
    assert total.isfinite()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_no_term_synchronises_a_gpu() -> None:
    logits, features, embedding, labels = (
        [f.detach().cuda().requires_grad_() for f in part] if isinstance(part, list) else part.detach().cuda()
        for part in batch()
    )
    logits.requires_grad_()
    objective = create_objective("+".join(TERMS), 3, all_heads()).cuda()
    keys = objective.draw_keys(features, embedding, torch.Generator("cuda").manual_seed(1))
    objective(logits, features, embedding, labels, keys).total.backward()  # libraries set themselves up
    torch.cuda.set_sync_debug_mode("error")
    try:
        total, _ = objective(logits, features, embedding, labels, keys)
        total.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert total.isfinite()


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["bn", "ln"])
def test_all_terms_compile_into_one_graph(norm: Literal["bn", "ln"]) -> None:
    logits, features, embedding, labels = batch()
    objective = create_objective("+".join(TERMS), 3, all_heads(norm=norm))
    keys = objective.draw_keys(features, embedding, torch.Generator().manual_seed(1))
    expected = objective(logits, features, embedding, labels, keys)
    gradients = torch.autograd.grad(expected.total, features)  # before another pass changes the running statistics
    found = torch.compile(objective, fullgraph=True, backend="aot_eager")(logits, features, embedding, labels, keys)
    for name, part in expected.parts.items():
        torch.testing.assert_close(found.parts[name], part, rtol=1e-4, atol=1e-6, msg=name)
    torch.testing.assert_close(torch.autograd.grad(found.total, features), gradients, rtol=1e-3, atol=1e-6)


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
            logits,
            features,
            embedding,
            labels,
            objective.draw_keys(features, embedding, torch.Generator().manual_seed(seed)),
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


def test_every_setting_of_the_other_terms_reaches_them() -> None:
    supcon = SupconConfig(stages=(1,), num_patches=9, temperature=0.2, projection_dim=9)
    multiscale = MultiscaleConfig(
        temperature=0.2, stages=(1, 2), stage_weights=(0.5, 0.25), pairs=((2, 3),), pair_weights=(0.75,),
        symmetric=True, max_anchors=99, max_per_class=11, min_views=2, group="image_class", labels="center",
        denominator="all", lonely="zero", norm="ln", hidden_layers=1, projection_dim=9,
    )  # fmt: skip
    pne = PneConfig(
        temperature=0.5, max_anchors=9, num_candidates=8, normalize_weights=False, detach=False, resize="bilinear",
        scope="batch", large_sets="skip", norm="ln", projection_dim=9,
    )  # fmt: skip
    of = {**all_heads(multiscale=multiscale), "supcon": heads()[1:2]}
    objective = create_objective(
        "supcon+cms+ccs+pne", 3, of, supcon=supcon, multiscale=multiscale, pne=pne, ignore_index=2
    )
    for name, config in (("supcon", supcon), ("multiscale", multiscale), ("pne", pne)):
        settings, defaults = asdict(config), asdict(type(config)())
        assert [key for key in settings if settings[key] == defaults[key]] == [], "change every setting in this test"
        loss = objective.contrast[name]
        of_heads = {"norm", "hidden_layers", "projection_dim"}
        expected = {key: value for key, value in settings.items() if key not in of_heads}
        if name == "multiscale":
            expected |= {"cms_stages": expected.pop("stages"), "ccs_pairs": expected.pop("pairs")}
        assert {key: getattr(loss, key) for key in expected} == expected
        assert loss.ignore_index == 2


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
    with pytest.raises(ConfigError, match="heads of pne come as list"):
        create_objective("pne", 3, {"pne": heads()})
    with pytest.raises(ConfigError, match="has terms cl, but losses for none"):
        Objective(SegmentationLoss(3), parse_loss("cl"))


class Doubled(torch.nn.Module):
    """An auxiliary head of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, inner: list[Tensor]) -> Tensor:
        return self.factor * inner[0]


def test_an_auxiliary_head_has_the_same_segmentation_loss() -> None:
    logits, features, embedding, labels = batch()
    options = SegmentationConfig(terms="ce+lovasz:0.5", auxiliary=0.3)
    objective = create_objective("none", 3, {}, segmentation=options, auxiliary=Doubled())
    padded = torch.nn.functional.pad(logits, (0, 5, 0, 3))  # the head sees the padded input
    total, parts = objective(logits, features, embedding, labels, inner=[padded])
    loss = SegmentationLoss(3, terms="ce+lovasz:0.5")
    torch.testing.assert_close(total, loss(logits, labels).total + 0.3 * loss(2 * logits, labels).total)
    torch.testing.assert_close(parts["auxiliary"], loss(2 * logits, labels).total.detach())
    assert objective.has_heads
    alone = objective(logits, features, embedding, labels)
    assert torch.equal(alone.total, loss(logits, labels).total)
    assert "auxiliary" not in alone.parts


def test_an_auxiliary_head_belongs_to_a_weight() -> None:
    with pytest.raises(ConfigError, match=r"auxiliary = 0\.4 found with no auxiliary head"):
        create_objective("none", 3, {}, segmentation=SegmentationConfig(auxiliary=0.4))
    with pytest.raises(ConfigError, match="auxiliary = 0 found with an auxiliary head"):
        create_objective("none", 3, {}, auxiliary=Doubled())
