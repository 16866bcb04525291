"""Examples of paths are found by the expressions that they are made of."""

from __future__ import annotations

import re

import pytest

from ctrs.tiles.path_example import path_example
from ctrs.tiles.presets import GENERIC, load_preset, preset_names


@pytest.mark.parametrize("name", [name for name in preset_names() if name != GENERIC])
def test_every_preset_has_readable_examples(name: str) -> None:
    preset = load_preset(name)
    assert preset is not None
    for pattern in (*(image.pattern for image in preset.images), *preset.label_patterns):
        example = path_example(pattern)
        assert pattern.fullmatch(example)
        assert re.fullmatch(r"[\w./-]+", example), example


@pytest.mark.parametrize("text", [r"(?=a).(?P<id>b)", r"(?P<id>a{2,3}(?!c))", r"x{3}(?P<id>\S+)"])
def test_an_intricate_expression_is_shown_as_it_is(text: str) -> None:
    assert path_example(re.compile(text)) == text
