"""Configurations: keys, types and ranges are checked, and TOML goes round."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import get_args

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from ctrs import config
from ctrs.config import (
    CT_PAPER,
    DEFAULT_WEIGHTS,
    RECIPES,
    AugmentConfig,
    ContrastConfig,
    EvalConfig,
    MultiscaleConfig,
    PneConfig,
    PredictConfig,
    PrepareConfig,
    SupconConfig,
    TrainConfig,
    VectorizeConfig,
    from_mapping,
    merge,
    parse_loss,
    read_toml,
    resolve_train_config,
    run_name,
    to_plain,
)
from ctrs.errors import ConfigError

ALL = [
    PrepareConfig,
    TrainConfig,
    PredictConfig,
    EvalConfig,
    VectorizeConfig,
    ContrastConfig,
    SupconConfig,
    MultiscaleConfig,
    PneConfig,
    AugmentConfig,
]

changed = [
    PrepareConfig(preset="potsdam", classes=Path("a/classes.toml"), val=("2_1*",), tile_px=500, val_fraction=0.2),
    TrainConfig(
        loss="cl:0.5+infonce",
        recipe="ct-paper",
        learning_rate=8e-5,
        batch_size=4,
        contrast=ContrastConfig(stages=(0, 3), top=0.25, clip_mode="none"),
        augment=AugmentConfig(scale=(1.0, 1.0), flip=False),
    ),
    PredictConfig(bidx=(3, 2, 1), overlap=0.5, window_px=256),
    EvalConfig(split="val", predict=PredictConfig(threads=2)),
    VectorizeConfig(classes=("building", "car"), tolerance_m=0.0),
]


@pytest.mark.parametrize("entry", [*(kind() for kind in ALL), *changed], ids=lambda entry: type(entry).__name__)
def test_goes_round_through_toml(entry):
    text = tomli_w.dumps(to_plain(entry))
    assert from_mapping(type(entry), tomllib.loads(text)) == entry


@given(
    st.builds(
        ContrastConfig,
        stages=st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True).map(tuple),
        num_pairs=st.integers(2, 10**6),
        top=st.floats(0.01, 1),
        temperature=st.floats(1e-6, 100),
        clip_mode=st.sampled_from(get_args(config.ClipMode)),
    )
)
def test_contrast_goes_round_through_toml(entry):
    assert from_mapping(ContrastConfig, tomllib.loads(tomli_w.dumps(to_plain(entry)))) == entry


@pytest.mark.parametrize("kind", ALL)
def test_configurations_are_frozen_and_described(kind):
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind().anything = 1
    described = kind.__doc__.split("Args:")[1]
    missing = [entry.name for entry in dataclasses.fields(kind) if f"{entry.name}:" not in described]
    assert not missing


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (TrainConfig, {"epoch": 3}, "run.toml: unknown key 'epoch'; did you mean 'epochs'?"),
        (TrainConfig, {"zzz": 3}, "run.toml: unknown key 'zzz'; expected one of: backbone, "),
        (TrainConfig, {"contrast": {"tops": 1}}, "run.toml: contrast: unknown key 'tops'; did you mean 'top'?"),
        (TrainConfig, {"contrast": {"top": 2}}, "run.toml: contrast.top = 2.0 found, expected above 0 and"),
        (TrainConfig, {"contrast": 3}, "run.toml: contrast = 3 found, expected a table"),
        (TrainConfig, {"epochs": 0}, "run.toml: epochs = 0 found, expected 1 or more"),
        (TrainConfig, {"epochs": "3"}, "run.toml: epochs = '3' found, expected a whole number"),
        (TrainConfig, {"epochs": True}, "run.toml: epochs = true found, expected a whole number"),
        (TrainConfig, {"epochs": 2.0}, "run.toml: epochs = 2.0 found, expected a whole number"),
        (TrainConfig, {"learning_rate": float("nan")}, "run.toml: learning_rate = nan found, expected above 0"),
        (TrainConfig, {"learning_rate": True}, "run.toml: learning_rate = true found, expected a number"),
        (TrainConfig, {"decoder": "unett"}, "run.toml: decoder = 'unett' found, expected one of: dcfam, unetformer"),
        (TrainConfig, {"warmup_epochs": 50}, "run.toml: warmup_epochs = 50 found, expected 0 to epochs - 1"),
        (
            TrainConfig,
            {"augment": {"scale": [2, 1]}},
            r"run.toml: augment.scale = \(2.0, 1.0\) found, expected",
        ),
        (TrainConfig, {"augment": {"flip": 1}}, "run.toml: augment: flip = 1 found, expected true or false"),
        (TrainConfig, {"weight_decay": float("inf")}, "run.toml: weight_decay = inf found"),
        (
            TrainConfig,
            {"contrast": {"min_positive_pairs": 0}},
            "run.toml: contrast.min_positive_pairs = 0 found, expected 1 or more",
        ),
        (TrainConfig, {"loss": "tripled"}, "run.toml: loss 'tripled': unknown term 'tripled', expected none, or cl, "),
        (
            TrainConfig,
            {"supcon": {"stages": [0, 0]}},
            r"run.toml: supcon.stages = \(0, 0\) found, expected distinct numbers from 0 to 3",
        ),
        (
            TrainConfig,
            {"multiscale": {"stages": [0, 1]}},
            r"run.toml: multiscale.stage_weights = \(1.0, 0.7, 0.4, 0.1\) found, expected 2 numbers",
        ),
        (
            TrainConfig,
            {"multiscale": {"pairs": [[0, 0]], "pair_weights": [1]}},
            r"run.toml: multiscale.pairs = \(\(0, 0\),\) found, expected pairs of two different stages",
        ),
        (TrainConfig, {"multiscale": {"hidden_layers": 3}}, "run.toml: multiscale.hidden_layers = 3 found"),
        (TrainConfig, {"pne": {"temperature": 0}}, "run.toml: pne.temperature = 0.0 found, expected 1e-6 to 1e6"),
        (PrepareConfig, {"val": "2_10"}, "run.toml: val = '2_10' found, expected a list"),
        (PrepareConfig, {"val_fraction": 0.9}, "run.toml: val_fraction = 0.9 found, expected 0 to 0.5"),
        (PrepareConfig, {"classes": 3}, "run.toml: classes = 3 found, expected a path"),
        (PredictConfig, {"bidx": [0]}, r"run.toml: bidx = \(0,\) found, expected band numbers from 1"),
        (PredictConfig, {"overlap": 0.95}, "run.toml: overlap = 0.95 found, expected 0 to 0.9"),
        (EvalConfig, {"split": "all"}, "run.toml: split = 'all' found, expected one of: train, val, test"),
        (VectorizeConfig, {"classes": []}, r"run.toml: classes = \(\) found, expected at least one class name"),
        (VectorizeConfig, {"min_area_m2": -1}, "run.toml: min_area_m2 = -1.0 found, expected 0 or more"),
    ],
)
def test_wrong_keys_and_values_are_named(kind, values, message):
    with pytest.raises(ConfigError, match="^" + message):
        from_mapping(kind, values, where="run.toml")


def test_options_win_over_the_file_and_the_file_over_the_recipe():
    resolved = resolve_train_config(
        {"recipe": "ct-paper", "epochs": 7, "contrast": {"top": 0.3}}, {"batch_size": 2}, where="run.toml"
    )
    assert (resolved.epochs, resolved.batch_size, resolved.learning_rate) == (7, 2, CT_PAPER["learning_rate"])
    assert (resolved.contrast.clip_mode, resolved.contrast.top) == ("hard", 0.3)
    assert resolve_train_config({"epochs": 7}, {"epochs": 3}, where="run.toml") == TrainConfig(epochs=3)
    paper = resolve_train_config({}, {"recipe": "ct-paper"}, where="options")
    assert (paper.loss, paper.contrast.clip_mode) == ("cl", "hard")
    assert resolve_train_config({}, {"recipe": "ct-paper", "loss": "infonce"}, where="options").loss == "infonce"
    assert TrainConfig().loss == "none"  # what docs/results.md found
    with pytest.raises(ConfigError, match="recipe = 'ct' found, expected one of: ct-paper"):
        resolve_train_config({}, {"recipe": "ct"}, where="options")


def test_keys_of_a_run_are_left_out_of_the_file_alone():
    run = {"format_version": 1, "ctrs_version": "0.1", "data": {"path": "/gone", "name": "a", "split_hash": "b"}}
    assert resolve_train_config({**run, "epochs": 7}, {}, where="config.toml") == TrainConfig(epochs=7)
    with pytest.raises(ConfigError, match="options: unknown key 'data'"):
        resolve_train_config({}, {"data": "prepared/a"}, where="options")
    with pytest.raises(ConfigError, match=r"config\.toml: unknown key 'run'"):
        resolve_train_config({**run, "run": 1}, {}, where="config.toml")


def test_merge_leaves_its_arguments_alone():
    base = {"contrast": {"top": 1}}
    assert merge(base, {"contrast": {"clip": 2}}, {"epochs": 1}) == {"contrast": {"top": 1, "clip": 2}, "epochs": 1}
    assert base == {"contrast": {"top": 1}}


def test_read_toml(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("epochs = 3\n")
    assert read_toml(path) == {"epochs": 3}
    path.write_text("epochs =\n")
    with pytest.raises(ConfigError, match=r"run\.toml: not readable as TOML \(.*line 1"):
        read_toml(path)
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match=r"run\.toml: not readable as TOML"):
        read_toml(path)
    with pytest.raises(ConfigError, match=r"none\.toml: not readable \(No such file or directory\); check the path"):
        read_toml(tmp_path / "none.toml")


@given(st.text(max_size=12), st.sampled_from(["cl", "cl:0.5+infonce", "none"]))
def test_run_names_are_good_file_names(data_name, loss):
    name = run_name(TrainConfig(loss=loss, backbone="timm/swin_tiny"), data_name)
    assert name.strip("-.") == name
    assert not set(name) & set('/\\:*?"<>| +')


def test_recipes_of_losses_set_terms_and_weights_only():
    assert set(RECIPES) == set(get_args(config.Recipe))
    cms = resolve_train_config({}, {"recipe": "cms-paper"}, where="options")
    assert cms == TrainConfig(recipe="cms-paper", loss="cms:0.1+ccs:0.1")
    pne = resolve_train_config({}, {"recipe": "pne-paper", "epochs": 3}, where="options")
    assert pne == TrainConfig(recipe="pne-paper", loss="pne:1.3", epochs=3)


@pytest.mark.parametrize("recipe", ["cms-paper", "pne-paper"])
def test_recipes_of_losses_refuse_another_loss(recipe):
    with pytest.raises(ConfigError, match=f"recipe {recipe} sets nothing but the loss, .* and loss 'cl' stands beside"):
        resolve_train_config({"loss": "cl"}, {"recipe": recipe}, where="run.toml")
    same = RECIPES[recipe]["loss"]
    assert resolve_train_config({"loss": same}, {"recipe": recipe}, where="run.toml").loss == same


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("none:2", "none stands alone, without a weight"),
        ("cl+none", "none stands alone"),
        ("CL", "did you mean 'cl'"),
        ("cmss", "did you mean 'cms'"),
    ],
)
def test_losses_misspelt_are_explained(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_loss(text)


def test_terms_without_a_weight_have_the_papers():
    for recipe in ("cms-paper", "pne-paper"):
        terms = parse_loss(RECIPES[recipe]["loss"])
        assert terms == parse_loss("+".join(term.name for term in terms))


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(DEFAULT_WEIGHTS)), st.none() | st.floats(0, 100)),
        min_size=1,
        unique_by=lambda pair: pair[0],
    )
)
def test_losses_are_read_term_by_term(terms):
    text = " + ".join(name if weight is None else f"{name}:{weight!r}" for name, weight in terms)
    expected = [(name, DEFAULT_WEIGHTS[name] if weight is None else weight) for name, weight in terms]
    assert [(term.name, term.weight) for term in parse_loss(text)] == expected


def test_nested_tables_of_losses_go_round_through_toml():
    changed = TrainConfig(
        loss="cms+pne:0.7",
        multiscale=MultiscaleConfig(pairs=((1, 2),), pair_weights=(0.5,), stages=(1,), stage_weights=(2.0,), norm="ln"),
        pne=PneConfig(detach=False, scope="batch"),
        supcon=SupconConfig(stages=(2,)),
    )
    assert from_mapping(TrainConfig, tomllib.loads(tomli_w.dumps(to_plain(changed)))) == changed
