"""Known layouts of public data sets: TOML files that say where images and labels lie, their classes and splits."""

from __future__ import annotations

import difflib
import importlib.resources
from collections.abc import Iterable
from importlib.resources.abc import Traversable
from pathlib import Path

from ctrs.errors import ConfigError
from ctrs.tiles.preset_file import ImagePattern, Preset, parse_preset, path_id, plain_id

__all__ = [
    "GENERIC", "ImagePattern", "Preset", "load_preset", "parse_preset", "path_id", "plain_id", "preset_names",
    "preset_text", "recognise",
]  # fmt: skip

GENERIC = "generic"
"""Name of the layout of any folder with images and labels."""


def preset_names() -> tuple[str, ...]:
    """Return the names of the presets that come with ctrs, ``generic`` last.

    >>> "potsdam" in preset_names()
    True
    """
    names = sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))
    return (*names, GENERIC)


def preset_text(name: str) -> str:
    """Return the TOML text of a preset that comes with ctrs, to copy and edit.

    Raises:
        ConfigError: There is none of this name.
    """
    if name == GENERIC:
        raise ConfigError(
            "preset generic has no file to copy: it takes any folder with images/ and labels/, paired by file name; "
            "copy another, such as potsdam"
        )
    if name not in preset_names():
        near = difflib.get_close_matches(name.lower(), preset_names(), 1)
        guess = f"did you mean {near[0]}? " if near else ""
        known = ", ".join(preset_names())
        raise ConfigError(f"preset {name!r} is unknown; {guess}expected one of: {known}, or the path of a TOML file")
    return (_folder() / f"{name}.toml").read_text(encoding="utf-8")


def load_preset(name: str) -> Preset | None:
    """Return a preset by name or by path to a TOML file; None for ``generic``.

    Raises:
        ConfigError: There is none of this name, or the file is wrong.
    """
    if name == GENERIC:
        return None
    path = Path(name)
    if path.suffix.lower() != ".toml":
        return parse_preset(preset_text(name), name=name, where=f"preset {name}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"preset {path}: not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"preset {path}: not readable ({error.strerror}); check the path") from error
    preset = parse_preset(text, name=path.stem, where=str(path))
    _check_crs(preset, str(path))
    return preset


def recognise(paths: Iterable[str]) -> Preset | None:
    """Return the preset whose images and labels both lie among paths below a source, None if none fits."""
    found = tuple(paths)
    for name in preset_names():
        preset = load_preset(name)
        if preset is not None and preset.fits(found):
            return preset
    return None


def _check_crs(preset: Preset, where: str) -> None:
    """Refuse a CRS that does not exist."""
    if preset.crs is None:
        return
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        CRS.from_user_input(preset.crs)
    except CRSError as error:
        raise ConfigError(f"{where}: crs = {preset.crs!r} is unknown; expected a code such as EPSG:32633") from error


def _folder() -> Traversable:
    return importlib.resources.files("ctrs.tiles") / "presets"
