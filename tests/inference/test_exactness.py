"""What a mask may not depend on: blending, read bands, column blocks, batches, threads, turned copies."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrs.classes import IGNORE_INDEX
from ctrs.config import PredictConfig
from ctrs.inference.pixels import FileBlocks
from ctrs.inference.products import Products

sizes = st.sampled_from([1, 2, 31, 32, 33, 64, 97, 127, 131]) | st.integers(1, 140)
configs = st.builds(
    PredictConfig,
    window_px=st.integers(32, 90),
    overlap=st.floats(0, 0.9),
    blend=st.sampled_from(["hann", "gaussian", "constant"]),
    batch_size=st.integers(1, 5),
    tta=st.sampled_from(["none", "none", "flip", "d4"]),
)


def random_scene(height, width, seed, levels=6):
    generator = np.random.default_rng(seed)
    # Few values, so that many pixels have equal classes: the first must win, whatever the blending rounds.
    pixels = (generator.integers(0, levels, (3, height, width)) * (240 // levels)).astype(np.uint8)
    return pixels, generator.random((height, width)) > 0.2


def reader(pixels, valid):
    def read(window):
        rows, cols = window.slices
        return pixels[:, rows, cols], valid[rows, cols]

    return read


def mapped(predictor, pixels, valid, config, *, count=1, blocks=None, products=None):
    """Map a scene in blocks of columns and put them together."""
    columns = []
    for part in predictor.plan(*valid.shape, config).in_blocks(count):
        rows = list(predictor.finished_rows(reader(pixels, valid), part, config, blocks=blocks, products=products))
        assert [one.row_off for one in rows] == part.row_starts
        columns.append(rows)
    names = [name for name in ("mask", "confidence", "logits") if getattr(columns[0][0], name) is not None]
    return {
        name: np.concatenate(
            [np.concatenate([getattr(one, name) for one in rows], axis=-2) for rows in columns], axis=-1
        )
        for name in names
    }


@pytest.fixture(scope="module")
def identity(make_identity):
    return make_identity()


@settings(max_examples=60)
@given(sizes, sizes, configs, st.integers(0, 9), st.integers(1, 4), st.integers(1, 70), st.integers(-30, 0))
def test_an_identity_network_gives_the_input_back(identity, height, width, config, seed, count, block_px, offset):
    pixels, valid = random_scene(height, width, seed)
    found = mapped(identity, pixels, valid, config, count=count, blocks=FileBlocks(height=block_px, row_offset=offset))
    np.testing.assert_array_equal(found["mask"], np.where(valid, pixels.argmax(axis=0), IGNORE_INDEX))


@settings(max_examples=25)
@given(sizes, sizes, configs, st.integers(0, 9), st.integers(2, 4), st.integers(1, 70))
def test_logits_do_not_depend_on_read_bands_or_column_blocks(edges, height, width, config, seed, count, block_px):
    pixels, valid = random_scene(height, width, seed)
    config = PredictConfig(**{**vars(config), "batch_size": 1})  # a batch's other windows are in its rounding
    products = Products.for_config(edges.classes, config, logits=True)
    whole = mapped(edges, pixels, valid, config, products=products)
    again = mapped(edges, pixels, valid, config, products=products, blocks=FileBlocks(height=block_px))
    parts = mapped(edges, pixels, valid, config, products=products, count=count)
    for found in (again, parts):
        np.testing.assert_array_equal(found["mask"], whole["mask"])
        np.testing.assert_array_equal(found["logits"][:, valid], whole["logits"][:, valid])


def probabilities(logits):
    return torch.from_numpy(logits).double().softmax(0).numpy()


@pytest.mark.parametrize("tta", ["none", "d4"])
def test_other_batches_and_threads_change_nothing_that_matters(edges, tta):
    pixels, valid = random_scene(211, 173, 0, levels=200)
    config = PredictConfig(batch_size=3, tta=tta, overlap=0.4)
    products = Products.for_config(edges.classes, config, logits=True)
    usual = mapped(edges, pixels, valid, config, products=products)
    same = mapped(edges, pixels, valid, config, products=products)
    np.testing.assert_array_equal(same["logits"], usual["logits"])
    before = torch.get_num_threads()
    others = [mapped(edges, pixels, valid, PredictConfig(**{**vars(config), "batch_size": 7}), products=products)]
    try:
        torch.set_num_threads(2 if before == 1 else 1)
        others.append(mapped(edges, pixels, valid, config, products=products))
    finally:
        torch.set_num_threads(before)
    first, second = np.sort(probabilities(usual["logits"]), axis=0)[-1:-3:-1]
    sure = valid & (first - second > 1e-4)
    assert sure.mean() > 0.5
    for other in others:
        np.testing.assert_allclose(
            probabilities(other["logits"])[:, valid], probabilities(usual["logits"])[:, valid], atol=1e-5
        )
        np.testing.assert_array_equal(other["mask"][sure], usual["mask"][sure])


def test_rows_that_hold_nothing_valid_are_there_all_the_same(edges):
    pixels, valid = random_scene(300, 90, 0)
    valid[:200] = False
    config = PredictConfig(window_px=32, overlap=0.0, confidence="probability")
    found = mapped(edges, pixels, valid, config)
    assert found["mask"].shape == found["confidence"].shape == (300, 90)
    assert (found["mask"][:200] == IGNORE_INDEX).all()
    assert (found["mask"] != IGNORE_INDEX).sum() == valid.sum()


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(32, 700), st.floats(0, 0.9))
def test_no_more_windows_than_the_stride_asks_for(identity, height, width, window_px, overlap):
    plan = identity.plan(height, width, PredictConfig(window_px=window_px, overlap=overlap))
    along = [1 if length <= window_px else -((window_px - length) // plan.stride_px) + 1 for length in (height, width)]
    assert plan.num_windows == along[0] * along[1]


@pytest.mark.parametrize(("factor", "window_px"), [(1.0, 64), (0.5, 128), (0.3, 213), (2.0, 32), (1.7, 38)])
def test_windows_are_of_as_much_ground_as_the_network_knows(make_identity, factor, window_px):
    predictor = make_identity(resize_factor=1.25)
    plan = predictor.plan(500, 500, PredictConfig(), gsd_factor=factor)
    assert (plan.window_px, plan.network_px, plan.antialias) == (window_px, 80, factor != 1.0)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_mask_is_on_the_scenes_grid_whatever_the_network_sees(make_identity, factor):
    pixels = np.zeros((3, 128, 160), np.uint8)
    pixels[1, 32:96, 48:112] = 200  # a square, which resizing keeps but for its rim
    predictor = make_identity(overlap=0.25)
    config = PredictConfig()
    plan = predictor.plan(128, 160, config, gsd_factor=factor)
    rows = predictor.finished_rows(reader(pixels, np.ones((128, 160), bool)), plan, config)
    mask = np.concatenate([one.mask for one in rows])
    wrong = mask != pixels.argmax(axis=0)
    for edge in (32, 96):
        wrong[edge - 4 : edge + 4] = False
    for edge in (48, 112):
        wrong[:, edge - 4 : edge + 4] = False
    assert not wrong.any()
