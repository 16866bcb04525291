"""The grid of ``ctrs ablate``: what a file expands to, and what is refused before anything is trained."""

from __future__ import annotations

import copy
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctrs.config import (
    DEFAULT_WEIGHTS,
    AblationConfig,
    NamedSettings,
    TrainConfig,
    ablation_from_mapping,
    ablation_to_plain,
    merge,
    read_ablation,
)
from ctrs.config.loss import TERM_TABLES
from ctrs.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
GRID: dict[str, Any] = {
    "data": "prepared/town",
    "seeds": [0, 7],
    "losses": ["none", "cl:0.5", "cl+pne"],
    "train": {"epochs": 3, "contrast": {"top": 0.25, "num_pairs": 10}},
    "network": [
        {"name": "pf", "backbone": "poolformer", "decoder": "dcfam"},
        {"name": "Swin + UN", "backbone": "swin", "decoder": "unetformer", "epochs": 5, "contrast": {"top": 0.75}},
    ],
}


def changed(**layer: Any) -> dict[str, Any]:
    return merge(copy.deepcopy(GRID), layer)


def test_table_1_is_the_papers() -> None:
    grid = read_ablation(ROOT / "examples" / "table1.toml")
    runs = grid.runs
    assert len(runs) == len({run.name for run in runs}) == 27
    assert {(run.config.backbone, run.config.decoder) for run in runs} == {
        ("swin", "dcfam"), ("swin", "unetformer"), ("poolformer", "dcfam"),
    }  # fmt: skip
    assert {run.loss for run in runs} == {"none", "cl", "infonce"}
    assert {run.seed for run in runs} == {0, 1, 2}
    for run in runs:
        config = run.config
        assert (config.learning_rate, config.batch_size, config.epochs) == (8e-5, 32, 50)
        assert (config.schedule, config.contrast.clip_mode, config.recipe) == ("constant", "hard", "ct-paper")
        assert (config.loss, config.seed) == (run.loss, run.seed)
    assert grid.split is None


def test_the_file_on_the_page_is_a_grid() -> None:
    page = (ROOT / "docs" / "commands" / "ablate.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```toml\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    grid = ablation_from_mapping(tomllib.loads(text))
    assert len(grid.rows) == 2 * (1 + 2 + 2)
    assert len(grid.runs) == 3 * len(grid.rows)


def test_each_combination_is_a_run_and_one_seed_comes_after_the_other() -> None:
    runs = ablation_from_mapping(GRID).runs
    assert [run.name for run in runs] == [
        "pf-none-seed0", "pf-cl-0.5-seed0", "pf-cl-pne-seed0",
        "Swin-UN-none-seed0", "Swin-UN-cl-0.5-seed0", "Swin-UN-cl-pne-seed0",
        "pf-none-seed7", "pf-cl-0.5-seed7", "pf-cl-pne-seed7",
        "Swin-UN-none-seed7", "Swin-UN-cl-0.5-seed7", "Swin-UN-cl-pne-seed7",
    ]  # fmt: skip
    assert (runs[7].config.loss, runs[7].config.seed) == ("cl:0.5", 7)


def test_a_variant_wins_over_its_network_and_that_over_the_common_settings_and_the_recipe() -> None:
    grid = ablation_from_mapping(
        changed(
            losses=["cl"],
            train={"recipe": "ct-paper"},
            variant=[{"name": "soft", "contrast": {"clip_mode": "none", "top": 1.0}}, {"name": "as it is"}],
        )
    )
    soft, plain, other_soft, other = (run.config for run in grid.runs[:4])
    assert (soft.contrast.clip_mode, soft.contrast.top, soft.contrast.num_pairs) == ("none", 1.0, 10)
    assert (plain.contrast.clip_mode, plain.contrast.top, plain.contrast.num_pairs) == ("hard", 0.25, 10)
    assert (other_soft.contrast.top, other_soft.contrast.clip_mode, other_soft.epochs) == (1.0, "none", 5)
    assert (other.contrast.top, other.epochs, other.learning_rate, plain.epochs) == (0.75, 5, 8e-5, 3)


def test_a_variant_of_what_a_loss_does_not_read_is_run_once() -> None:
    variants = [
        {"name": "hard", "contrast": {"clip_mode": "hard"}},
        {"name": "cold", "pne": {"temperature": 0.5}},
        {"name": "late", "contrast_warmup_steps": 100},
        {"name": "slow", "learning_rate": 1e-5},
    ]
    grid = ablation_from_mapping(changed(variant=variants, network=[GRID["network"][0]]))
    assert grid.rows == (
        ("pf", "none", ""), ("pf", "none", "slow"),
        ("pf", "cl:0.5", "hard"), ("pf", "cl:0.5", ""), ("pf", "cl:0.5", "late"), ("pf", "cl:0.5", "slow"),
        ("pf", "cl+pne", "hard"), ("pf", "cl+pne", "cold"), ("pf", "cl+pne", "late"), ("pf", "cl+pne", "slow"),
    )  # fmt: skip
    assert grid.reference(("pf", "cl+pne", "cold")) == ("pf", "none", "")
    assert grid.reference(("pf", "cl:0.5", "slow")) == ("pf", "none", "slow")
    assert grid.reference(("pf", "none", "slow")) is None
    configs = {run.row: run.config for run in grid.runs if run.seed == 0}
    assert configs["pf", "none", ""] == replace(configs["pf", "cl:0.5", ""], loss="none")
    named = ablation_from_mapping(changed(variant=[*variants, {"name": "plain"}], network=[GRID["network"][0]]))
    assert [row[2] for row in named.rows if row[1] == "none"] == ["plain", "slow"]
    assert named.reference(("pf", "cl+pne", "cold")) == ("pf", "none", "plain")
    alone = ablation_from_mapping(changed(variant=[variants[0], {"name": "plain"}], network=[GRID["network"][0]]))
    assert [row[2] for row in alone.rows] == ["", "hard", "plain", "hard", "plain"]
    assert alone.reference(("pf", "cl+pne", "plain")) == ("pf", "none", "")


def test_without_none_nothing_is_compared() -> None:
    grid = ablation_from_mapping(changed(losses=["cl", "infonce"]))
    assert [grid.reference(row) for row in grid.rows] == [None] * 4


def test_each_term_has_its_table() -> None:
    assert set(TERM_TABLES) == set(DEFAULT_WEIGHTS)
    assert set(TERM_TABLES.values()) <= set(TrainConfig.__dataclass_fields__)


def test_a_grid_survives_the_way_to_plain_values_and_back(tmp_path: Path) -> None:
    import tomli_w

    grid = ablation_from_mapping(changed(split="val", variant=[{"name": "a", "weight_decay": 0.1}]))
    (tmp_path / "grid.toml").write_text(tomli_w.dumps(ablation_to_plain(grid)))
    assert read_ablation(tmp_path / "grid.toml") == grid
    assert read_ablation(tmp_path / "grid.toml", split="test").split == "test"


NETWORK = GRID["network"][0]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"seed": [1]}, "grid.toml: unknown key 'seed'; did you mean 'seeds'?"),
        ({"seeds": []}, "seeds: none found, expected at least one"),
        ({"seeds": [0, 1, 0]}, "seeds: 0 found twice"),
        ({"seeds": [-1]}, "seed = -1 found, expected 0 or more"),
        ({"seeds": [True]}, "seeds = true found, expected a whole number"),
        ({"seeds": 3}, "seeds = 3 found"),
        ({"split": "tests"}, "split = 'tests' found, expected one of: train, val, test"),
        ({"losses": ["cl", "c"]}, "loss 'c': unknown term 'c', expected none, or cl, infonce"),
        ({"losses": ["cl", "cl:1.0"]}, "losses: 'cl' and 'cl:1.0' found twice, expected distinct ones"),
        ({"losses": ["pne+cl", "cl+pne"]}, r"losses: 'pne\+cl' and 'cl\+pne' found twice"),
        ({"network": []}, "network: none found, expected at least one"),
        ({"network": NETWORK}, "network = .* found, expected tables"),
        ({"network": [NETWORK, {**NETWORK, "name": "PF"}]}, "name: 'pf' found twice"),
        ({"network": [{"name": "a", "backbone": "swin"}]}, "'a': decoder is missing, expected a text"),
        ({"network": [{"backbone": "swin", "decoder": "dcfam"}]}, "name is missing"),
        ({"network": [{**NETWORK, "name": 3}]}, "name = 3 found, expected a text"),
        ({"network": [{**NETWORK, "decoder": "psp"}]}, "'pf': decoder = 'psp' found, expected one of: dcfam"),
        ({"network": [{**NETWORK, "loss": "cl"}]}, "'pf': key 'loss' found, which stands in the list losses"),
        ({"network": [{**NETWORK, "weight": "none"}]}, "'pf': unknown key 'weight'; did you mean 'weights'?"),
        ({"network": [NETWORK, {**NETWORK, "name": "pf-none"}], "losses": ["none", "cl"],
          "variant": [{"name": "x", "epochs": 2}, {"name": "none-x", "epochs": 4}]}, "names of runs: 'pf-none-none-x-"),
        ({"train": {"epoch": 3}}, r"\[train\]: unknown key 'epoch'; did you mean 'epochs'?"),
        ({"train": {"data": "x"}}, r"\[train\]: unknown key 'data'"),
        ({"train": {"seed": 1}}, r"\[train\]: key 'seed' found, which stands in the list seeds; move it there"),
        ({"train": {"backbone": "swin"}}, r"\[train\]: key 'backbone' found, which stands in each \[\[network\]\]"),
        ({"train": {"epochs": 0}}, r"\[train\]: epochs = 0 found, expected 1 or more"),
        ({"train": {"contrast": {"clip": "no"}}}, r"\[train\]: contrast: clip = 'no' found, expected a number"),
        ({"variant": [{"name": "a"}, {"name": "A", "epochs": 2}]}, "name: 'a' found twice"),
        ({"variant": [{"epochs": 2}]}, "name is missing"),
        ({"variant": [{"name": "a", "decoder": "fpn"}]}, "'a': key 'decoder' found, which stands in each"),
        ({"variant": [{"name": "a", "epochs": 0}]}, "variant 'a': epochs = 0 found, expected 1 or more"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_file_and_key(layer: dict[str, Any], message: str) -> None:
    values = {**copy.deepcopy(GRID), **layer}
    with pytest.raises(ConfigError, match=message) as caught:
        ablation_from_mapping(values, where="grid.toml")
    assert str(caught.value).startswith("grid.toml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["data", "seeds", "losses", "network"])
def test_what_is_missing_is_named(key: str) -> None:
    values = {name: value for name, value in GRID.items() if name != key}
    with pytest.raises(ConfigError, match=rf"grid.toml: '{key}' is missing, expected "):
        ablation_from_mapping(values, where="grid.toml")


def test_a_grid_made_in_python_is_checked_as_well() -> None:
    network = NamedSettings(name="a", settings={"backbone": "swin", "decoder": "dcfam"})
    with pytest.raises(ConfigError, match="seeds: 1 found twice"):
        AblationConfig(data=Path("x"), networks=(network,), losses=("cl",), seeds=(1, 1))
