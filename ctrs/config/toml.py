"""Configurations as plain values: TOML in and out, with every key and type checked."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from ctrs.errors import ConfigError

AnyConfig = TypeVar("AnyConfig")


def from_mapping(kind: type[AnyConfig], values: Mapping[str, Any], *, where: str = "configuration") -> AnyConfig:
    """Build a configuration from plain values, checking keys and types.

    Args:
        kind: One of the configuration's dataclasses.
        values: As read from TOML; nested tables for nested configurations.
        where: Name of the source for messages.

    >>> from ctrs.config import TrainConfig
    >>> from_mapping(TrainConfig, {"epochs": 3, "contrast": {"top": 0.25}}).contrast.top
    0.25

    Raises:
        ConfigError: A key is unknown or a value is of the wrong type or range.
    """
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        near = difflib.get_close_matches(unknown[0], hints, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"expected one of: {', '.join(hints)}"
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; {advice}")
    try:
        return kind(**{key: _convert(hints[key], value, where, key) for key, value in values.items()})
    except ConfigError as error:
        message = str(error)
        if message.startswith(where):
            raise
        source, _, table = where.rpartition(": ")
        if source and message.startswith((f"{table}.", f"{table} ")):  # a table's own checks name it already
            where = source
        raise ConfigError(f"{where}: {message}") from error


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    """Convert a TOML value to the type that a field declares."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        inner = [argument for argument in arguments if argument is not type(None)]
        return _convert(inner[0], value, where, key)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return from_mapping(hint, value, where=f"{where}: {key}")
    elif origin is Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{where}: {key} = {value!r} found, expected one of: {', '.join(map(str, arguments))}")
    elif origin is tuple:
        if isinstance(value, list | tuple):
            return tuple(_convert(arguments[0], item, where, key) for item in value)
    elif hint is Path and isinstance(value, str | Path):
        return Path(value)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool) == isinstance(value, bool):
        return value
    expected = "a table" if dataclasses.is_dataclass(hint) else _WORDS.get(origin or hint, str(hint))
    raise ConfigError(f"{where}: {key} = {_as_toml(value)} found, expected {expected}")


_WORDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list",
    Path: "a path",
}


def _as_toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def merge(base: Mapping[str, Any], *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Lay mappings over each other, nested tables too; later ones win.

    >>> merge({"a": 1, "t": {"x": 1, "y": 2}}, {"t": {"y": 3}})
    {'a': 1, 't': {'x': 1, 'y': 3}}
    """
    result = dict(base)
    for layer in layers:
        for key, value in layer.items():
            held = result.get(key)
            result[key] = merge(held, value) if isinstance(held, Mapping) and isinstance(value, Mapping) else value
    return result


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names.

    >>> flatten({"epochs": 2, "augment": {"flip": True}})
    {'epochs': 2, 'augment.flip': True}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: It is not there or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: not readable ({error.strerror}); check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as TOML ({error}); mend the file") from error


def read_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` texts, the value in TOML or as plain text, the key of a table after a dot.

    >>> read_assignments(["ema=0.99", "augment.scale=[1, 1]", "schedule=poly"])
    {'ema': 0.99, 'augment': {'scale': [1, 1]}, 'schedule': 'poly'}

    Raises:
        ConfigError: A text is no assignment.
    """
    plain: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key or not all(key.split(".")):
            raise ConfigError(f"--set {text!r}: expected KEY=VALUE, as in --set ema=0.99 or --set augment.blur=1")
        try:
            read: Any = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            read = value  # a word needs no quotes
        for part in reversed(key.split(".")):
            read = {part: read}
        plain = merge(plain, read)
    return plain


def to_plain(config: Any) -> dict[str, Any]:
    """Return a configuration as nested dicts of TOML values; None is left out.

    >>> from ctrs.config import EvalConfig
    >>> to_plain(EvalConfig(split="val"))["split"]
    'val'
    """
    plain: dict[str, Any] = {}
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if value is None:
            continue
        if dataclasses.is_dataclass(value):
            value = to_plain(value)
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Path):
            value = str(value)
        plain[entry.name] = value
    return plain
