from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ctrs.losses.patches import negative_mask, patch_bits, positive_mask
from ctrs.losses.sampling import Samples, all_rows, draw_keys, gather_rows, sample_cells, sample_classes


def blobs(seed: int, num_classes: int, size: int = 64, batch: int = 2, cell: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, num_classes + 1, (batch, size // cell, size // cell), generator=generator)
    coarse[coarse == num_classes] = 255
    return coarse.repeat_interleave(cell, 1).repeat_interleave(cell, 2)


def sampled(labels: Tensor, num_classes: int, count: int, seed: int) -> tuple[Tensor, Samples]:
    (bits,) = patch_bits(labels, [(16, 16)], num_classes=num_classes, strides=(4,))
    (keys,) = draw_keys([(2, 3, 16, 16)], torch.Generator().manual_seed(seed))
    return bits, sample_classes(bits, keys, num_classes=num_classes, count=count)


@given(seed=st.integers(0, 1000), num_classes=st.integers(1, 5), count=st.sampled_from([1, 3, 20, 2000]))
def test_samples_come_from_their_pool_without_repetition(seed: int, num_classes: int, count: int) -> None:
    labels = blobs(seed, num_classes)
    bits, samples = sampled(labels, num_classes, count, seed)
    for c in range(num_classes):
        one = torch.tensor([[1 << c]], dtype=torch.int32)
        for cells, number, pool in (
            (samples.positives[c], int(samples.positive_count[c]), positive_mask(bits.reshape(-1), one)[0]),
            (samples.negatives[c], int(samples.negative_count[c]), negative_mask(bits.reshape(-1), one)[0]),
        ):
            chosen = cells[:number]
            assert number == min(count, int(pool.sum()))
            assert pool[chosen].all()
            assert len(set(chosen.tolist())) == number


def test_void_windows_are_never_sampled() -> None:
    labels = torch.full((2, 64, 64), 255)
    labels[:, :32] = 0
    labels[:, :32, :32] = 1
    labels[0, 0, 0] = 255
    _, samples = sampled(labels, 2, 2000, 0)
    used = torch.cat(
        [samples.positives[0, : samples.positive_count[0]], samples.negatives[0, : samples.negative_count[0]]]
    )
    assert 0 not in used.tolist()
    assert all(cell % 256 < 128 for cell in used.tolist())
    assert (samples.positive_count.tolist(), samples.negative_count.tolist()) == ([128, 127], [127, 128])


def test_equal_keys_give_equal_samples_and_other_keys_others() -> None:
    labels = blobs(3, 3)
    _, first = sampled(labels, 3, 10, 1)
    _, again = sampled(labels, 3, 10, 1)
    _, other = sampled(labels, 3, 10, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.positives, other.positives)


def test_every_order_is_as_likely() -> None:
    pool = torch.tensor([[True, False, True, True]])
    generator = torch.Generator().manual_seed(0)
    orders: dict[tuple[int, ...], int] = {}
    for _ in range(1200):
        cells, count = sample_cells(pool, torch.rand(4, generator=generator), 4)
        order = tuple(cells[0, : int(count)].tolist())
        orders[order] = orders.get(order, 0) + 1
    assert len(orders) == 6
    assert all(140 < number < 260 for number in orders.values())


def test_keys_are_an_order() -> None:
    pool = torch.tensor([[True, False, True, True, True], [False, True, False, False, False]])
    keys = torch.empty(5)
    keys[[3, 1, 0, 4, 2]] = torch.linspace(0.9, 0.0, 5)  # in descending order; 0 is a key like others
    cells, count = sample_cells(pool, keys, 4)
    assert count.tolist() == [4, 1]
    assert cells[0].tolist() == [3, 0, 4, 2]
    assert cells[1, 0] == 1


def test_draw_keys_has_one_key_for_each_cell() -> None:
    keys = draw_keys([(2, 64, 5, 7), (2, 128, 3, 4)], torch.Generator().manual_seed(0))
    assert [key.shape for key in keys] == [(70,), (24,)]
    assert all(key.min() >= 0 and key.max() < 1 for key in keys)


def test_more_classes_than_a_word_holds() -> None:
    labels = blobs(5, 3)
    labels[labels == 2] = 40
    _, few = sampled(torch.where(labels == 40, 2, labels), 3, 50, 7)
    _, many = sampled(labels, 41, 50, 7)
    for name in Samples._fields:
        assert torch.equal(getattr(many, name)[[0, 1, 40]], getattr(few, name))


def test_gathered_rows_are_the_cells_vectors_in_any_memory_format() -> None:
    features = torch.randn(2, 3, 4, 5)
    cells = torch.tensor([0, 7, 39, 7])
    valid = torch.tensor([True, True, True, False])
    expected = torch.stack([features[0, :, 0, 0], features[0, :, 1, 2], features[1, :, 3, 4], torch.zeros(3)])
    assert torch.equal(gather_rows(features, cells, valid), expected)
    assert torch.equal(gather_rows(features.to(memory_format=torch.channels_last), cells, valid), expected)


def test_all_rows_are_the_cells_vectors_in_any_memory_format() -> None:
    features = torch.randn(2, 3, 4, 5)
    features[1, :, 3, 4] = float("nan")
    used = torch.ones(40, dtype=torch.bool)
    used[[3, 39]] = False
    expected = torch.stack([features[cell // 20, :, cell % 20 // 5, cell % 5] for cell in range(40)])
    expected[~used] = 0
    assert torch.equal(all_rows(features, used), expected)
    assert torch.equal(all_rows(features.to(memory_format=torch.channels_last), used), expected)


def test_gradients_of_cells_that_were_picked_twice_add_up() -> None:
    features = torch.randn(2, 3, 2, 2, requires_grad=True)
    cells, valid = torch.tensor([6, 1, 6, 6]), torch.tensor([True, True, True, False])
    weights = torch.randn(4, 3)
    (gather_rows(features, cells, valid) * weights).sum().backward()
    expected = torch.zeros(2, 3, 2, 2)
    expected[1, :, 1, 0] = weights[0] + weights[2]
    expected[0, :, 0, 1] = weights[1]
    torch.testing.assert_close(features.grad, expected)


def test_gradients_add_up_in_the_same_order_in_every_run() -> None:
    features = torch.randn(2, 64, 16, 16, requires_grad=True)
    cells, valid = torch.randint(0, 64, (40_000,)), torch.ones(40_000, dtype=torch.bool)
    weights = torch.randn(40_000, 64)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        runs = [
            torch.autograd.grad((gather_rows(features, cells, valid) * weights).sum(), features)[0] for _ in range(6)
        ]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(run, runs[0]) for run in runs)


def test_gather_lets_nothing_in_from_other_cells() -> None:
    features = torch.randn(1, 2, 2, 2)
    features[0, :, 1, 1] = float("nan")
    features.requires_grad_()
    rows = gather_rows(features, torch.tensor([0, 3]), torch.tensor([True, False]))
    rows.square().sum().backward()
    assert rows.isfinite().all()
    assert features.grad is not None
    assert features.grad.isfinite().all()
