"""Averages over transformed copies: exact where they can be, and blind to how a scene is turned."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ctrs.config import TestTimeAugmentation, parse_tta
from ctrs.inference.tta import averaged

KINDS = ("none", "flip", "d4")


def some_images(count=2, bands=3, height=11, width=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, bands, height, width, generator=generator)
    return images.contiguous(memory_format=torch.channels_last)


def edge_filter(images):
    """A network that tells up from down and left from right, as real ones do."""
    kernel = torch.randn(4, images.shape[1], 3, 3, generator=torch.Generator().manual_seed(5))
    return F.conv2d(images, kernel, padding=1)


@settings(deadline=None, max_examples=60)
@given(kind=st.sampled_from(KINDS), height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_network_that_returns_its_input_gives_it_back_bit_for_bit(kind, height, width, seed):
    images = some_images(height=height, width=width, seed=seed) * 1e3
    before = images.clone()
    mean = averaged(lambda seen: seen, images, TestTimeAugmentation(kind=kind))
    assert torch.equal(mean, before)
    assert torch.equal(images, before)  # nor is the input changed on the way


def test_every_copy_is_seen_once():
    images = some_images(1, 1, 3, 2)
    for kind, expected in (("none", 1), ("flip", 4), ("d4", 8)):
        seen = []
        averaged(lambda copy, seen=seen: seen.append(copy.clone()) or copy, images, TestTimeAugmentation(kind=kind))
        assert len({(tuple(copy.shape), tuple(copy.flatten().tolist())) for copy in seen}) == len(seen) == expected
        assert {tuple(copy.shape[-2:]) for copy in seen} == ({(3, 2), (2, 3)} if kind == "d4" else {(3, 2)})


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("mirror", [False, True])
def test_d4_makes_a_network_blind_to_rotation(turns, mirror):
    images = some_images()

    def turn(what):
        return torch.rot90(what.flip(-1) if mirror else what, turns, (-2, -1))

    d4 = TestTimeAugmentation(kind="d4")
    assert (edge_filter(turn(images)) - turn(edge_filter(images))).abs().max() > 0.1
    torch.testing.assert_close(averaged(edge_filter, turn(images), d4), turn(averaged(edge_filter, images, d4)))


def test_flip_is_the_mean_of_the_four_mirror_images():
    images = some_images()
    expected = torch.zeros(2, 4, 11, 7, dtype=torch.float64)
    for axes in ((), (-1,), (-2,), (-1, -2)):
        expected += edge_filter(images.flip(axes)).flip(axes).double() / 4
    mean = averaged(edge_filter, images, TestTimeAugmentation(kind="flip"))
    torch.testing.assert_close(mean.double(), expected, atol=1e-5, rtol=1e-5)


def test_scales_are_averaged_on_the_size_of_the_window():
    images = some_images(height=40, width=24)
    tta = parse_tta("multiscale:0.5,1,2")
    sizes = []

    def network(seen):
        sizes.append(tuple(seen.shape[-2:]))
        return edge_filter(seen)

    mean = averaged(network, images, tta)
    assert sizes == [(20, 12), (40, 24), (80, 48)]
    small = F.interpolate(images, size=(20, 12), mode="bilinear", antialias=True)
    large = F.interpolate(images, size=(80, 48), mode="bilinear")
    parts = (
        F.interpolate(edge_filter(small), size=(40, 24), mode="bilinear"),
        edge_filter(images),
        F.interpolate(edge_filter(large), size=(40, 24), mode="bilinear", antialias=True),
    )
    torch.testing.assert_close(mean, sum(parts) / 3)


def test_scale_one_alone_is_the_network_itself():
    images = some_images()
    assert torch.equal(averaged(edge_filter, images, parse_tta("multiscale:1")), edge_filter(images))


def test_a_constant_stays_itself_at_every_scale():
    images = torch.full((1, 3, 9, 5), 0.7)
    mean = averaged(lambda seen: seen, images, parse_tta("multiscale:0.25,0.75,1.25,4"))
    torch.testing.assert_close(mean, images)


@pytest.mark.parametrize("text", ["flip", "d4", "multiscale:0.5,1,1.5"])
@pytest.mark.parametrize("last", [True, False])
def test_the_layout_in_memory_is_kept(text, last):
    layout = torch.channels_last if last else torch.contiguous_format
    images = some_images(height=12, width=8).contiguous(memory_format=layout)
    seen = []

    def network(copy):
        seen.append(copy.is_contiguous(memory_format=layout))
        return edge_filter(copy)

    averaged(network, images, parse_tta(text))
    assert all(seen)


def test_half_precision_is_summed_in_float32():
    images = some_images()
    mean = averaged(lambda seen: edge_filter(seen).bfloat16(), images, TestTimeAugmentation(kind="d4"))
    assert mean.dtype is torch.float32
