"""A few tiles with truth and prediction: as one picture with a legend, and as strips for logs that show images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ctrs.classes import IGNORE_INDEX, ClassMap, Mask
from ctrs.errors import UsageError
from ctrs.report.pictures import UNLABELLED_COLOR, Image
from ctrs.report.png import save_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR_COLORS = ((225, 20, 30), (255, 0, 200), (20, 60, 255), (255, 140, 0))
"""Of wrong pixels: the first one that no class looks like."""

_ALIKE = 120.0
_TITLES = ("image", "truth", "prediction", "errors")
_DPI = 100
_PANEL_PX, _GAP_PX, _TITLE_PX, _NAME_PX, _LEGEND_ROW_PX = 320, 12, 30, 24, 30
_LEGEND_COLUMNS = 6
_STRIP_GAP_PX = 4


@dataclass(frozen=True, kw_only=True)
class Example:
    """A tile with what should be seen there and what is.

    Args:
        name: Of the tile.
        image: uint8 (3, H, W), e.g. from ``display_rgb``.
        truth: Class indices (H, W), 255 where ignored.
        predicted: Class indices (H, W).
    """

    name: str
    image: Image
    truth: Mask
    predicted: Mask

    def __post_init__(self) -> None:
        if not self.image.shape[1:] == self.truth.shape == self.predicted.shape:
            raise UsageError(
                f"example {self.name}: image {self.image.shape[1:]}, truth {self.truth.shape} and prediction "
                f"{self.predicted.shape} differ in size"
            )

    @property
    def wrong(self) -> npt.NDArray[np.bool_]:
        """Pixels (H, W) whose class is another than the true one; ignored pixels are not wrong."""
        wrong: npt.NDArray[np.bool_] = (self.truth != self.predicted) & (self.truth != IGNORE_INDEX)
        return wrong

    @property
    def accuracy(self) -> float:
        """Share of the labelled pixels whose class is right, NaN without any."""
        labelled = int((self.truth != IGNORE_INDEX).sum())
        return 1 - float(self.wrong.sum()) / labelled if labelled else float("nan")


def error_color(classes: ClassMap) -> tuple[int, int, int]:
    """Return the colour of wrong pixels: one that no class has, or nearly has, where there is one."""

    def nearest(color: tuple[int, int, int]) -> float:
        return min(math.dist(color, other) for other in classes.colors)

    free = [color for color in ERROR_COLORS if nearest(color) >= _ALIKE]
    return free[0] if free else max(ERROR_COLORS, key=nearest)


def error_image(example: Example, color: tuple[int, int, int]) -> Image:
    """Return the image faded to grey, with wrong pixels in a colour and ignored ones as without label."""
    grey = example.image.astype(np.float32).mean(0) * 0.4 + 150
    image: Image = np.repeat(grey[None], 3, axis=0).astype(np.uint8)
    image[:, example.truth == IGNORE_INDEX] = np.array(UNLABELLED_COLOR, np.uint8)[:, None]
    image[:, example.wrong] = np.array(color, np.uint8)[:, None]
    return image


def strip_image(example: Example, classes: ClassMap) -> Image:
    """Return image, truth and prediction side by side, uint8 (3, H, 3 W and two gaps)."""
    panels = [example.image, *_masks(example, classes)]
    gap = np.full((3, example.image.shape[1], _STRIP_GAP_PX), 255, np.uint8)
    image: Image = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=2)
    return image


def examples_picture(
    path: Path,
    examples: Sequence[Example],
    classes: ClassMap,
    *,
    title: str = "",
    description: dict[str, Any] | None = None,
) -> Path:
    """Draw a row for each example: image, truth, prediction, errors; below them a legend of the classes.

    Args:
        path: PNG to write, as a whole or not at all.
        examples: One or more.
        classes: Names and colours.
        title: Heading.
        description: JSON values that are kept in the file.

    Returns:
        ``path``.

    Raises:
        UsageError: There is no example.
        OutputError: The picture cannot be written.
    """
    from matplotlib.figure import Figure

    if not examples:
        raise UsageError(f"{path}: no examples to draw, expected one or more")
    num_columns = len(_TITLES)
    heights = [_PANEL_PX * example.image.shape[1] / example.image.shape[2] for example in examples]
    entries = _legend(examples, classes)
    legend_px = _LEGEND_ROW_PX * -(-len(entries) // _LEGEND_COLUMNS) + _GAP_PX
    head_px = _TITLE_PX * (2 if title else 1)
    width = num_columns * _PANEL_PX + (num_columns + 1) * _GAP_PX
    height = head_px + sum(heights) + _NAME_PX * len(examples) + legend_px
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    top = height - head_px
    for row, (example, panel_px) in enumerate(zip(examples, heights, strict=True)):
        for column, picture in enumerate(
            (example.image, *_masks(example, classes), error_image(example, error_color(classes)))
        ):
            left = _GAP_PX + column * (_PANEL_PX + _GAP_PX)
            axes = figure.add_axes((left / width, (top - panel_px) / height, _PANEL_PX / width, panel_px / height))
            axes.imshow(np.moveaxis(picture, 0, -1), interpolation="antialiased", aspect="auto")
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_color("#888888")
                spine.set_linewidth(0.8)
            if row == 0:
                axes.set_title(_TITLES[column], fontsize=12, color="#222222", pad=5)
        share = "no labels" if np.isnan(example.accuracy) else f"{example.accuracy:.1%} of the labelled pixels right"
        _write(figure, _GAP_PX / width, (top - panel_px - 5) / height, f"{example.name}: {share}")
        top -= panel_px + _NAME_PX
    if title:
        _write(figure, _GAP_PX / width, 1 - 6 / height, title, size=13)
    _draw_legend(figure, entries)
    return save_png(figure, path, description)


def _masks(example: Example, classes: ClassMap) -> tuple[Image, Image]:
    truth = classes.encode_colors(example.truth, ignored_color=UNLABELLED_COLOR)
    return truth, classes.encode_colors(example.predicted, ignored_color=UNLABELLED_COLOR)


def _legend(examples: Sequence[Example], classes: ClassMap) -> list[tuple[str, tuple[int, int, int]]]:
    """Return names and colours of what is to be seen."""
    present = {int(value) for example in examples for mask in (example.truth, example.predicted) for value in
               np.unique(mask)}  # fmt: skip
    entries = [
        (name, color)
        for index, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True))
        if index in present
    ]
    if IGNORE_INDEX in present:
        entries.append(("not labelled", UNLABELLED_COLOR))
    return [*entries, ("wrong", error_color(classes))]


def _draw_legend(figure: Figure, entries: Sequence[tuple[str, tuple[int, int, int]]]) -> None:
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(facecolor="#{:02x}{:02x}{:02x}".format(*color), edgecolor="#777777", linewidth=0.8)
        for _, color in entries
    ]
    figure.legend(
        handles, [name for name, _ in entries], loc="lower center", ncol=min(len(entries), _LEGEND_COLUMNS),
        frameon=False, fontsize=11, labelcolor="#222222", borderaxespad=0.3,
    )  # fmt: skip


def _write(figure: Figure, left: float, top: float, text: str, *, size: int = 10) -> None:
    figure.text(left, top, text, ha="left", va="top", fontsize=size, color="#222222")
