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

    metadata: dict[str, str | None] = {"Software": None}
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
    return _write_whole(path, lambda staged: image.save(staged, format="PNG"))


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
