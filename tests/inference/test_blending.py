"""Weights and the accumulator of strips, against sums over the whole scene in float64."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctrs.inference import blending
from ctrs.inference.blending import StripAccumulator, axis_weights
from ctrs.inference.pixels import WindowPlan
from ctrs.raster.windows import spread_starts
from tests.inference.naive_blending import naive_weights

blends = st.sampled_from(["hann", "gaussian", "constant"])


@given(st.integers(1, 300), st.integers(1, 90), st.floats(0, 0.9), blends)
def test_weights_add_up_to_one_and_none_is_zero(length, size, overlap, blend):
    starts = spread_starts(length, size, max(1, round(size * (1 - overlap))))
    found = axis_weights(starts, size, length, blend)
    total, count = np.zeros(length), np.zeros(length, int)
    for start, weights in zip(starts, found, strict=True):
        assert weights.dtype == torch.float32
        assert len(weights) == min(size, length)
        assert weights.min() > 0
        total[start : start + size] += weights.double().numpy()
        count[start : start + size] += 1
    np.testing.assert_allclose(total, 1, atol=1e-6)
    for start, weights in zip(starts, found, strict=True):
        assert (weights.numpy()[count[start : start + size] == 1] == 1).all()  # alone, bit for bit


@pytest.mark.parametrize("blend", ["hann", "gaussian"])
def test_neighbours_cross_fade_over_the_pixels_they_share(blend):
    left, right = axis_weights([0, 40], 64, 104, blend)
    assert (left[:40] == 1).all()
    assert (right[24:] == 1).all()
    assert (left[40:].diff() < 0).all()
    torch.testing.assert_close(left[40:], right[:24].flip(0))
    assert left[40] > 0.98
    assert left[63] < 0.02


def test_constant_weights_are_the_plain_mean():
    left, right = axis_weights([0, 40], 64, 104, "constant")
    assert (left[40:] == 0.5).all()
    assert (right[:24] == 0.5).all()


plans = st.builds(
    WindowPlan,
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    window_px=st.integers(3, 30),
    overlap=st.floats(0, 0.9),
    batch_size=st.just(1),
)


def accumulator_for(plan, blend, num_classes=2):
    size = plan.window_px
    columns = axis_weights(plan.scene_col_starts, size, plan.width, blend)
    first = plan.scene_col_starts.index(plan.col_starts[0])
    return StripAccumulator(
        num_classes=num_classes,
        row_edges=plan.row_edges,
        col_edges=plan.col_edges,
        row_weights=axis_weights(plan.row_starts, size, plan.height, blend),
        col_weights=columns[first : first + len(plan.col_starts)],
    )


def accumulated(plan, blend, logits, skipped):
    """Put all windows of a plan; logits by place in the scene's windows."""
    accumulator = accumulator_for(plan, blend)
    found = np.full((2, plan.height, plan.columns.stop - plan.columns.start), np.nan, np.float32)
    for row in range(len(plan.row_starts)):
        for col, start in enumerate(plan.col_starts):
            place = row, plan.scene_col_starts.index(start)
            next_row = 0
            for top, sums in accumulator.put(row, col, None if place in skipped else logits[place]):
                assert top == next_row
                next_row += sums.shape[1]
                if col >= plan.num_repeated:
                    first, left = plan.row_edges[row] + top, plan.col_edges[col] - plan.columns.start
                    found[:, first : first + sums.shape[1], left : left + sums.shape[2]] = sums
            assert next_row == (0 if place in skipped else plan.row_edges[row + 1] - plan.row_edges[row])
    return found


@given(plans, blends, st.data())
def test_sums_equal_those_over_the_whole_scene(plan, blend, data):
    generator = np.random.default_rng(data.draw(st.integers(0, 9)))
    size = plan.window_px
    rows, cols = plan.row_starts, plan.scene_col_starts
    row_weights = naive_weights(rows, size, plan.height, blend)
    col_weights = naive_weights(cols, size, plan.width, blend)
    sums, total = np.zeros((2, plan.height, plan.width)), np.zeros((plan.height, plan.width))
    unseen = np.zeros((plan.height, plan.width), bool)
    logits, skipped = {}, set()
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            logits[i, j] = torch.from_numpy(generator.normal(0, 3, (2, size, size)).astype(np.float32))
            if generator.random() < 0.1:
                skipped.add((i, j))
                unseen[row : row + size, col : col + size] = True
                continue
            weights = np.outer(row_weights[i], col_weights[j])
            h, w = weights.shape
            sums[:, row : row + h, col : col + w] += logits[i, j].double().numpy()[:, :h, :w] * weights
            total[row : row + h, col : col + w] += weights
    found = accumulated(plan, blend, logits, skipped)
    expected = sums / np.where(unseen, np.nan, total)
    np.testing.assert_allclose(found[:, ~unseen], expected[:, ~unseen], atol=1e-5, rtol=1e-5)
    # Other numbers of rows at a time, and blocks of columns, give the same, bit for bit.
    num_rows = data.draw(st.integers(1, 40))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blending, "rows_at_a_time", lambda num_classes, height, width: min(height, num_rows))
        again = accumulated(plan, blend, logits, skipped)
    np.testing.assert_array_equal(again[:, ~unseen], found[:, ~unseen])
    parts = [accumulated(part, blend, logits, skipped) for part in plan.in_blocks(data.draw(st.integers(1, 4)))]
    np.testing.assert_array_equal(np.concatenate(parts, axis=2)[:, ~unseen], found[:, ~unseen])


@pytest.mark.parametrize("height", [200, 20_000])
def test_only_the_strip_below_is_kept(height):
    plan = WindowPlan(height=height, width=50, window_px=32, overlap=0.25, batch_size=1)
    accumulator = accumulator_for(plan, "hann", num_classes=3)
    overlap = max(start + 32 - following for start, following in pairwise(plan.row_starts))
    assert overlap <= 9
    held = {name: tuple(value.shape) for name, value in vars(accumulator).items() if isinstance(value, torch.Tensor)}
    strips = {"_below": (3, overlap, 50), "_beside": (3, 32, 14)}
    assert held == {"_piece": (3, 32, 32), "_factors": (3, 1, 32), **strips}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_however_logits_lie_in_memory_their_sums_are_the_same(dtype):
    plan = WindowPlan(height=50, width=70, window_px=32, overlap=0.25, batch_size=1)
    places = [(row, col) for row in range(len(plan.row_starts)) for col in range(len(plan.col_starts))]
    usual = {place: torch.randn(2, 32, 32, generator=torch.manual_seed(0)).to(dtype) for place in places}
    other = {place: logits.permute(1, 2, 0).contiguous().permute(2, 0, 1) for place, logits in usual.items()}
    found, again = (accumulated(plan, "hann", logits, set()) for logits in (usual, other))
    assert not np.isnan(found).any()
    np.testing.assert_array_equal(found, again)
