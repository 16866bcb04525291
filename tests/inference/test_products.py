"""What is made of blended logits, against numpy in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrs.classes import ClassMap, LandClass
from ctrs.config import PredictConfig
from ctrs.errors import UsageError
from ctrs.inference import products as products_module
from ctrs.inference.products import Products, largest_class

NAMES = ("road", "building", "tree", "water")
CLASSES = ClassMap(
    classes=(
        *(LandClass(value=10 * i, name=name, color=(i, 100, 200)) for i, name in enumerate(NAMES)),
        LandClass(value=99, name="void", color=(1, 1, 1), ignored=True),
    )
)


def some_sums(height=37, width=50, num_classes=4, seed=0, scale=3.0):
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.2, 1.8, (height, width)).astype(np.float32)
    mean = rng.normal(0, scale, (num_classes, height, width)).astype(np.float32)
    return torch.from_numpy(mean * weights), torch.from_numpy(weights)


def softmax(sums, weights):
    logits = sums.numpy().astype(np.float64) / (1.0 if weights is None else weights.numpy().astype(np.float64))
    shares = np.exp(logits - logits.max(axis=0))
    return shares / shares.sum(axis=0)


def make(sums, weights=None, *, table=CLASSES, logits=False, **options):
    products = Products.for_config(table, PredictConfig(**options), logits=logits)
    return products, products.make(sums, weights)


def test_only_the_mask_unless_more_is_wanted():
    sums, weights = some_sums()
    products, block = make(sums, weights)
    np.testing.assert_array_equal(block.mask.numpy(), sums.numpy().argmax(axis=0))
    assert block.mask.dtype is torch.uint8
    assert (block.confidence, block.probabilities, block.logits) == (None, None, None)
    assert products.written is CLASSES
    assert products.values == (0, 1, 2, 3)


@pytest.mark.parametrize("with_weights", [True, False])
@pytest.mark.parametrize("cached", [10, 500, 2**20])
def test_each_kind_of_confidence(monkeypatch, cached, with_weights):
    monkeypatch.setattr(products_module, "_CACHED_VALUES", cached)
    sums, weights = some_sums()
    weights = weights if with_weights else None
    p = softmax(sums, weights)
    ordered = np.sort(p, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(p * np.log(p), axis=0)
    expected = {
        "probability": ordered[-1],
        "margin": ordered[-1] - ordered[-2],
        "entropy": 1 - entropy / np.log(4),
    }
    masks = []
    for kind, values in expected.items():
        _, block = make(sums, weights, confidence=kind)
        np.testing.assert_allclose(block.confidence.numpy(), values, atol=2e-6)
        assert block.confidence.dtype is torch.float32
        masks.append(block.mask.numpy())
    for mask in masks:  # the same bit for bit as without
        np.testing.assert_array_equal(mask, make(sums, weights)[1].mask.numpy())


@pytest.mark.parametrize("kind", ["probability", "margin", "entropy"])
def test_confidence_at_the_ends(kind):
    equal = torch.full((4, 1, 1), 7.0)
    sure = torch.tensor([0.0, 1e4, 0.0, -1e4]).reshape(4, 1, 1)
    assert make(equal, confidence=kind)[1].confidence.item() == pytest.approx(0.25 * (kind == "probability"), abs=1e-6)
    assert make(sure, confidence=kind)[1].confidence.item() == 1.0
    one = ClassMap(classes=CLASSES.classes[:1])
    assert make(equal[:1], table=one, confidence=kind)[1].confidence.item() == 1.0


def test_probabilities_of_all_or_of_chosen_classes():
    sums, weights = some_sums()
    p = softmax(sums, weights)
    products, block = make(sums, weights, probabilities="uint8")
    assert products.probability_names == NAMES
    stored = block.probabilities.numpy()
    assert stored.dtype == np.uint8
    assert stored.max() <= 254
    np.testing.assert_allclose(stored / 254, p, atol=0.5 / 254 + 1e-6)
    products, block = make(sums, weights, probabilities="float16", classes=("tree", "road", "tree"))
    assert products.probability_names == ("tree", "road")
    assert block.probabilities.dtype is torch.float16
    np.testing.assert_allclose(block.probabilities.numpy(), p[[2, 0]], atol=2e-6, rtol=2**-11 * 1.01)


def test_the_classes_that_are_not_written_become_one():
    sums, weights = some_sums()
    products, block = make(sums, weights, classes=("tree", "road"))
    largest = sums.numpy().argmax(axis=0)
    np.testing.assert_array_equal(block.mask.numpy(), np.array([0, 4, 2, 4])[largest])
    assert products.values == (0, 2, 4)
    assert products.written.names == (*NAMES, "other")
    red, green, blue = products.written.colors[-1]
    assert red == green == blue
    everything, _ = make(sums, weights, classes=NAMES[::-1])
    assert everything.written is CLASSES
    assert everything.values == (0, 1, 2, 3)


def test_a_class_that_is_called_other_already_keeps_its_name():
    greys = (LandClass(value=0, name="other", color=(160, 160, 160)), LandClass(value=1, name="b", color=(0, 0, 0)))
    products = Products.for_config(ClassMap(classes=greys), PredictConfig(classes=("b",)))
    assert products.written.names == ("other", "b", "other 2")
    assert len(set(products.written.colors)) == 3


def naive_mask(p, thresholds, kept):
    mask = np.empty(p.shape[1:], np.uint8)
    for row, col in np.ndindex(mask.shape):
        column = p[:, row, col]
        reached = [k for k in thresholds if column[k] >= thresholds[k]]
        candidates = reached or [k for k in range(len(column)) if k not in thresholds]
        best = max(candidates, key=lambda k: (column[k], -k))
        mask[row, col] = best if best in kept else len(column)
    return mask


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    thresholds=st.dictionaries(st.sampled_from(NAMES), st.floats(0.05, 1.0), max_size=3),
    kept=st.sets(st.sampled_from(NAMES)),
)
def test_thresholds_by_their_rule(seed, thresholds, kept):
    sums, weights = some_sums(9, 11, seed=seed, scale=1.0)
    p = softmax(sums, weights)
    by_index = {NAMES.index(name): least for name, least in thresholds.items()}
    near = np.zeros(p.shape[1:], bool)
    for index, least in by_index.items():
        near |= abs(p[index] - least) < 1e-6
    _, block = make(sums, weights, thresholds=tuple(thresholds.items()), classes=tuple(kept))
    expected = naive_mask(p, by_index, {NAMES.index(name) for name in kept or NAMES})
    np.testing.assert_array_equal(block.mask.numpy()[~near], expected[~near])


def test_equal_classes_are_the_first_of_them():
    sums = torch.tensor([1.0, 1.0, 1.0, 0.0]).reshape(4, 1, 1)
    assert make(sums)[1].mask.item() == 0
    assert make(sums, thresholds=(("road", 0.9), ("water", 0.9)))[1].mask.item() == 1
    assert make(sums, thresholds=(("tree", 0.2), ("building", 0.2)))[1].mask.item() == 1


def test_mean_logits_on_request():
    sums, weights = some_sums()
    _, block = make(sums, weights, logits=True)
    np.testing.assert_array_equal(block.logits.numpy(), (sums / weights).numpy())
    _, block = make(sums, None, logits=True)
    np.testing.assert_array_equal(block.logits.numpy(), sums.numpy())


def test_the_sums_stay_as_they_are_and_need_not_be_contiguous():
    sums, weights = some_sums(80, 60)
    before = sums.clone()
    part = sums[:, 3:70, 5:40]
    options = {"confidence": "entropy", "probabilities": "float16", "thresholds": (("tree", 0.5),)}
    _, block = make(part, weights[3:70, 5:40], **options, logits=True)
    _, whole = make(sums, weights, **options, logits=True)
    torch.testing.assert_close(sums, before, rtol=0, atol=0)
    np.testing.assert_array_equal(block.mask.numpy(), whole.mask.numpy()[3:70, 5:40])
    np.testing.assert_array_equal(block.confidence.numpy(), whole.confidence.numpy()[3:70, 5:40])
    np.testing.assert_array_equal(block.probabilities.numpy(), whole.probabilities.numpy()[:, 3:70, 5:40])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ("Tree",)}, r"classes to write: 'Tree' found, expected classes of the model: road, building"),
        ({"thresholds": (("void", 0.5),)}, r"thresholds: 'void' found, expected classes of the model"),
        ({"thresholds": tuple((name, 0.5) for name in NAMES)}, r"all 4 classes have one.*leave one class without"),
    ],
)
def test_names_are_checked(options, message):
    with pytest.raises(UsageError, match=message):
        Products.for_config(CLASSES, PredictConfig(**options))


def test_largest_class_of_many():
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (250, 13, 17)).astype(np.float32))
    np.testing.assert_array_equal(largest_class(values).numpy(), values.numpy().argmax(axis=0))


@pytest.mark.parametrize("with_weights", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"thresholds": (("building", 0.1),)},
        {"thresholds": (("building", 0.6), ("tree", 0.3))},
        {"classes": ("building",)},
        {"classes": ("water", "building"), "thresholds": (("tree", 0.2),)},
    ],
)
def test_confidence_is_that_of_the_class_that_the_mask_shows(options, with_weights):
    sums, weights = some_sums(scale=1.0)
    weights = weights if with_weights else None
    p = softmax(sums, weights)
    groups = {value: p[value] for value in range(4)}
    if "classes" in options:
        kept = [NAMES.index(name) for name in options["classes"]]
        groups = {**{value: p[value] for value in kept}, 4: sum(p[value] for value in range(4) if value not in kept)}
    for kind in ("probability", "margin"):
        _, block = make(sums, weights, confidence=kind, **options)
        mask = block.mask.numpy()
        own = np.select([mask == value for value in groups], list(groups.values()))
        if kind == "margin":
            rivals = [np.where(mask == value, 0, share) for value, share in groups.items()]
            own = np.maximum(own - np.max(rivals, axis=0), 0)
        np.testing.assert_allclose(block.confidence.numpy(), own, atol=2e-6)
    largest = make(sums, weights, confidence="probability")[1].confidence.numpy()
    shown = make(sums, weights, confidence="probability", **options)[1].confidence.numpy()
    assert not np.allclose(largest, shown, atol=1e-3)
    entropy = make(sums, weights, confidence="entropy", **options)[1].confidence
    assert torch.equal(entropy, make(sums, weights, confidence="entropy")[1].confidence)
