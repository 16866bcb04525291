from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ctrs.errors import UsageError
from ctrs.losses.patches import (
    VOID_BIT,
    classes_of_word,
    negative_mask,
    patch_bits,
    positive_mask,
    present_classes,
    stage_labels,
)

STRIDES = (4, 8, 16, 32)


def naive_masks(
    labels: Tensor, stride: int, h: int, w: int, num_classes: int, ignore: int, void: str
) -> tuple[Tensor, Tensor]:
    """Loop over cells and look at each window; pixels beyond the labels are void."""
    positive = torch.zeros(num_classes, len(labels), h, w, dtype=torch.bool)
    negative = torch.zeros_like(positive)
    for b, image in enumerate(labels):
        for i in range(h):
            for j in range(w):
                window = image[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
                values = window.flatten().tolist()
                seen = {v if 0 <= v < num_classes and v != ignore else "void" for v in values}
                if len(values) < stride * stride:
                    seen.add("void")
                for c in range(num_classes):
                    positive[c, b, i, j] = seen == {c}
                    negative[c, b, i, j] = c not in seen and (void == "allow" or "void" not in seen)
    return positive, negative


def masks(bits: Tensor, num_classes: int, void: str) -> tuple[Tensor, Tensor]:
    """The same by bit sets."""
    positive, negative = [], []
    for index, word in enumerate(bits):
        classes = classes_of_word(index, num_classes, bits.device)
        positive.append(positive_mask(word.reshape(-1), classes))
        negative.append(negative_mask(word.reshape(-1), classes, void))  # type: ignore[arg-type]
    shape = (num_classes, *bits.shape[1:])
    return torch.cat(positive).view(shape), torch.cat(negative).view(shape)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    num_classes=st.sampled_from([1, 2, 6, 29, 30, 61]),
    padded=st.booleans(),
    void=st.sampled_from(["exclude", "allow"]),
    dtype=st.sampled_from([torch.uint8, torch.int16, torch.int64]),
)
def test_masks_equal_a_loop_over_windows(
    seed: int, size: tuple[int, int], num_classes: int, padded: bool, void: str, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    # Coarse blobs so that homogeneous windows occur, with some ignored pixels.
    values = torch.tensor([0, min(1, num_classes - 1), num_classes - 1, 255, num_classes])
    coarse = values[torch.randint(0, 5, (2, -(-height // 8), -(-width // 8)), generator=generator)]
    labels = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width].to(dtype)
    strides = (2, 4, 8)
    multiple = 8
    top, right = (-(-height // multiple) * multiple, -(-width // multiple) * multiple) if padded else (height, width)
    sizes = [(-(-top // r), -(-right // r)) for r in strides]
    levels = patch_bits(labels, sizes, num_classes=num_classes, strides=strides)
    for bits, stride, (h, w) in zip(levels, strides, sizes, strict=True):
        expected = naive_masks(labels, stride, h, w, num_classes, 255, void)
        found = masks(bits, num_classes, void)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


def test_present_classes_leave_out_void_and_ignored_classes() -> None:
    labels = torch.tensor([[[0, 2, 255, -1]], [[2, 40, 2, 3]]]).repeat_interleave(4, 1)
    (bits,) = patch_bits(labels, [(1, 1)], num_classes=41, strides=[4], ignore_index=3)
    assert present_classes(bits, 41).nonzero().flatten().tolist() == [0, 2, 40]


def test_feature_maps_of_500_px_tight_and_padded() -> None:
    labels = torch.zeros(1, 500, 500, dtype=torch.uint8)
    tight = patch_bits(labels, [(125, 125), (63, 63), (32, 32), (16, 16)], num_classes=2, strides=STRIDES)
    padded = patch_bits(labels, [(128, 128), (64, 64), (32, 32), (16, 16)], num_classes=2, strides=STRIDES)
    for small, large in zip(tight, padded, strict=True):
        assert torch.equal(small, large[..., : small.shape[-2], : small.shape[-1]])
    homogeneous = [(level == 1).sum().item() for level in padded]
    assert homogeneous == [125 * 125, 62 * 62, 31 * 31, 15 * 15]


@pytest.mark.parametrize("strides", [(4, 8, 16, 16), (4, 8, 8, 8)])
@pytest.mark.parametrize("multiple", [1, 16, 32])
def test_dilated_encoders_see_inputs_padded_to_32_as_well(strides: tuple[int, ...], multiple: int) -> None:
    labels = torch.zeros(1, 97, 130, dtype=torch.uint8)
    multiple = min(multiple, strides[-1]) if multiple < 32 else multiple
    top, right = (-(-edge // multiple) * multiple for edge in (97, 130))
    sizes = [(-(-top // r), -(-right // r)) for r in strides]
    for bits, r, size in zip(patch_bits(labels, sizes, num_classes=2, strides=strides), strides, sizes, strict=True):
        assert tuple(bits.shape[-2:]) == size
        assert (bits == 1).sum().item() == (97 // r) * (130 // r)  # windows that no padding touches
        assert (bits[..., -(-97 // r) :, :] == 1 << VOID_BIT).all()


def test_channels_last_features_are_refused() -> None:
    labels = torch.zeros(1, 64, 64, dtype=torch.int64)
    with pytest.raises(UsageError, match=r"stride 8 has 8 x 96 cells.*need 8 x 8.*\(B, C, h, w\)"):
        patch_bits(labels, [(16, 16), (8, 96)], num_classes=2, strides=(4, 8))


@pytest.mark.parametrize("labels", [torch.zeros(2, 1, 8, 8, dtype=torch.int64), torch.zeros(2, 8, 8)])
def test_labels_of_another_shape_or_dtype_are_refused(labels: Tensor) -> None:
    with pytest.raises(UsageError, match=r"integers of shape \(B, H, W\)"):
        patch_bits(labels, [(2, 2)], num_classes=2, strides=(4,))


@pytest.mark.parametrize("strides", [(8, 4), (6,), (4, 16, 8, 16), (0, 4), ()])
def test_strides_must_be_powers_of_two_that_never_fall(strides: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="powers of two, none below the one before"):
        patch_bits(torch.zeros(1, 8, 8, dtype=torch.int64), [(1, 1)] * len(strides), num_classes=2, strides=strides)


@pytest.mark.parametrize("strides", [(4, 8, 16, 16), (4, 8, 8, 8)])
@pytest.mark.parametrize("size", [(64, 96), (50, 70)])
def test_repeated_strides_give_equal_levels(strides: tuple[int, ...], size: tuple[int, int]) -> None:
    height, width = size
    labels = torch.randint(0, 4, (2, -(-height // 8), -(-width // 8)))
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width]
    sizes = [(-(-height // r), -(-width // r)) for r in strides]
    levels = patch_bits(labels, sizes, num_classes=3, strides=strides)
    for bits, stride, (h, w) in zip(levels, strides, sizes, strict=True):
        expected = naive_masks(labels, stride, h, w, 3, 255, "exclude")
        found = masks(bits, 3, "exclude")
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


def test_stages_are_named_after_their_strides() -> None:
    assert stage_labels((4, 8, 16, 32)) == ("4", "8", "16", "32")
    assert stage_labels((4, 8, 16, 16)) == ("4", "8", "16", "16b")
    assert stage_labels((4, 8, 8, 8)) == ("4", "8", "8b", "8c")
