from __future__ import annotations

from typing import Any

import pytest

from ctrs.config import EvalConfig, PrepareConfig, TrainConfig
from ctrs.errors import ConfigError


@pytest.mark.parametrize("kind", [TrainConfig, EvalConfig, PrepareConfig])
def test_seeds_are_what_generators_and_toml_take(kind: Any) -> None:
    assert kind(seed=2**63 - 1).seed == 2**63 - 1
    for seed in (-1, 2**63):
        with pytest.raises(ConfigError, match=rf"^seed = {seed} found, expected 0 or more, below 2\*\*63$"):
            kind(seed=seed)
