"""PNG files that stand whole or not at all, and that say what they show."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctrs.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

DESCRIPTION_KEY = "ctrs"
"""Text chunk of the PNG that holds the description."""

_SOFTWARE_KEY, _SOFTWARE = "Software", "ctrs"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MARK = f"tEXt{_SOFTWARE_KEY}\0{_SOFTWARE}".encode()
_HEAD_BYTES = 4096
"""Beginning of a PNG in which the mark is looked for; ``save_png`` and ``save_image`` write it before all else."""


def save_png(figure: Figure, path: Path, description: dict[str, Any] | None = None) -> Path:
    """Write a figure so that it is either whole or absent; the same figure gives the same bytes.

    Args:
        figure: What is drawn.
        path: PNG to write; its folder is made.
        description: JSON values that are kept in the file, see ``read_description``.

    Returns:
        ``path``.

    Raises:
        OutputError: The picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    metadata = {_SOFTWARE_KEY: _SOFTWARE}
    if description is not None:
        metadata[DESCRIPTION_KEY] = json.dumps(description, allow_nan=False)
    FigureCanvasAgg(figure)
    return _write_whole(path, lambda staged: figure.savefig(staged, format="png", metadata=metadata))


def save_image(image: Image.Image, path: Path) -> Path:
    """Write an image so that it is either whole or absent; the same image gives the same bytes.

    Args:
        image: What is shown.
        path: PNG to write; its folder is made.

    Returns:
        ``path``.

    Raises:
        OutputError: The picture cannot be written.
    """
    from PIL.PngImagePlugin import PngInfo

    marks = PngInfo()
    marks.add_text(_SOFTWARE_KEY, _SOFTWARE)
    return _write_whole(path, lambda staged: image.save(staged, format="PNG", pnginfo=marks))


def _write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    staged = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(staged)
        staged.replace(path)
    except OSError as error:
        with suppress(OSError):
            staged.unlink(missing_ok=True)
        raise OutputError(f"{path}: picture not written ({error.strerror or error}); choose another place") from error
    return path


def is_own_png(path: Path) -> bool:
    """Tell whether a file is a picture that ``save_png`` or ``save_image`` wrote, by its beginning."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError:
        return False
    return head.startswith(_SIGNATURE) and _MARK in head


def read_description(path: Path) -> dict[str, Any] | None:
    """Return what ``save_png`` was given; None where the file is no PNG or holds none."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            text = image.info.get(DESCRIPTION_KEY)
        found = json.loads(text) if isinstance(text, str) else None
    except (OSError, ValueError, SyntaxError):  # PIL raises all of these on files that are broken
        return None
    return found if isinstance(found, dict) else None
