"""Arrays and scenes mapped by networks whose answer is known: exact classes, exact nodata, blending, options."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from ctrs.classes import IGNORE_INDEX
from ctrs.config import PredictConfig
from ctrs.errors import BandMismatchError, CheckpointError, UsageError
from ctrs.inference import Predictor
from ctrs.inference import predictor as predictor_module
from ctrs.model_files import CheckpointMetadata
from ctrs.models.checkpoint import save_checkpoint
from ctrs.models.segmentation import create_model
from tests.inference.naive_blending import naive_weights

configs = st.builds(
    PredictConfig,
    window_px=st.integers(32, 90),
    overlap=st.floats(0, 0.9),
    blend=st.sampled_from(["hann", "gaussian", "constant"]),
    batch_size=st.integers(1, 5),
)
sizes = st.sampled_from([1, 2, 31, 32, 33, 64, 97, 127, 131]) | st.integers(1, 140)


def random_scene(height, width, seed, count=3, dtype="uint8"):
    generator = np.random.default_rng(seed)
    if dtype == "float32":
        return generator.random((count, height, width), np.float32)
    # Few values, so that many pixels have equal classes: the first must win, whatever the blending rounds.
    return (generator.integers(0, 6, (count, height, width)) * 40).astype(dtype)


def naive_logits(predictor, pixels, valid, config):
    """Mean logits by float64 sums over the whole scene, one window at a time."""
    size = config.window_px
    height, width = valid.shape
    plan = predictor.plan(height, width, config)
    bands = predictor.bands
    images = bands.standardize(bands.scale(pixels)) * valid
    row_weights = naive_weights(plan.row_starts, size, height, config.blend)
    col_weights = naive_weights(plan.col_starts, size, width, config.blend)
    sums = np.zeros((predictor.classes.num_classes, height, width))
    total = np.zeros((height, width))
    for row, rows in zip(plan.row_starts, row_weights, strict=True):
        for col, cols in zip(plan.col_starts, col_weights, strict=True):
            part = images[:, row : row + size, col : col + size]
            h, w = part.shape[1:]
            padded = np.zeros((1, len(part), size, size), np.float32)
            padded[0, :, :h, :w] = part
            with torch.inference_mode():
                logits = predictor.model(torch.from_numpy(padded))[0].double().numpy()
            weights = np.outer(rows, cols)
            sums[:, row : row + h, col : col + w] += logits[:, :h, :w] * weights
            total[row : row + h, col : col + w] += weights
    return sums / total


@settings(max_examples=40)
@given(sizes, sizes, configs, st.integers(0, 9), st.sampled_from(["uint8", "uint16", "float32"]))
def test_an_identity_network_gives_the_input_back_bit_for_bit(identity_of, height, width, config, seed, dtype):
    pixels = random_scene(height, width, seed, dtype=dtype)
    valid = np.random.default_rng(seed).random((height, width)) > 0.3
    expected = np.where(valid, pixels.argmax(axis=0), IGNORE_INDEX)
    np.testing.assert_array_equal(identity_of(dtype).predict_array(pixels, valid, config), expected)


@pytest.fixture(scope="module")
def identity_of(make_identity):
    """Return a predictor for a dtype, made once."""
    return {dtype: make_identity(dtype=dtype) for dtype in ("uint8", "uint16", "float32")}.__getitem__


@settings(max_examples=25)
@given(sizes, sizes, configs, st.integers(0, 9))
def test_blending_equals_a_whole_scene_sum_in_float64(edges, height, width, config, seed):
    pixels = random_scene(height, width, seed)
    valid = np.random.default_rng(seed).random((height, width)) > 0.1
    expected = naive_logits(edges, pixels, valid, config)
    found = edges.array_logits(pixels, valid, config)
    np.testing.assert_allclose(found[:, valid], expected[:, valid], atol=1e-5, rtol=1e-5)
    assert np.isnan(found[:, ~valid]).all()
    probabilities = torch.from_numpy(found[:, valid]).softmax(0), torch.from_numpy(expected[:, valid]).softmax(0)
    torch.testing.assert_close(probabilities[0].double(), probabilities[1], atol=1e-5, rtol=0)


def test_windows_that_see_nothing_never_reach_the_network(make_identity):
    predictor = make_identity(window_px=32, overlap=0.0)
    seen = []
    predictor.model.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    valid = np.zeros((96, 96), bool)
    valid[40, 70] = True
    mask = predictor.predict_array(random_scene(96, 96, 0), valid)
    assert sum(seen) == 1
    assert (mask != IGNORE_INDEX).sum() == 1
    assert (predictor.predict_array(random_scene(96, 96, 0), valid & False) == IGNORE_INDEX).all()
    assert sum(seen) == 1


def test_same_batches_same_bytes_and_other_batches_nearly(edges):
    pixels = random_scene(150, 170, 1)
    one = edges.array_logits(pixels, None, PredictConfig(batch_size=3))
    np.testing.assert_array_equal(one, edges.array_logits(pixels, None, PredictConfig(batch_size=3)))
    np.testing.assert_allclose(one, edges.array_logits(pixels, None, PredictConfig(batch_size=1)), atol=1e-5)


class Recorder(nn.Module):
    """Keeps the shapes that it sees and returns its input."""

    def __init__(self):
        super().__init__()
        self.shapes = []
        self.strides = []

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        self.strides.append(images.stride())
        return images


def test_small_scenes_are_padded_to_whole_windows(make_predictor):
    recorder = Recorder()
    mask = make_predictor(recorder).predict_array(random_scene(5, 7, 0))
    assert recorder.shapes == [(1, 3, 64, 64)]
    assert mask.shape == (5, 7)


def test_input_is_channels_last(make_predictor):
    recorder = Recorder()
    make_predictor(recorder).predict_array(random_scene(64, 64, 0))
    assert recorder.strides == [(64 * 64 * 3, 1, 64 * 3, 3)]


@pytest.mark.parametrize("factor", [512 / 500, 0.5, 2.0])
def test_the_network_sees_resized_windows_and_the_result_is_on_the_scenes_grid(make_predictor, factor):
    recorder = Recorder()
    predictor = make_predictor(recorder, resize_factor=factor, overlap=0.0)
    pixels = random_scene(64, 64, 0)
    found = predictor.array_logits(pixels)
    edge = round(64 * factor)
    assert recorder.shapes == [(1, 3, edge, edge)]
    scaled = torch.from_numpy(predictor.bands.standardize(predictor.bands.scale(pixels)))[None]
    there = F.interpolate(scaled, size=(edge, edge), mode="bilinear", align_corners=False)
    back = F.interpolate(there, size=(64, 64), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(found, back, atol=1e-5)


def test_a_network_for_another_class_table_is_refused(make_predictor):
    predictor = make_predictor(nn.Conv2d(3, 4, 1))
    with pytest.raises(CheckpointError, match=r"logits of shape \(1, 4, 64, 64\), expected \(1, 3, 64, 64\)"):
        predictor.predict_array(random_scene(20, 20, 0))


def test_arrays_of_another_kind_are_refused(make_identity):
    with pytest.raises(BandMismatchError, match="array: 4 bands found, expected 3"):
        make_identity().predict_array(random_scene(20, 20, 0, count=4))
    with pytest.raises(BandMismatchError, match="array: dtype uint16 found, expected uint8"):
        make_identity().predict_array(random_scene(20, 20, 0, dtype="uint16"))


def test_options_for_another_device_or_precision_are_refused(make_identity, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UsageError, match="device 'cuda' asked for, but the network is on cpu"):
        make_identity().predict_array(random_scene(20, 20, 0), None, PredictConfig(device="cuda"))
    with pytest.raises(UsageError, match=r"precision 'bf16' asked for, but the network was loaded for torch.float32"):
        make_identity().predict_array(random_scene(20, 20, 0), None, PredictConfig(precision="bf16"))


def test_bf16_on_the_cpu_is_near(make_predictor):
    torch.manual_seed(0)
    network = nn.Conv2d(3, 3, 3, padding=1)
    pixels = random_scene(90, 90, 0)
    exact = make_predictor(network).array_logits(pixels)
    rough = make_predictor(network, precision="bf16").array_logits(pixels)
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.05


def test_the_hash_tells_networks_apart_and_not_where_they_live(make_predictor):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
    first = make_predictor(network).model_hash
    assert make_predictor(network.to(memory_format=torch.channels_last)).model_hash == first
    network[1].running_mean[0] += 1e-3
    assert make_predictor(network).model_hash != first


def test_from_checkpoint(tmp_path, make_predictor):
    torch.manual_seed(0)
    model = create_model("convnext_atto", "unetformer", num_classes=3, in_channels=3).eval()
    reference = make_predictor(model)
    metadata = CheckpointMetadata(
        architecture=model.architecture,
        classes=reference.classes,
        bands=reference.bands,
        window_px=96,
        overlap=0.5,
        resize_factor=1.25,
    )
    save_checkpoint(tmp_path / "run" / "best", model, metadata)
    predictor = Predictor.from_checkpoint(tmp_path / "run", device="cpu", precision="fp32")
    assert (predictor.window_px, predictor.overlap, predictor.resize_factor) == (96, 0.5, 1.25)
    assert (predictor.classes, predictor.bands) == (reference.classes, reference.bands)
    assert predictor.model_hash == reference.model_hash
    pixels = random_scene(100, 70, 0)
    again = make_predictor(model, window_px=96, overlap=0.5, resize_factor=1.25)
    np.testing.assert_array_equal(predictor.array_logits(pixels), again.array_logits(pixels))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"classes": ("roof",)}, "classes to write: 'roof' found, expected classes of the model: class 0, class 1"),
        ({"thresholds": (("roof", 0.5),)}, "thresholds: 'roof' found"),
    ],
)
def test_wrong_names_of_classes_are_refused_before_weights_are_read(
    tmp_path, make_predictor, monkeypatch, options, part
):
    model = create_model("test_convnext", "unetformer", num_classes=3, in_channels=3).eval()
    reference = make_predictor(model)
    metadata = CheckpointMetadata(
        architecture=model.architecture, classes=reference.classes, bands=reference.bands, window_px=64, overlap=0.25
    )
    save_checkpoint(tmp_path / "best", model, metadata)
    monkeypatch.setattr(predictor_module, "load_checkpoint", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(UsageError, match=part):
        Predictor.from_checkpoint(tmp_path / "best", device="cpu", config=PredictConfig(**options))
