from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ctrs.errors import ConfigError, UsageError
from ctrs.losses.contrastive import ContrastiveTransformerLoss, project_samples
from ctrs.losses.functional import soft_cross_entropy
from ctrs.losses.patches import patch_bits
from ctrs.losses.sampling import Samples, sample_classes
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


def naive_total(
    naive: SimpleNamespace,
    loss: ContrastiveTransformerLoss,
    features: list[Tensor],
    labels: Tensor,
    keys: tuple[Tensor, ...],
) -> tuple[float, list[int]]:
    """The loss before the clip, and the number of terms of each stage, by loops over stages, classes and cells."""
    K = loss.num_classes
    total, counts = 0.0, []
    for stage, head, key in zip(loss.stages, loss.heads, keys, strict=True):
        feature, r = features[stage], loss.strides[stage]
        rows = head(feature.permute(0, 2, 3, 1).reshape(-1, feature.shape[1])).tolist()
        windows = labels.unfold(1, r, r).unfold(2, r, r).reshape(len(rows), -1).tolist()
        seen = [{v if 0 <= v < K and v != loss.ignore_index else "void" for v in window} for window in windows]
        order = key.argsort(descending=True).tolist()
        refused = {"void"} if loss.void == "exclude" else set()
        counts.append(0)
        for c in range(K):
            p = [rows[cell] for cell in order if seen[cell] == {c}][: loss.num_pairs]
            n = [rows[cell] for cell in order if c not in seen[cell] and not seen[cell] & refused][: loss.num_pairs]
            if len(p) < loss.min_positives or len(n) < loss.min_negatives:
                continue
            pairs = len(p) // 2 >= loss.min_positive_pairs
            if loss.kind == "cl":
                negative, positive = naive.cl(p, n, loss.top, loss.smoothing, loss.form)
                total += negative + (positive if pairs else 0)
                counts[-1] += 1
            elif pairs:
                total += naive.infonce(p, n, loss.top, loss.temperature, loss.variant)
                counts[-1] += 1
    present = len({v for v in labels.flatten().tolist() if 0 <= v < K and v != loss.ignore_index})
    denominator = sum(counts) if loss.average == "valid" else len(loss.stages) * present
    return total / max(1, denominator), counts


def patchwork(height: int = 64, width: int = 96) -> Tensor:
    """Classes 0 to 2 in blocks, void beside some, and class 3 in objects that no window of 16 px is full of."""
    labels = blocks(height, width)
    labels[0, :16, :12] = 255
    labels[1, 40:60, 30:33] = -1
    labels[0, 40:48, 8:24] = 3
    labels[1, 8:16, 40:56] = 3
    labels[1, 3, 60] = 4
    return labels


OPTIONS: list[dict[str, object]] = [
    {},
    {"form": "prob", "smoothing": 0.2},
    {"smoothing": 0.0},
    {"top": 0.23, "num_pairs": 13},
    {"top": 1.0, "average": "valid"},
    {"void": "allow"},
    {"ignore_index": 1},
    {"stages": (2, 0)},
    {"min_positives": 1, "min_negatives": 1, "min_positive_pairs": 1},
    {"min_positives": 12, "min_positive_pairs": 20},
    {"min_negatives": 35, "min_positive_pairs": 1},
    {"kind": "infonce"},
    {"kind": "infonce", "variant": "author", "num_pairs": 13},
    {"kind": "infonce", "temperature": 0.5, "top": 0.8, "average": "valid"},
    {"kind": "infonce", "min_positives": 1, "min_negatives": 1, "min_positive_pairs": 1},
    {"kind": "infonce", "min_positive_pairs": 15},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_module_equals_loops_over_stages_classes_and_cells(naive: SimpleNamespace, options: dict[str, object]) -> None:
    labels = patchwork()
    features = [f.detach().double() for f in feature_maps(64, 96)]
    modules = [head.double() for head in heads()]
    chosen: dict[str, object] = {"num_pairs": 40, "clip_mode": "none"} | options
    stages = options.get("stages", (0, 1, 2, 3))
    loss = ContrastiveTransformerLoss([modules[s] for s in stages], 4, **chosen)  # type: ignore[arg-type, attr-defined]
    keys = loss.draw_keys(features, torch.Generator().manual_seed(0))
    found, stats = loss(features, labels, keys)
    expected, counts = naive_total(naive, loss, features, labels, keys)
    assert found.item() == pytest.approx(expected, abs=1e-6)
    assert stats.raw == found
    assert stats.valid_terms.tolist() == counts
    assert sum(counts) > 0


def test_every_option_changes_the_value() -> None:
    features, labels = feature_maps(64, 96), patchwork()
    values = []
    for options in OPTIONS:
        chosen: dict[str, object] = {"num_pairs": 40, "clip_mode": "none"} | options
        modules = [heads()[s] for s in options.get("stages", (0, 1, 2, 3))]  # type: ignore[attr-defined]
        loss = ContrastiveTransformerLoss(modules, 4, **chosen)  # type: ignore[arg-type]
        keys = loss.draw_keys(features, torch.Generator().manual_seed(0))
        values.append(round(loss(features, labels, keys)[0].item(), 6))
    assert len(set(values)) == len(OPTIONS)


def test_keys_inject_an_order() -> None:
    features, labels = [f.detach() for f in feature_maps(32, 32, batch=1)], torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[:, 16:] = 1
    loss = ContrastiveTransformerLoss(
        [nn.Identity()], 2, stages=(0,), num_pairs=2, top=1.0, clip_mode="none", min_positives=2, min_negatives=2,
        min_positive_pairs=1,
    )  # fmt: skip
    order = [40, 3, 17, 63, *(cell for cell in range(64) if cell not in (40, 3, 17, 63))]
    keys = torch.empty(64)
    keys[order] = 1 - torch.arange(64) / 64 - 1e-3
    found, _ = loss(features, labels, (keys,))
    unit = nn.functional.normalize(features[0].flatten(2)[0].T, dim=-1)
    (first, third), (second, fourth) = unit[[3, 17]], unit[[40, 63]]  # of class 0 and of class 1
    negative = (
        soft_cross_entropy(first @ second, positive=False) + soft_cross_entropy(third @ fourth, positive=False)
    ) / 2
    positive = soft_cross_entropy(first @ third, positive=True) + soft_cross_entropy(second @ fourth, positive=True)
    torch.testing.assert_close(found, (2 * negative + positive) / 2)


@pytest.mark.parametrize("num_pairs", [6, 2000])  # stage 0 picks cells, or projects all of them
def test_gradient_stands_at_sampled_cells_only(num_pairs: int) -> None:
    features, labels = feature_maps(64, 64), patchwork(64, 64)
    loss = ContrastiveTransformerLoss(heads(), 4, num_pairs=num_pairs, top=1.0, clip_mode="none")
    keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(loss(features, labels, keys)[0], features)
    levels = patch_bits(labels, [tuple(f.shape[2:]) for f in features], num_classes=4, strides=STRIDES)  # type: ignore[misc]
    for gradient, key, bits in zip(gradients, keys, levels, strict=True):
        drawn = sample_classes(bits, key, num_classes=4, count=num_pairs)
        allowed = torch.zeros(key.numel(), dtype=torch.bool)
        for cells, count in ((drawn.positives, drawn.positive_count), (drawn.negatives, drawn.negative_count)):
            for c in range(4):
                allowed[cells[c, : int(count[c])]] = True
        moved = (gradient != 0).any(1).flatten()
        assert not (moved & ~allowed).any()
    assert (gradients[0] != 0).any()


def test_between_forward_and_backward_little_stays_alive() -> None:
    features, labels = feature_maps(64, 64), patchwork(64, 64)
    loss = ContrastiveTransformerLoss(heads(), 4, num_pairs=30, clip_mode="none")
    known = {tensor.untyped_storage().data_ptr() for tensor in [*features, *loss.parameters()]}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value, _ = loss(features, labels)
    rows = 4 * 2 * 30 * 4 * sum(CHANNELS)  # bytes of the gathered rows alone
    assert sum(kept.values()) < rows / 10
    value.backward()


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


def test_classes_smaller_than_the_patches_still_serve_as_negatives() -> None:
    labels = torch.zeros(1, 64, 64, dtype=torch.int64)
    labels[:, :, 32:] = 1
    labels[:, ::8, 32::8] = 2  # class 1 has windows of 4 px only, class 2 none at all
    features = [f.detach().requires_grad_() for f in feature_maps(64, 64, batch=1)]
    loss = ContrastiveTransformerLoss(
        heads(), 3, min_positives=1, min_negatives=1, min_positive_pairs=1, clip_mode="none"
    )
    value, stats = loss(features, labels)
    assert stats.valid_terms.tolist() == [2, 1, 1, 1]
    gradients = torch.autograd.grad(value, features)
    for gradient, r in zip(gradients[1:], (8, 16, 32), strict=True):
        assert (gradient[..., 32 // r :] != 0).any()  # pushed away from class 0


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
