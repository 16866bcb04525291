from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ctrs.config import MultiscaleConfig
from ctrs.errors import ConfigError, UsageError
from ctrs.losses.multiscale import MultiscaleContrastLoss, MultiscaleValues
from ctrs.losses.multiscale_sampling import cell_labels, sample_anchors
from ctrs.models.projection import NormProjectionHead

CHANNELS = (4, 6, 8, 10)
STRIDES = (4, 8, 16, 32)


def head(stage: int, norm: str) -> NormProjectionHead:
    torch.manual_seed(stage)
    return NormProjectionHead(CHANNELS[stage], [CHANNELS[stage], 7], 5, norm=norm)  # type: ignore[arg-type]


def create(norm: str = "ln", **options: object) -> MultiscaleContrastLoss:
    """A loss with heads for the stages that its options use; a stage's head is always the same."""
    terms = options.get("terms", ("cms", "ccs"))
    config = MultiscaleConfig(
        **{k: v for k, v in options.items() if k in ("stages", "pairs", "stage_weights", "pair_weights")}
    )  # type: ignore[arg-type]
    cms = config.stages if "cms" in terms else ()  # type: ignore[operator]
    ccs = [stage for pair in config.pairs for stage in pair] if "ccs" in terms else []  # type: ignore[operator]
    heads = {stage: head(stage, norm) for stage in (*cms, *ccs)}
    return MultiscaleContrastLoss(heads, 3, **{"max_anchors": 60, **options})  # type: ignore[arg-type]


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


def both(values: MultiscaleValues) -> Tensor:
    return values.cms + values.ccs


@pytest.mark.parametrize("norm", ["ln", "bn"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "temperature": 0.5,
            "stages": (2, 0),
            "stage_weights": (0.5, 2.0),
            "pairs": ((1, 2), (2, 0)),
            "pair_weights": (0.3, 0.6),
            "symmetric": True,
            "labels": "homogeneous",
            "denominator": "all",
            "lonely": "zero",
            "group": "image_class",
            "min_views": 2,
        },
        {"labels": "center", "max_per_class": 4, "lonely": "zero"},
    ],
    ids=["paper", "all-options", "center"],
)
def test_module_equals_naive_loops(naive: SimpleNamespace, norm: str, options: dict[str, object]) -> None:
    config = MultiscaleConfig(**options)  # type: ignore[arg-type]
    labels = blocks(64, 96, cell=16)
    labels[:, :10, :10] = 255
    features = [f.detach().double() for f in feature_maps(64, 96)]
    used = sorted({*config.stages, *(s for pair in config.pairs for s in pair)})
    loss = create(norm, **options).double()
    keys = loss.draw_keys(features, torch.Generator().manual_seed(0))
    found, stats = loss(features, labels, keys)
    maps = cell_labels(
        labels, [(f.shape[2], f.shape[3]) for f in features], num_classes=3, strides=STRIDES, mode=config.labels
    )
    anchors: dict[int, list[tuple[list[float], int]]] = {}
    for stage, key in zip(used, keys, strict=True):
        samples = sample_anchors(
            maps[stage],
            key,
            num_classes=3,
            max_anchors=60,
            max_per_class=config.max_per_class,
            min_views=config.min_views,
            group=config.group,
        )
        project = loss.heads[str(stage)]
        dense = features[stage] if project.dense is None else project.dense(features[stage])
        rows = project(dense.permute(0, 2, 3, 1).reshape(-1, dense.shape[1])).tolist()
        anchors[stage] = [(rows[cell], c) for c in range(3) for cell in samples.cells[c, : samples.counts[c]].tolist()]

    def contrast(first: int, second: int) -> float:
        value: float = naive.supervised(
            anchors[first],
            anchors[second],
            config.temperature,
            same=first == second,
            denominator=config.denominator,
            lonely=config.lonely,
        )
        return value

    cms = sum(w * contrast(s, s) for s, w in zip(config.stages, config.stage_weights, strict=True))
    ccs = 0.0
    for (first, second), weight in zip(config.pairs, config.pair_weights, strict=True):
        there, back = contrast(first, second), contrast(second, first)
        ccs += weight * ((there + back) / 2 if config.symmetric else there)
    assert found.cms.item() == pytest.approx(cms, abs=1e-6)
    assert found.ccs.item() == pytest.approx(ccs, abs=1e-6)
    assert cms > 0.1
    assert ccs > 0.1
    assert len(stats.quota) == len(used)


def test_a_term_that_is_off_is_zero_and_the_other_is_as_with_both() -> None:
    features, labels = feature_maps(64, 96), blocks(64, 96)
    loss = create()
    keys = loss.draw_keys(features, torch.Generator().manual_seed(0))
    expected, _ = loss(features, labels, keys)
    cms, stats = create(terms=("cms",))(features, labels, keys)
    assert cms.cms == expected.cms
    assert cms.ccs == 0
    assert not cms.ccs.requires_grad
    assert stats.ccs.shape == (0,)
    ccs, stats = create(terms=("ccs",))(features, labels, (keys[0], *keys[2:]))
    assert ccs.ccs == expected.ccs
    assert ccs.cms == 0
    assert stats.cms.shape == (0,)
    assert stats.quota.shape == (3,)


def one_pair(weight: float = 1.0) -> dict[str, object]:
    return {"stages": (0,), "stage_weights": (weight,), "pairs": ((0, 3),), "pair_weights": (weight,)}


def test_weights_scale_the_terms() -> None:
    features, labels = feature_maps(64, 96), blocks(64, 96)
    keys = create(**one_pair()).draw_keys(features, torch.Generator().manual_seed(0))
    one, third = (create(**one_pair(weight))(features, labels, keys)[0] for weight in (1.0, 0.3))
    torch.testing.assert_close(tuple(third), tuple(0.3 * value for value in one))


Maker = Callable[[], tuple[list[Tensor], Tensor]]


def only_void() -> tuple[list[Tensor], Tensor]:
    return feature_maps(64, 64), torch.full((2, 64, 64), 255)


def one_class() -> tuple[list[Tensor], Tensor]:
    return feature_maps(64, 64), torch.ones(2, 64, 64, dtype=torch.int64)


def one_class_and_void() -> tuple[list[Tensor], Tensor]:
    labels = torch.ones(2, 64, 64, dtype=torch.int64)
    labels[:, :, 20:] = -1
    return feature_maps(64, 64), labels


def too_few_cells() -> tuple[list[Tensor], Tensor]:
    labels = torch.full((2, 64, 64), 255)
    labels[0, :4, :16] = 1
    labels[1, :4, :16] = 2
    return feature_maps(64, 64), labels


def class_absent() -> tuple[list[Tensor], Tensor]:
    return feature_maps(64, 96), blocks(64, 96, num_classes=2)


def small_cars() -> tuple[list[Tensor], Tensor]:
    labels = blocks(128, 128, num_classes=2, cell=64)
    labels[:, 9:16, 4:24] = 2
    labels[:, 49:56, 4:24] = 2
    return feature_maps(128, 128), labels


def checkerboard() -> tuple[list[Tensor], Tensor]:
    row, col = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    return feature_maps(64, 64), ((row + col) % 3).expand(2, 64, 64)


def zero_features() -> tuple[list[Tensor], Tensor]:
    return [torch.zeros_like(f).requires_grad_() for f in feature_maps(64, 64)], blocks(64, 64)


def one_cell_at_stride_32() -> tuple[list[Tensor], Tensor]:
    return feature_maps(32, 32, batch=1), blocks(32, 32, cell=8, batch=1)


def tile_of_500_px() -> tuple[list[Tensor], Tensor]:
    return feature_maps(500, 500, batch=1), blocks(500, 500, batch=1)


def tile_of_500_px_padded() -> tuple[list[Tensor], Tensor]:
    return feature_maps(512, 512, batch=1), blocks(500, 500, batch=1)


CASES: list[tuple[Maker, bool]] = [
    (only_void, True),
    (one_class, True),
    (one_class_and_void, True),
    (too_few_cells, True),
    (class_absent, False),
    (small_cars, False),
    (checkerboard, False),
    (zero_features, False),
    (one_cell_at_stride_32, False),
    (tile_of_500_px, False),
    (tile_of_500_px_padded, False),
]


@pytest.mark.parametrize("norm", ["ln", "bn"])
@pytest.mark.parametrize(
    "options", [{}, {"group": "image_class", "lonely": "zero", "symmetric": True}], ids=["paper", "code"]
)
@pytest.mark.parametrize(("make", "zero"), CASES, ids=[make.__name__ for make, _ in CASES])
def test_degenerate_batches_are_finite_and_reach_every_head(
    make: Maker, zero: bool, options: dict[str, object], norm: str
) -> None:
    features, labels = make()
    loss = create(norm, **options)
    values, stats = loss(features, labels)
    assert torch.stack([*values]).isfinite().all()
    for value in values:
        assert value.requires_grad
    assert (values.cms == 0) == zero
    if zero:
        assert values.ccs == 0
    both(values).backward()
    gradients = [tensor.grad for tensor in [*features, *loss.parameters()]]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    if zero:
        assert all((gradient == 0).all() for gradient in gradients if gradient is not None)
    assert all(entry.isfinite().all() for entry in stats)


def test_cells_without_a_class_of_their_own_are_no_anchors_with_homogeneous_labels() -> None:
    features, labels = checkerboard()
    values, stats = create(labels="homogeneous")(features, labels)
    assert both(values) == 0
    assert stats.quota.tolist() == [0, 0, 0, 0]


def test_an_anchor_whose_class_the_other_stage_lacks_is_left_out() -> None:
    features, labels = small_cars()
    loss = create(**one_pair(), min_views=1)
    values, stats = loss(features, labels)
    assert stats.valid_terms.tolist() == [3, 2]  # cars are too small for stride 32
    room = int(stats.quota[0])
    assert stats.cms_anchors.tolist()[0] == 3 * room
    assert stats.ccs_anchors.tolist() == [2 * room]
    assert both(values) > 0
    keys = loss.draw_keys(features)
    skipped, _ = loss(features, labels, keys)
    counted, stats = create(**one_pair(), min_views=1, lonely="zero")(features, labels, keys)
    assert stats.ccs_anchors.tolist() == [3 * room]
    torch.testing.assert_close(counted.ccs, skipped.ccs * 2 / 3)


def test_classes_with_few_cells_have_no_anchors_unless_wanted() -> None:
    features, labels = too_few_cells()
    keys = create().draw_keys(features)
    assert create(min_views=5)(features, labels, keys)[1].quota.tolist() == [0, 0, 0, 0]
    assert create(min_views=4)(features, labels, keys)[1].quota.tolist() == [4, 0, 0, 0]
    assert create(min_views=1)(features, labels, keys)[1].quota.tolist() == [4, 2, 1, 1]


def test_500_px_maps() -> None:
    features, _ = tile_of_500_px()
    assert [f.shape[-1] for f in features] == [125, 63, 32, 16]


@pytest.mark.parametrize("denominator", ["negatives", "all"])
def test_nan_outside_the_samples_cannot_enter(denominator: str) -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    labels[:, :8, :8] = 255
    labels[:, 32:, 32:] = 255
    for feature, r in zip(features, STRIDES, strict=True):
        with torch.no_grad():
            feature[:, :, : max(1, 8 // r), : max(1, 8 // r)] = float("nan")
            feature[:, :, 32 // r :, 32 // r :] = float("inf")
    loss = create(denominator=denominator, min_views=1)
    values, _ = loss(features, labels)
    both(values).backward()
    assert values.cms > 0
    assert both(values).isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*features, *loss.parameters()])


@pytest.mark.parametrize("norm", ["ln", "bn"])
@pytest.mark.parametrize("labels_mode", ["nearest", "homogeneous"])
def test_no_host_synchronisation(
    norm: str, labels_mode: str, no_host_sync: Callable[[], AbstractContextManager[None]]
) -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    for group in ("class", "image_class"):
        loss = create(norm, labels=labels_mode, group=group)
        keys = loss.draw_keys(features)
        with no_host_sync():
            values, _ = loss(features, labels, keys)
            both(values).backward()
        assert both(values).isfinite()


def test_results_are_the_same_in_every_run_and_memory_format() -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    loss = create()
    keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
    first = both(loss(features, labels, keys)[0])
    gradients = torch.autograd.grad(first, features)
    for _ in range(3):
        again = both(loss(features, labels, keys)[0])
        assert torch.equal(again, first)
        assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(again, features), gradients, strict=True))
    channels_last = [f.detach().to(memory_format=torch.channels_last).requires_grad_() for f in features]
    torch.testing.assert_close(both(loss(channels_last, labels, keys)[0]), first)


def test_drawing_without_keys_uses_the_global_generator() -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    loss = create()
    torch.manual_seed(4)
    first = both(loss(features, labels)[0])
    torch.manual_seed(4)
    assert first == both(loss(features, labels)[0])
    assert first != both(loss(features, labels)[0])
    shapes = [tuple(key.shape) for key in create(**one_pair()).draw_keys(features)]
    assert shapes == [(512,), (8,)]


@pytest.mark.parametrize("norm", ["ln", "bn"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_autocast(dtype: torch.dtype, norm: str) -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    loss = create(norm, temperature=0.5)
    keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
    expected, _ = loss(features, labels, keys)
    half = [f.detach().to(dtype).requires_grad_() for f in features]
    with torch.autocast("cpu", dtype):
        found, _ = loss(half, labels, keys)
    assert found.cms.dtype == torch.float32
    torch.testing.assert_close(both(found), both(expected), rtol=0.05, atol=0.05)
    both(found).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*half, *loss.parameters()])


def test_huge_half_precision_rows_do_not_overflow() -> None:
    features, labels = feature_maps(64, 64, dtype=torch.float16), blocks(64, 64)
    loss = MultiscaleContrastLoss([nn.Identity()], 3, stages=(1,), stage_weights=(1.0,), terms=("cms",))
    values, _ = loss([f * 1000 for f in features], labels)
    values.cms.backward()
    assert values.cms.isfinite()
    assert features[1].grad is not None
    assert features[1].grad.isfinite().all()


def test_gradient_is_orthogonal_and_only_at_sampled_cells() -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    heads_by_stage = {stage: nn.Identity() for stage in range(4)}
    loss = MultiscaleContrastLoss(heads_by_stage, 3, terms=("cms",), max_anchors=30)
    values, stats = loss(features, labels)
    (gradient,) = torch.autograd.grad(values.cms, features[0])
    assert (gradient * features[0]).sum(1).abs().max() < 1e-6
    assert 0 < (gradient != 0).any(1).sum() == stats.cms_anchors[0]


def test_gradient_descent_lowers_both_terms() -> None:
    features, labels = [f.detach() for f in feature_maps(64, 64)], blocks(64, 64)
    loss = create("bn")
    keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(loss.parameters(), 1e-2)
    seen = []
    for _ in range(15):
        values, _ = loss(features, labels, keys)
        optimizer.zero_grad()
        both(values).backward()
        optimizer.step()
        seen.append((values.cms.item(), values.ccs.item()))
    assert seen[-1][0] < seen[0][0] - 0.1
    assert seen[-1][1] < seen[0][1] - 0.1


def test_the_record_names_stages_by_stride() -> None:
    labels = torch.zeros(2, 64, 64, dtype=torch.int64)
    labels[:, :, 32:] = 1
    labels[:, :, 60:] = 2
    features = feature_maps(64, 64)
    features[3] = torch.randn(2, CHANNELS[3], 4, 4)
    loss = create(stages=(0, 3), strides=(4, 8, 16, 16), stage_weights=(0.5, 1.0), pairs=((0, 3),), pair_weights=(2.0,))
    values, stats = loss(features, labels)
    record = loss.record(stats)
    assert record.keys() == {
        f"cms/{name}_{s}" for name in ("raw", "anchors", "valid_terms", "K") for s in ("4", "16b")
    } | {
        "ccs/raw_4_16b",
        "ccs/anchors_4_16b",
    }
    assert all(entry.ndim == 0 and not entry.requires_grad for entry in record.values())
    # 32 x 8, 28 / 4 x 16 x 2 and 32 cells; the pixel in the corner of stride 16 never sees the third class.
    assert (record["cms/K_4"], record["cms/valid_terms_4"], record["cms/anchors_4"]) == (20, 3, 60)
    assert (record["cms/K_16b"], record["cms/valid_terms_16b"], record["cms/anchors_16b"]) == (16, 2, 32)
    assert record["ccs/anchors_4_16b"] == 40
    torch.testing.assert_close(values.cms.detach(), 0.5 * record["cms/raw_4"] + record["cms/raw_16b"])
    torch.testing.assert_close(values.ccs.detach(), 2 * record["ccs/raw_4_16b"])
    only = create(terms=("ccs",))
    assert set(only.record(only(feature_maps(64, 64), labels)[1])) == {
        *(f"ccs/{name}_{s}" for name in ("K", "valid_terms") for s in (4, 16, 32)),
        *(f"ccs/{name}_4_{s}" for name in ("raw", "anchors") for s in (16, 32)),
    }


def test_only_indices_vectors_and_gradients_stay_alive() -> None:
    features, labels = feature_maps(64, 96), blocks(64, 96)
    loss = create(max_anchors=3 * 384)
    alive: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        alive[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(features, labels)
    matrix = (3 * 384) ** 2
    assert 0 < sum(alive.values()) < matrix / 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": ()}, "terms .* must be cms, ccs or both"),
        ({"terms": ("cms", "cl")}, "terms .* must be cms, ccs or both"),
        ({"group": "image"}, "group .* one of class, image_class, found 'image'"),
        ({"labels": "bilinear"}, "labels .* one of nearest, center, homogeneous"),
        ({"denominator": "none"}, "denominator .* one of negatives, all"),
        ({"lonely": "drop"}, "lonely .* one of skip, zero"),
        ({"min_views": 0}, "min_views .* at least 1, found 0"),
        ({"max_per_class": 0}, "max_per_class .* at least 1, found 0"),
        ({"max_anchors": 2}, "max_anchors .* at least num_classes = 3, found 2"),
        ({"temperature": 0.0}, "temperature .* above 0, found 0"),
        ({"strides": (4, 8)}, "stages .* distinct numbers from 0 to 1"),
        ({"pairs": ((0, 0), (0, 1))}, "pairs of different stages from 0 to 3"),
        ({"pairs": ((0, 4), (0, 1))}, "pairs of different stages from 0 to 3"),
        ({"stage_weights": (1.0,)}, "stage_weights .* 4 numbers of at least 0"),
        ({"pair_weights": (1.0, -1.0)}, "pair_weights .* 2 numbers of at least 0"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MultiscaleContrastLoss([nn.Identity()] * 4, 3, **options)  # type: ignore[arg-type]


def test_heads_for_the_stages_in_use() -> None:
    for heads, found in (
        ({stage: nn.Identity() for stage in (0, 1, 2)}, r"\[0, 1, 2\]"),
        ({stage: nn.Identity() for stage in (0, 1, 2, 3, 4)}, r"\[0, 1, 2, 3, 4\]"),
        ([nn.Identity()] * 5, "5"),
    ):
        with pytest.raises(ConfigError, match=rf"each of the stages \(0, 1, 2, 3\), found {found}"):
            MultiscaleContrastLoss(heads, 3)  # type: ignore[arg-type]
    assert set(MultiscaleContrastLoss([nn.Identity()] * 3, 3, terms=("ccs",)).heads) == {"0", "2", "3"}


def test_wrong_number_of_maps() -> None:
    with pytest.raises(UsageError, match="expects 4 feature maps, found 3"):
        create()(feature_maps(64, 64)[:3], blocks(64, 64))


def compiled_equals_eager(backend: str, norm: str, **options: object) -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    loss = create(norm, **options)
    keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
    torch._dynamo.reset()
    results = []
    for call in (loss, torch.compile(loss, fullgraph=True, backend=backend)):
        values, stats = call(features, labels, keys)
        results.append((tuple(values), tuple(stats), torch.autograd.grad(both(values), features)))
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["ln", "bn"])
@pytest.mark.parametrize("options", [{}, {"group": "image_class", "labels": "homogeneous"}], ids=["paper", "code"])
def test_compiles_without_graph_breaks(norm: str, options: dict[str, object]) -> None:
    compiled_equals_eager("aot_eager", norm, **options)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*_prims_common:FutureWarning")  # torch's own, inside inductor
@pytest.mark.parametrize("norm", ["ln", "bn"])
def test_compiles_with_inductor(norm: str) -> None:
    compiled_equals_eager("inductor", norm)
