from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ctrs.errors import UsageError
from ctrs.losses.multiscale_sampling import AnchorSamples, cell_labels, sample_anchors


def random_maps(seed: int, num_classes: int, batch: int, plane: int) -> Tensor:
    """Cells with very uneven classes and void."""
    g = torch.Generator().manual_seed(seed)
    uneven = torch.rand(batch, num_classes + 1, generator=g) ** 4 + 1e-6
    return torch.multinomial(uneven, plane, replacement=True, generator=g).view(batch, 1, plane)


def draw(labels: Tensor, num_classes: int, seed: int, **options: object) -> AnchorSamples:
    keys = torch.rand(labels.numel(), generator=torch.Generator().manual_seed(seed))
    return sample_anchors(labels, keys, num_classes=num_classes, **options)  # type: ignore[arg-type]


def chosen(samples: AnchorSamples) -> list[list[int]]:
    return [row[:count].tolist() for row, count in zip(samples.cells, samples.counts.tolist(), strict=True)]


maps = st.builds(
    random_maps,
    seed=st.integers(0, 10_000),
    num_classes=st.just(4),
    batch=st.integers(1, 4),
    plane=st.sampled_from([1, 9, 60]),
)
caps = st.fixed_dictionaries(
    {
        "max_anchors": st.sampled_from([4, 22, 100, 4096]),
        "max_per_class": st.sampled_from([1, 7, 2500]),
        "min_views": st.sampled_from([1, 5]),
    }
)


@given(labels=maps, caps=caps, group=st.sampled_from(["class", "image_class"]), seed=st.integers(0, 1000))
def test_anchors_have_their_class_and_stand_once_under_the_caps(
    labels: Tensor, caps: dict[str, int], group: str, seed: int
) -> None:
    samples = draw(labels, 4, seed, group=group, **caps)
    flat = labels.flatten().tolist()
    rows = chosen(samples)
    assert samples.cells.shape == (4, min(caps["max_per_class"], caps["max_anchors"] // 4, len(flat)))
    assert sum(map(len, rows)) <= caps["max_anchors"]
    for c, row in enumerate(rows):
        assert all(flat[cell] == c for cell in row)  # so never void
        assert len(set(row)) == len(row) <= caps["max_per_class"]
    again = draw(labels, 4, seed, group=group, **caps)
    assert chosen(again) == rows


@given(labels=maps, caps=caps, seed=st.integers(0, 1000))
def test_the_rarest_class_sets_the_number_and_images_share_it(labels: Tensor, caps: dict[str, int], seed: int) -> None:
    samples = draw(labels, 4, seed, **caps)
    counts = [[int((image == c).sum()) for image in labels] for c in range(4)]
    enough = [c for c in range(4) if sum(counts[c]) >= caps["min_views"]]
    room = min(caps["max_per_class"], caps["max_anchors"] // 4)
    quota = min([sum(counts[c]) for c in enough] + [room]) if enough else 0
    assert samples.quota == quota
    assert samples.counts.tolist() == [quota if c in enough else 0 for c in range(4)]
    plane = labels.shape[2]
    for c, row in enumerate(chosen(samples)):
        of_image = Counter(cell // plane for cell in row)
        going_on = [of_image[b] for b in range(len(labels)) if of_image[b] < counts[c][b]]
        # Water: images that have cells left stand at one level, all others below it.
        if going_on:
            assert max(going_on) - min(going_on) <= 1
            assert max(of_image.values(), default=0) <= min(going_on) + 1


@given(labels=maps, caps=caps, seed=st.integers(0, 1000))
def test_grouping_of_the_code_gives_each_class_of_each_image_the_same(
    labels: Tensor, caps: dict[str, int], seed: int
) -> None:
    samples = draw(labels, 4, seed, group="image_class", **caps)
    plane = labels.shape[2]
    pairs = {
        (c, b): number
        for c in range(4)
        for b, image in enumerate(labels)
        if (number := int((image == c).sum())) >= caps["min_views"]
    }
    found = Counter((c, cell // plane) for c, row in enumerate(chosen(samples)) for cell in row)
    if not pairs:
        assert not found
        assert samples.quota == 0
        return
    room = min(caps["max_per_class"], caps["max_anchors"] // 4, labels.numel())
    most = max(Counter(c for c, _ in pairs).values())
    quota = min([*pairs.values(), max(1, min(caps["max_anchors"] // len(pairs), room // most))])
    assert samples.quota == quota
    assert set(found.values()) == {quota}
    assert set(found) <= set(pairs)
    for c in range(4):  # no image is left out unless there is no room for one anchor of each
        images = [pair for pair in pairs if pair[0] == c]
        assert sum(pair in found for pair in images) == min(len(images), room // quota)


def test_small_classes_do_not_set_the_number() -> None:
    labels = torch.full((1, 10, 10), 0)
    labels[0, 0, :4] = 1
    labels[0, 5:8] = 2
    samples = draw(labels, 3, 0, min_views=5)
    assert (samples.quota, samples.counts.tolist()) == (30, [30, 0, 30])
    assert draw(labels, 3, 0, min_views=4).counts.tolist() == [4, 4, 4]
    assert draw(torch.full((1, 10, 10), 3), 3, 0).counts.tolist() == [0, 0, 0]


def test_one_object_anywhere_sets_the_number_of_the_code() -> None:
    labels = torch.zeros(2, 10, 10, dtype=torch.int64)
    labels[:, 5:] = 1
    labels[1, 5:] = 0
    labels[1, 5, :5] = 1
    assert draw(labels, 2, 0).counts.tolist() == [55, 55]
    assert draw(labels, 2, 0, group="image_class").counts.tolist() == [10, 10]


def test_an_image_with_few_cells_gives_all_of_them() -> None:
    labels = torch.full((3, 1, 40), 1)
    labels[0, 0, :3] = 0
    labels[1, 0, :30] = 0
    labels[2, 0, :30] = 0
    samples = draw(labels, 2, 0, max_per_class=21)
    assert Counter(cell // 40 for cell in chosen(samples)[0]) == {0: 3, 1: 9, 2: 9}


@pytest.mark.parametrize("group", ["class", "image_class"])
def test_every_cell_and_every_image_is_as_likely(group: str) -> None:
    labels = torch.zeros(3, 1, 12, dtype=torch.int64)
    labels[:, :, 6:] = 1
    labels[0, 0, :3] = 1  # class 0: 3, 6 and 6 cells
    cells, images = Counter[int](), Counter[int]()
    for seed in range(900):
        (row, _) = chosen(draw(labels, 2, seed, max_per_class=1, min_views=1, group=group))
        (cell,) = row
        cells[cell] += 1
        images[cell // 12] += 1
    assert set(images) == {0, 1, 2}
    assert all(240 < number < 360 for number in images.values())
    assert all(60 < cells[cell] < 145 for cell in (3, 4, 5))
    assert all(25 < cells[cell] < 85 for cell in (*range(12, 18), *range(24, 30)))


def test_other_keys_give_other_anchors() -> None:
    labels = random_maps(1, 4, 2, 60)
    assert chosen(draw(labels, 4, 1, max_per_class=5, min_views=1)) != chosen(
        draw(labels, 4, 2, max_per_class=5, min_views=1)
    )


def test_sampling_does_not_wait_for_the_device(no_host_sync: Callable[[], AbstractContextManager[None]]) -> None:
    labels = random_maps(1, 4, 2, 60)
    keys = torch.rand(120)
    with no_host_sync():
        sample_anchors(labels, keys, num_classes=4)
        sample_anchors(labels, keys, num_classes=4, group="image_class")


def pixels(height: int, width: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randint(-1, 5, (2, -(-height // 2), -(-width // 2)), generator=g)  # 4 and 3 are void
    return coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :height, :width]


@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 70)])
@pytest.mark.parametrize("padded", [False, True])
def test_labels_of_cells_are_those_of_their_windows(height: int, width: int, padded: bool) -> None:
    labels = pixels(height, width)
    strides = (2, 4, 8)
    to = 8 if padded else 1
    sizes = [(-(-(-(-height // to) * to) // r), -(-(-(-width // to) * to) // r)) for r in strides]
    arguments = {"num_classes": 4, "strides": strides, "ignore_index": 3}
    found = {mode: cell_labels(labels, sizes, mode=mode, **arguments) for mode in ("nearest", "center", "homogeneous")}  # type: ignore[arg-type]
    void = {-1, 3, 4}
    for stage, ((h, w), r) in enumerate(zip(sizes, strides, strict=True)):
        for b in range(2):
            for i in range(h):
                for j in range(w):
                    seen = {
                        int(labels[b, y, x]) if y < height and x < width else -1
                        for y in range(i * r, i * r + r)
                        for x in range(j * r, j * r + r)
                    }
                    top = int(labels[b, i * r, j * r]) if i * r < height and j * r < width else -1
                    y, x = i * r + r // 2, j * r + r // 2
                    middle = int(labels[b, y, x]) if y < height and x < width else -1
                    assert found["nearest"][stage][b, i, j] == (4 if top in void else top)
                    assert found["center"][stage][b, i, j] == (4 if middle in void else middle)
                    only = seen.pop() if len(seen) == 1 else -1
                    assert found["homogeneous"][stage][b, i, j] == (4 if only in void else only)
    assert (found["homogeneous"][0] < 4).any()


def test_labels_of_cells_equal_nearest_interpolation() -> None:
    labels = torch.randint(0, 5, (2, 64, 96))
    for mode, known in (("nearest", "nearest"), ("center", "nearest-exact")):
        for r in (4, 32):
            (found,) = cell_labels(labels, [(64 // r, 96 // r)], num_classes=5, strides=(r,), mode=mode)  # type: ignore[arg-type]
            expected = torch.nn.functional.interpolate(labels[:, None].float(), scale_factor=1 / r, mode=known)
            assert torch.equal(found, expected[:, 0].long())


def test_labels_of_cells_with_more_classes_than_a_word_holds() -> None:
    labels = torch.tensor([28, 29, 57, 58, 90, 99]).repeat_interleave(2).expand(1, 2, 12)
    (found,) = cell_labels(labels, [(1, 6)], num_classes=99, strides=(2,), mode="homogeneous")
    assert found.tolist() == [[[28, 29, 57, 58, 90, 99]]]
    (found,) = cell_labels(labels.to(torch.uint8), [(1, 6)], num_classes=99, strides=(2,), mode="nearest")
    assert found.tolist() == [[[28, 29, 57, 58, 90, 99]]]


@pytest.mark.parametrize("mode", ["nearest", "center", "homogeneous"])
def test_maps_that_do_not_belong_to_the_labels(mode: str) -> None:
    with pytest.raises(UsageError, match="has 5 x 8 cells, but labels of 32 x 32 pixels need 8 x 8"):
        cell_labels(torch.zeros(1, 32, 32, dtype=torch.int64), [(5, 8)], num_classes=2, strides=(4,), mode=mode)  # type: ignore[arg-type]


def test_no_class_gets_more_than_its_share_of_a_stage_with_few_cells() -> None:
    """64 x 32 cells of 4 classes: 512 each; below 256 there is no such limit."""
    halves = (torch.arange(64 * 32) % 2).view(2, 32, 32)
    generator = torch.Generator().manual_seed(0)
    found = sample_anchors(halves, torch.rand(2048, generator=generator), num_classes=4, max_anchors=10**6)
    assert found.cells.shape == (4, 512)
    assert found.counts.tolist() == [512, 512, 0, 0]
    # Four even classes have exactly their share: nothing is lost where all are in the batch.
    quarters = (torch.arange(64 * 32) % 4).view(2, 32, 32)
    assert sample_anchors(quarters, torch.rand(2048), num_classes=4, max_anchors=10**6).counts.tolist() == [512] * 4
    small = (torch.arange(400) % 2).view(1, 20, 20)
    assert sample_anchors(small, torch.rand(400), num_classes=4, max_anchors=10**6).counts.tolist() == [200, 200, 0, 0]
