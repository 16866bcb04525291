"""The confusion matrix as a picture.

Drawn by Pillow: matplotlib takes half a second of processor time to import and to draw this, which is a good part of
what an evaluation costs beside the mapping.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ctrs.report.png import save_image

_CELL_PX, _SMALL_CELL_PX = 95, 50
_MOST_LARGE_CELLS = 10
_MOST_NAMED_CELLS = 30
"""Classes from which on cells hold no figures."""
_GRID_PX = 2
_PAD_PX = 8
_TICK_PX, _NOTE_PX, _TITLE_PX = 14, 11, 17
_DEGREES = 35.0
"""Slope of the names below the columns."""
_INK, _FAINT = (34, 34, 34), (85, 85, 85)
_BLUES = np.array(
    [
        (247, 251, 255), (222, 235, 247), (198, 219, 239), (158, 202, 225), (107, 174, 214), (66, 146, 198),
        (33, 113, 181), (8, 81, 156), (8, 48, 107),
    ],
    float,
)  # fmt: skip
"""ColorBrewer's sequence, from nothing to all."""
_NOTE = "rows: truth, columns: prediction, per cent of each row"


def confusion_picture(path: Path, counts: npt.NDArray[np.int64], names: Sequence[str], title: str = "") -> Path:
    """Draw a confusion matrix: rows true classes, columns predicted ones, cells in per cent of the true class.

    The same figures give the same bytes.

    Args:
        path: PNG to write.
        counts: Pixels (K, K + 1) as in ``ConfusionMatrix.counts``; its last column is drawn only where it holds some.
        names: Names of the K classes.
        title: Heading.

    Returns:
        ``path``.

    Raises:
        OutputError: The picture cannot be written.
    """
    columns = [*names, "not predicted"]
    if not counts[:, -1].any():
        counts, columns = counts[:, :-1], columns[:-1]
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    cell = _CELL_PX if len(names) <= _MOST_LARGE_CELLS else _SMALL_CELL_PX
    below = [_turned(name) for name in columns]
    # The names below hang from their last letter to the left: the first ones may reach further than the rows' names.
    left = max(
        _PAD_PX * 2 + max(round(_font(_TICK_PX).getlength(name)) for name in names),
        *(label.width - cell * number - cell // 2 + _PAD_PX for number, label in enumerate(below)),
    )
    top = _TITLE_PX * 2 + _PAD_PX if title else _PAD_PX * 2
    bottom = max(label.height for label in below) + _NOTE_PX + 3 * _PAD_PX
    width = max(
        left + cell * len(columns) + 2 * _PAD_PX,
        round(max(_font(_TITLE_PX).getlength(title), _font(_NOTE_PX).getlength(_NOTE))) + 2 * _PAD_PX,
    )
    picture = Image.new("RGB", (width, top + cell * len(names) + bottom), "white")
    draw = ImageDraw.Draw(picture)
    colors = _colors(share)
    for row, col in np.ndindex(*share.shape):
        x, y = left + col * cell, top + row * cell
        draw.rectangle((x, y, x + cell - 1 - _GRID_PX, y + cell - 1 - _GRID_PX), fill=colors[row][col])
        if len(names) <= _MOST_NAMED_CELLS:
            _write_share(draw, (x + cell // 2, y + cell // 2), float(share[row, col]), cell, is_right=row == col)
    for row, name in enumerate(names):
        draw.text((left - _PAD_PX, top + row * cell + cell // 2), name, _INK, _font(_TICK_PX), anchor="rm")
    for col, label in enumerate(below):
        ink = Image.new("RGB", label.size, _INK)
        picture.paste(ink, (left + col * cell + cell // 2 - label.width, top + cell * len(names) + _PAD_PX // 2), label)
    draw.text((_PAD_PX, picture.height - _PAD_PX), _NOTE, _FAINT, _font(_NOTE_PX), anchor="ls")
    if title:
        draw.text((width // 2, _PAD_PX + _TITLE_PX), title, _INK, _font(_TITLE_PX), anchor="ms")
    return save_image(picture, path)


def _colors(share: npt.NDArray[np.float64]) -> list[list[tuple[int, int, int]]]:
    """Return the colour of each cell; white without a true pixel."""
    at = np.linspace(0, 1, len(_BLUES))
    bands = [np.interp(np.nan_to_num(share), at, _BLUES[:, band]) for band in range(3)]
    rgb = np.rint(np.stack(bands, axis=-1)).astype(int)
    rgb[np.isnan(share)] = 255
    return [[(int(red), int(green), int(blue)) for red, green, blue in row] for row in rgb]


def _write_share(draw: ImageDraw.ImageDraw, at: tuple[int, int], share: float, cell: int, *, is_right: bool) -> None:
    text = "\N{EN DASH}" if np.isnan(share) else f"{100 * share:.1f}"
    size = round(15 * (cell / _CELL_PX) ** 0.5)
    draw.text(at, text, "white" if share > 0.55 else _INK, _font(size, is_bold=is_right), anchor="mm")


def _turned(name: str) -> Image.Image:
    """Return how much ink is where for a name that rises to the right."""
    font = _font(_TICK_PX)
    left, top, right, bottom = font.getbbox(name, anchor="ls")
    flat = Image.new("L", (max(1, round(right - left)), max(1, round(bottom - top))))
    ImageDraw.Draw(flat).text((-left, -top), name, 255, font, anchor="ls")
    return flat.rotate(_DEGREES, Image.Resampling.BICUBIC, expand=True)


@functools.cache
def _font(size_px: int, *, is_bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return matplotlib's own font, which knows Greek and Cyrillic too, without importing matplotlib."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("matplotlib is not installed, whose fonts pictures are written in; install ctrs anew")
    name = f"DejaVuSans{'-Bold' if is_bold else ''}.ttf"
    return ImageFont.truetype(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name, size_px)
