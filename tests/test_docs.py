"""What the pages say about Python and configuration is so."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest
import typer

from ctrs.cli.app import app
from ctrs.config import (
    AugmentConfig,
    ContrastConfig,
    MultiscaleConfig,
    PneConfig,
    SegmentationConfig,
    SupconConfig,
    TrainConfig,
    from_mapping,
)

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
COMMANDS = sorted((DOCS / "commands").glob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def find(dotted: str) -> object:
    """Return what a dotted name stands for; what a package exports goes before a module of the same name."""
    parts = dotted.split(".")
    found: object = importlib.import_module(parts[0])
    for number, name in enumerate(parts[1:], 2):
        if not hasattr(found, name):
            importlib.import_module(".".join(parts[:number]))
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_in_the_text_exist(page: Path) -> None:
    for dotted in re.findall(r"`(ctrs(?:\.\w+)+)(?=[`.(*])", page.read_text(encoding="utf-8")):
        find(dotted)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_text_calls_what_exists(page: Path) -> None:
    for text in blocks(page, "python"):
        tree = ast.parse(text)
        names: dict[str, object] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {entry.name: find(f"{node.module}.{entry.name}") for entry in node.names}
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            called = names.get(call.func.id) if isinstance(call.func, ast.Name) else None
            if called is not None and called is not Path:
                positional, named = [None] * len(call.args), {key.arg or "": None for key in call.keywords}
                inspect.signature(called).bind(*positional, **named)  # type: ignore[arg-type]


@pytest.mark.parametrize("page", COMMANDS, ids=lambda page: page.name)
def test_each_command_names_its_function(page: Path) -> None:
    _, _, section = page.read_text(encoding="utf-8").partition("\n## Python\n")
    functions = [name for name in re.findall(r"`(ctrs(?:\.\w+)+)`", section) if callable(find(name))]
    assert functions
    assert blocks(page, "python")


def test_settings_on_the_page_of_train_are_the_defaults() -> None:
    (text,) = blocks(DOCS / "commands" / "train.md", "toml")
    table = tomllib.loads(text)
    assert from_mapping(TrainConfig, table) == TrainConfig()
    tables = {
        "contrast": ContrastConfig,
        "supcon": SupconConfig,
        "multiscale": MultiscaleConfig,
        "pne": PneConfig,
        "segmentation": SegmentationConfig,
        "augment": AugmentConfig,
    }
    for key, kind in tables.items():
        assert set(table[key]) == set(inspect.signature(kind).parameters)
    unset = set(re.findall(r"^# (\w+) = ", text, flags=re.MULTILINE))
    assert set(table) | unset == set(inspect.signature(TrainConfig).parameters)
    from_mapping(TrainConfig, tomllib.loads(re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE)))


@pytest.mark.parametrize(
    "name", ["prepare", "train", "eval", "info", "export", "predict", "vectorize", "ablate", "demo"]
)
def test_each_option_stands_on_the_page_of_its_command(name: str) -> None:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    text = (DOCS / "commands" / f"{name}.md").read_text(encoding="utf-8")
    options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    options -= {"--json", "--verbose", "--quiet", "--help"}  # every command has them
    assert {option for option in options if not re.search(rf"{option}(?![\w-])", text)} == set()
