"""A network on its device: layout, precision, sizes, and what it may not do to its caller."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ctrs.config import TestTimeAugmentation
from ctrs.errors import CheckpointError, DeviceError
from ctrs.inference.network import Network

CPU = torch.device("cpu")


class Watched(nn.Module):
    """Keeps what it sees and answers with a function of it."""

    def __init__(self, answer=lambda images: images):
        super().__init__()
        self.answer = answer
        self.seen = []

    def forward(self, images):
        self.seen.append((tuple(images.shape), images.is_contiguous(memory_format=torch.channels_last)))
        assert torch.is_inference_mode_enabled()
        return self.answer(images)


def network_of(module, precision=torch.float32):
    return Network(module, num_classes=3, device=CPU, precision=precision)


def some_images(size=24, count=2):
    images = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (count, 3, size, size)).astype(np.float32))
    return images.contiguous(memory_format=torch.channels_last)


def test_images_come_channels_last_and_logits_as_they_are():
    watched = Watched()
    images = some_images()
    assert network_of(watched).logits(images) is images
    assert watched.seen == [((2, 3, 24, 24), True)]


def test_size_of_the_network_and_back():
    images, watched = some_images(), Watched()
    found = network_of(watched).logits(images, size_px=36)
    assert watched.seen == [((2, 3, 36, 36), True)]
    there = F.interpolate(images, size=(36, 36), mode="bilinear", align_corners=False)
    back = F.interpolate(there, size=(24, 24), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, back)


def test_every_pixel_counts_where_there_become_fewer():
    # One bright pixel between the samples of plain bilinear interpolation by 1/4.
    images = torch.zeros(1, 3, 32, 32)
    images[..., 16, 16] = 1
    seen = []
    module = Watched(lambda images: seen.append(images.clone()) or images)
    network_of(module).logits(images, size_px=8)
    network_of(module).logits(images, size_px=8, antialias=True)
    assert seen[0].sum() == 0
    assert seen[1].sum() == pytest.approx(3 / 16, rel=1e-3)


def test_copies_are_averaged_in_the_networks_layout():
    watched = Watched()
    images = some_images()
    found = network_of(watched).logits(images, tta=TestTimeAugmentation(kind="d4"))
    assert watched.seen == [((2, 3, 24, 24), True)] * 8
    assert torch.equal(found, images)


def test_weights_stay_in_float32_and_arithmetic_does_not():
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 3, 3, padding=1)
    dtypes = []
    convolution.register_forward_hook(lambda _module, _inputs, output: dtypes.append(output.dtype))
    exact = network_of(convolution).logits(some_images())
    rough = network_of(convolution, torch.bfloat16).logits(some_images())
    assert dtypes == [torch.float32, torch.bfloat16]
    assert convolution.weight.dtype == torch.float32
    assert 0 < (exact - rough).abs().max() < 0.05


def test_another_number_of_classes_is_refused():
    with pytest.raises(CheckpointError, match=r"logits of shape \(2, 1, 24, 24\), expected \(2, 3, 24, 24\)"):
        network_of(Watched(lambda images: images[:, :1])).logits(some_images())


def test_too_little_memory_is_told_in_one_line():
    def full(images):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    with pytest.raises(DeviceError, match="out of memory with 2 windows of 24 px at a time; pass a smaller --batch-s"):
        network_of(Watched(full)).logits(some_images())


def test_what_cannot_be_compiled_is_told_in_one_line(monkeypatch):
    def failing(module, **options):
        def run(images):
            raise torch._dynamo.exc.BackendCompilerFailed("inductor", RuntimeError("no compiler\nfound"), None)

        return run

    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(DeviceError, match=r"cannot be compiled here .*no compiler found.*; leave --compile out"):
        network_of(Watched()).logits(some_images(), compiled=True)


@pytest.mark.slow
def test_a_compiled_network_says_nearly_the_same():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3, 1))
    network = network_of(module)
    torch.testing.assert_close(
        network.logits(some_images(), compiled=True), network.logits(some_images()), atol=1e-5, rtol=1e-5
    )
