from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ctrs.errors import ConfigError, UsageError
from ctrs.losses.contrastive import ContrastiveTransformerLoss, project_samples
from ctrs.losses.sampling import Samples
from ctrs.models import ProjectionHead

CHANNELS = (4, 6, 8, 10)
STRIDES = (4, 8, 16, 32)


def heads(width: int = 8) -> list[ProjectionHead]:
    torch.manual_seed(0)
    return [ProjectionHead(c, out_channels=width) for c in CHANNELS]


def feature_maps(height: int, width: int, batch: int = 2, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    g = torch.Generator().manual_seed(5)
    return [
        torch.randn(batch, c, -(-height // r), -(-width // r), generator=g).to(dtype).requires_grad_()
        for c, r in zip(CHANNELS, STRIDES, strict=True)
    ]


def blocks(height: int, width: int, num_classes: int = 3, cell: int = 32, batch: int = 2) -> Tensor:
    g = torch.Generator().manual_seed(3)
    coarse = torch.randint(0, num_classes, (batch, -(-height // cell), -(-width // cell)), generator=g)
    return coarse.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, :height, :width]


@pytest.mark.parametrize("kind", ["cl", "infonce"])
@pytest.mark.parametrize("average", ["present", "valid"])
def test_module_equals_a_loop_over_stages_and_classes(naive: SimpleNamespace, kind: str, average: str) -> None:
    labels = blocks(64, 96)
    features = [f.detach().double() for f in feature_maps(64, 96)]
    modules = [head.double() for head in heads()]
    loss = ContrastiveTransformerLoss(
        modules,
        3,
        kind=kind,
        average=average,
        num_pairs=40,
        clip_mode="none",  # type: ignore[arg-type]
    )
    keys = loss.draw_keys(features, torch.Generator().manual_seed(0))
    found, stats = loss(features, labels, keys)
    terms = []
    for feature, head, key, r in zip(features, modules, keys, STRIDES, strict=True):
        rows = head(feature.permute(0, 2, 3, 1).reshape(-1, feature.shape[1])).tolist()
        windows = labels.unfold(1, r, r).unfold(2, r, r).reshape(len(rows), -1).tolist()
        order = key.argsort(descending=True).tolist()
        for c in range(3):
            p = [rows[cell] for cell in order if set(windows[cell]) == {c}][:40]
            n = [rows[cell] for cell in order if c not in windows[cell]][:40]
            if len(p) < 5 or len(n) < 5:
                continue
            if kind == "cl":
                negative, positive = naive.cl(p, n, 0.5, 0.1, "logit")
                terms.append(negative + (positive if len(p) >= 10 else 0))
            elif len(p) >= 10:
                terms.append(naive.infonce(p, n, 0.5, 0.1, "paper"))
    expected = sum(terms) / (4 * 3 if average == "present" else len(terms))
    assert found.item() == pytest.approx(expected, abs=1e-6)
    assert stats.raw == found
    assert stats.valid_terms.sum() == len(terms)
    assert 4 < len(terms) < 12


def test_projecting_each_cell_once_equals_projecting_samples() -> None:
    feature = feature_maps(64, 64)[0]  # 512 cells
    g = torch.Generator().manual_seed(0)
    cells = torch.stack([torch.randperm(512, generator=g)[:100] for _ in range(4)])
    few = Samples(cells[:2], torch.tensor([100, 3]), cells[2:], torch.tensor([0, 60]))
    many = Samples(*(torch.cat([part] * 4) for part in few))  # 1600 samples
    head = heads()[0]
    first, repeated = project_samples(feature, head, few), project_samples(feature, head, many)
    rows = nn.functional.normalize(head(feature.permute(0, 2, 3, 1).reshape(512, -1)), dim=-1)
    for samples, projected in ((few, first), (many, repeated)):
        for kind, count in ((0, samples.positive_count), (1, samples.negative_count)):
            drawn_cells = (samples.positives, samples.negatives)[kind]
            for c, number in enumerate(count.tolist()):
                torch.testing.assert_close(projected[kind][c, :number], rows[drawn_cells[c, :number]])


Maker = Callable[[], tuple[list[Tensor], Tensor]]


def only_void() -> tuple[list[Tensor], Tensor]:
    return feature_maps(64, 64), torch.full((2, 64, 64), 255)


def one_class() -> tuple[list[Tensor], Tensor]:
    return feature_maps(64, 64), torch.ones(2, 64, 64, dtype=torch.int64)


def one_class_and_void() -> tuple[list[Tensor], Tensor]:
    labels = torch.ones(2, 64, 64, dtype=torch.int64)
    labels[:, :, 20:] = 255
    return feature_maps(64, 64), labels


def class_absent() -> tuple[list[Tensor], Tensor]:
    return feature_maps(64, 96), blocks(64, 96, num_classes=2)


def small_cars() -> tuple[list[Tensor], Tensor]:
    labels = blocks(128, 128, num_classes=2, cell=64)
    labels[:, 8:16, 4:24] = 2
    labels[:, 48:56, 4:24] = 2
    return feature_maps(128, 128), labels


def checkerboard() -> tuple[list[Tensor], Tensor]:
    row, col = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    return feature_maps(64, 64), ((row + col) % 3).expand(2, 64, 64)


def zero_features() -> tuple[list[Tensor], Tensor]:
    return [torch.zeros_like(f).requires_grad_() for f in feature_maps(64, 64)], blocks(64, 64)


def tile_of_500_px() -> tuple[list[Tensor], Tensor]:
    return feature_maps(500, 500, batch=1), blocks(500, 500, batch=1)


def tile_of_500_px_padded() -> tuple[list[Tensor], Tensor]:
    return feature_maps(512, 512, batch=1), blocks(500, 500, batch=1)


CASES: list[tuple[Maker, bool]] = [
    (only_void, True),
    (one_class, True),
    (one_class_and_void, True),
    (checkerboard, True),
    (class_absent, False),
    (small_cars, False),
    (zero_features, False),
    (tile_of_500_px, False),
    (tile_of_500_px_padded, False),
]


@pytest.mark.parametrize("kind", ["cl", "infonce"])
@pytest.mark.parametrize("clip_mode", ["hard", "rescale", "none"])
@pytest.mark.parametrize(("make", "zero"), CASES, ids=[make.__name__ for make, _ in CASES])
def test_degenerate_batches_are_finite_and_reach_every_head(make: Maker, zero: bool, kind: str, clip_mode: str) -> None:
    features, labels = make()
    loss = ContrastiveTransformerLoss(heads(), 3, kind=kind, clip_mode=clip_mode)  # type: ignore[arg-type]
    value, stats = loss(features, labels)
    assert value.isfinite()
    assert (value == 0) == zero
    assert value.requires_grad
    value.backward()
    gradients = [tensor.grad for tensor in [*features, *loss.parameters()]]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    if zero:
        assert all((gradient == 0).all() for gradient in gradients if gradient is not None)
        assert stats.valid_terms.sum() == 0


@pytest.mark.parametrize("kind", ["cl", "infonce"])
def test_one_cell_stages(kind: str) -> None:
    loss = ContrastiveTransformerLoss(
        heads(),
        2,
        kind=kind,
        min_positives=1,
        min_negatives=1,
        min_positive_pairs=1,  # type: ignore[arg-type]
    )
    value, _ = loss(feature_maps(32, 32, batch=1), blocks(32, 32, 2, batch=1))
    assert value == 0
    value.backward()
    assert all(p.grad is not None for p in loss.parameters())


def test_a_single_patch_has_a_negative_term_only(naive: SimpleNamespace) -> None:
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[:, :4, :4] = 1
    features = feature_maps(32, 32, batch=1)
    options = {"stages": (0,), "clip_mode": "none", "min_negatives": 1, "min_positive_pairs": 1}
    lone = ContrastiveTransformerLoss(heads()[:1], 2, min_positives=1, **options)  # type: ignore[arg-type]
    keys = lone.draw_keys(features, torch.Generator().manual_seed(0))
    many = ContrastiveTransformerLoss(heads()[:1], 2, min_positives=2, **options)  # type: ignore[arg-type]
    both, only = lone(features, labels, keys), many(features, labels, keys)
    assert both[1].valid_terms.tolist() == [2]
    assert only[1].valid_terms.tolist() == [1]
    rows = lone.heads[0](features[0].permute(0, 2, 3, 1).reshape(64, -1)).tolist()
    partner = max(range(1, 64), key=lambda cell: float(keys[0][cell]))
    expected = naive.entropy(naive.cosine(rows[0], rows[partner]), 0.05, "logit") / 2
    assert (both[0] - only[0]).item() == pytest.approx(expected, abs=1e-5)


def test_void_windows_are_negatives_only_when_allowed() -> None:
    features, labels = one_class_and_void()
    value, stats = ContrastiveTransformerLoss(heads(), 3, void="allow")(features, labels)
    assert value > 0
    assert stats.valid_terms[0] == 1


def test_clip_modes() -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    shared = heads()
    values, gradients = {}, {}
    for mode in ("none", "hard", "rescale"):
        loss = ContrastiveTransformerLoss(shared, 3, clip=0.5, clip_mode=mode)  # type: ignore[arg-type]
        keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
        values[mode], stats = loss(features, labels, keys)
        (gradients[mode],) = torch.autograd.grad(values[mode], features[0])
        assert stats.clip_active == 1
        assert stats.raw == values["none"]
    raw = values["none"].item()
    assert raw > 0.5
    assert values["hard"] == 0.5
    assert values["rescale"].item() == pytest.approx(0.5)
    assert (gradients["hard"] == 0).all()
    torch.testing.assert_close(gradients["rescale"], gradients["none"] * 0.5 / raw)
    wide = ContrastiveTransformerLoss(shared, 3, clip=5, clip_mode="hard")
    value, stats = wide(features, labels, keys)
    assert value == values["none"]
    assert stats.clip_active == 0


def test_gradient_is_orthogonal_and_only_at_sampled_cells() -> None:
    features, labels = feature_maps(64, 64, batch=1), blocks(64, 64, batch=1)
    loss = ContrastiveTransformerLoss([nn.Identity() for _ in CHANNELS], 3, num_pairs=5, clip_mode="none")
    value, _ = loss(features, labels, loss.draw_keys(features, torch.Generator().manual_seed(1)))
    (gradient,) = torch.autograd.grad(value, features[0])
    assert (gradient * features[0]).sum(1).abs().max() < 1e-6
    assert 0 < (gradient != 0).any(1).sum() <= 3 * 2 * 5


def test_gradient_descent_lowers_the_loss() -> None:
    features, labels = [f.detach() for f in feature_maps(64, 64)], blocks(64, 64)
    loss = ContrastiveTransformerLoss(heads(), 3, clip_mode="rescale")
    keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(loss.parameters(), 1e-2)
    raws = []
    for _ in range(15):
        value, stats = loss(features, labels, keys)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        raws.append(stats.raw.item())
    assert raws[-1] < raws[0] - 0.05


@pytest.mark.parametrize("kind", ["cl", "infonce"])
def test_nan_outside_the_samples_cannot_enter(kind: str) -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    labels[:, :8, :8] = 255
    for feature, r in zip(features, STRIDES, strict=True):
        with torch.no_grad():
            feature[:, :, : max(1, 8 // r), : max(1, 8 // r)] = float("nan")
    loss = ContrastiveTransformerLoss(heads(), 3, kind=kind, clip_mode="rescale")  # type: ignore[arg-type]
    value, _ = loss(features, labels)
    value.backward()
    assert value.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*features, *loss.parameters()])


@pytest.mark.parametrize("kind", ["cl", "infonce"])
def test_no_host_synchronisation(kind: str, no_host_sync: Callable[[], AbstractContextManager[None]]) -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    loss = ContrastiveTransformerLoss(heads(), 3, kind=kind, clip_mode="rescale")  # type: ignore[arg-type]
    keys = loss.draw_keys(features)
    with no_host_sync():
        value, _ = loss(features, labels, keys)
        value.backward()
    assert value.isfinite()


def test_results_are_the_same_in_every_run_and_memory_format() -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    loss = ContrastiveTransformerLoss(heads(), 3, clip_mode="none")
    keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
    first, _ = loss(features, labels, keys)
    gradients = torch.autograd.grad(first, features)
    for _ in range(3):
        again, _ = loss(features, labels, keys)
        assert torch.equal(again, first)
        assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(again, features), gradients, strict=True))
    channels_last = [f.detach().to(memory_format=torch.channels_last).requires_grad_() for f in features]
    other, _ = loss(channels_last, labels, keys)
    assert torch.equal(other, first)


def test_drawing_without_keys_uses_the_global_generator() -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    loss = ContrastiveTransformerLoss(heads(), 3, num_pairs=10, clip_mode="none")
    torch.manual_seed(4)
    first, _ = loss(features, labels)
    torch.manual_seed(4)
    again, _ = loss(features, labels)
    other, _ = loss(features, labels)
    assert first == again
    assert first != other


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["cl", "infonce"])
def test_half_precision_autocast(dtype: torch.dtype, kind: str) -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    loss = ContrastiveTransformerLoss(heads(), 3, kind=kind, clip_mode="none")  # type: ignore[arg-type]
    keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
    expected, _ = loss(features, labels, keys)
    half = [f.detach().to(dtype).requires_grad_() for f in features]
    with torch.autocast("cpu", dtype):
        found, _ = loss(half, labels, keys)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    found.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*half, *loss.parameters()])


def test_huge_half_precision_rows_do_not_overflow() -> None:
    features, labels = feature_maps(64, 64, dtype=torch.float16), blocks(64, 64)
    loss = ContrastiveTransformerLoss([nn.Identity() for _ in CHANNELS], 3, clip_mode="none")
    value, _ = loss([f * 1000 for f in features], labels)
    value.backward()
    assert value.isfinite()
    assert all(f.grad is not None and f.grad.isfinite().all() for f in features)


@pytest.mark.parametrize("kind", ["cl", "infonce"])
def test_vectors_of_length_zero_have_a_bounded_gradient(kind: str) -> None:
    features, labels = zero_features()
    loss = ContrastiveTransformerLoss([nn.Identity() for _ in CHANNELS], 3, kind=kind, clip_mode="none")  # type: ignore[arg-type]
    with torch.no_grad():
        features[0][:, 0, ::2] = 1  # some of them have a direction
    value, _ = loss(features, labels)
    value.backward()
    assert value.isfinite()
    gradients = [f.grad for f in features if f.grad is not None]
    assert len(gradients) == 4
    assert 0 < gradients[0].abs().max() < 1e6


def test_stats_count_anchors_and_terms() -> None:
    labels = torch.zeros(2, 64, 64, dtype=torch.int64)
    labels[:, :, 32:] = 1
    _, stats = ContrastiveTransformerLoss(heads(), 3, num_pairs=100)(feature_maps(64, 64), labels)
    assert stats.anchors.tolist() == [200, 128, 32, 8]
    assert stats.valid_terms.tolist() == [2, 2, 2, 0]


def test_the_record_names_stages_by_stride() -> None:
    labels = torch.zeros(2, 64, 64, dtype=torch.int64)
    labels[:, :, 32:] = 1
    features = feature_maps(64, 64)
    features[3] = torch.randn(2, CHANNELS[3], 4, 4)
    loss = ContrastiveTransformerLoss(heads()[:1] + heads()[2:], 3, stages=(0, 2, 3), strides=(4, 8, 16, 16))
    value, stats = loss(features, labels)
    record = loss.record(stats)
    assert record.keys() == {"raw", "clip_active"} | {
        f"{name}_{stage}" for name in ("anchors", "valid_terms") for stage in ("4", "16", "16b")
    }
    assert all(entry.ndim == 0 and not entry.requires_grad for entry in record.values())
    assert (record["anchors_4"], record["anchors_16"], record["anchors_16b"]) == (512, 32, 32)
    assert (record["valid_terms_4"], record["valid_terms_16b"]) == (2, 2)
    assert record["raw"] == stats.raw
    assert record["raw"] >= value


def test_a_subset_of_stages() -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    loss = ContrastiveTransformerLoss([heads()[2], heads()[0]], 3, stages=(2, 0))
    value, stats = loss(features, labels)
    assert value > 0
    assert stats.anchors.shape == (2,)
    assert stats.anchors[1] > stats.anchors[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "triplet"}, "kind of the contrast loss must be one of cl, infonce, found 'triplet'"),
        ({"clip_mode": "soft"}, "clip_mode .* one of hard, rescale, none"),
        ({"top": 0.0}, "top .* above 0, found 0"),
        ({"top": 1.5}, "top .* between 0 and 1"),
        ({"temperature": 0.0}, "temperature .* above 0"),
        ({"num_pairs": 0}, "num_pairs .* at least 1"),
        ({"stages": (0, 0, 1, 2)}, "distinct numbers from 0 to 3"),
        ({"stages": (0, 4, 1, 2)}, "distinct numbers from 0 to 3"),
        ({"stages": (0, 1)}, "one projection head for each of 2 stages, found 4"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ContrastiveTransformerLoss(heads(), 3, **options)  # type: ignore[arg-type]


def test_wrong_number_of_maps() -> None:
    with pytest.raises(UsageError, match="expects 4 feature maps, found 3"):
        ContrastiveTransformerLoss(heads(), 3)(feature_maps(64, 64)[:3], blocks(64, 64))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cl", "infonce"])
def test_compiles_without_graph_breaks(kind: str) -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    loss = ContrastiveTransformerLoss(heads(), 3, kind=kind, clip_mode="rescale")  # type: ignore[arg-type]
    keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
    expected, _ = loss(features, labels, keys)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found, _ = compiled(features, labels, keys)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, features[0]), torch.autograd.grad(expected, features[0]), rtol=1e-4, atol=1e-7
    )
