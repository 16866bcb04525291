"""Which patches of a tile a contrast loss takes as positives and negatives of a class, drawn over the tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ctrs.classes import IGNORE_INDEX, ClassMap, Mask
from ctrs.report.pictures import Image
from ctrs.report.png import save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class PatchKind(IntEnum):
    """What a patch is to a class."""

    POSITIVE = 0
    NEGATIVE = 1
    DISCARDED = 2
    VOID = 3


PATCH_COLORS = {
    PatchKind.POSITIVE: (0, 110, 255),
    PatchKind.NEGATIVE: (255, 140, 0),
    PatchKind.DISCARDED: (0, 0, 0),
    PatchKind.VOID: (255, 255, 255),
}
"""Colours that people who don't tell red from green can tell apart."""

_OPACITY = {PatchKind.POSITIVE: 0.6, PatchKind.NEGATIVE: 0.42, PatchKind.DISCARDED: 0.62, PatchKind.VOID: 0.75}
_MEANING = {
    PatchKind.POSITIVE: "positive: nothing but the class",
    PatchKind.NEGATIVE: "negative: nothing of the class",
    PatchKind.DISCARDED: "discarded: the class and others",
    PatchKind.VOID: "void: left out, holds unlabelled pixels",
}
_STRIPE_COLOR = (110, 110, 110)
_STRIPES = 80
"""Stripes of void across a tile's width."""
_DIMMED = 0.35

_DPI = 100
_WIDTH_PX = 2000
_GAP_PX = 14
_HEAD_PX = 40
_TITLE_PX = 50
_LEGEND_PX = 48
_INK = "#222222"
_MIN_CELL_PX = 12
"""Cells at least this large on the picture get a border."""

Kinds = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class StagePatches:
    """The patches of one stage, as seen by one class.

    Args:
        stride: Edge of a patch in pixels.
        kinds: ``PatchKind`` of each patch (h, w); patches at the right and bottom may reach beyond the tile.
    """

    stride: int
    kinds: Kinds

    @property
    def counts(self) -> dict[PatchKind, int]:
        """Number of patches of each kind."""
        found = np.bincount(self.kinds.reshape(-1), minlength=len(PatchKind))
        return {kind: int(found[kind]) for kind in PatchKind}


@dataclass(frozen=True, kw_only=True)
class ClassPatches:
    """The patches of all stages, as seen by one class."""

    class_index: int
    stages: tuple[StagePatches, ...]


def paint_patches(image: Image, patches: StagePatches) -> Image:
    """Lay translucent patches over an image, whose own colours are taken out.

    Args:
        image: uint8 (3, H, W).
        patches: Of one stage, on the image's pixels.

    Returns:
        uint8 (3, H, W).
    """
    height, width = image.shape[-2:]
    kinds = patches.kinds.repeat(patches.stride, 0).repeat(patches.stride, 1)[:height, :width]
    colors = np.array([PATCH_COLORS[kind] for kind in PatchKind], np.float32)[kinds]
    opacity = np.array([_OPACITY[kind] for kind in PatchKind], np.float32)[kinds][..., None]
    colors[(kinds == PatchKind.VOID) & _stripes(height, width)] = _STRIPE_COLOR
    grey = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), image.astype(np.float32), 1)[..., None]
    return _as_image((1 - opacity) * grey + opacity * colors)


def paint_class(image: Image, mask: Mask, class_index: int) -> Image:
    """Darken everything but one class; unlabelled pixels are striped.

    Args:
        image: uint8 (3, H, W).
        mask: uint8 (H, W), class index or ``IGNORE_INDEX``.
        class_index: The class that stays as it is.

    Returns:
        uint8 (3, H, W).
    """
    height, width = mask.shape
    painted = np.moveaxis(image, 0, -1).astype(np.float32)
    painted[mask != class_index] *= _DIMMED
    unlabelled = mask == IGNORE_INDEX
    opacity = _OPACITY[PatchKind.VOID]
    stripe = np.where(_stripes(height, width)[..., None], _STRIPE_COLOR, PATCH_COLORS[PatchKind.VOID])
    bright = np.moveaxis(image, 0, -1)[unlabelled]
    painted[unlabelled] = (1 - opacity) * bright + opacity * stripe[unlabelled]
    return _as_image(painted)


def _stripes(height: int, width: int) -> npt.NDArray[np.bool_]:
    rows, cols = np.ogrid[:height, :width]
    period = max(2, round(max(height, width) / _STRIPES))
    return np.asarray((rows + cols) % (2 * period) < period // 2 + 1)


def _as_image(painted: npt.NDArray[Any]) -> Image:
    return np.ascontiguousarray(np.moveaxis(np.rint(painted).astype(np.uint8), -1, 0))


@dataclass(frozen=True, kw_only=True)
class _Panel:
    title: str
    image: Image
    stride: int | None = None


def patch_picture(
    path: Path,
    image: Image,
    mask: Mask,
    patches: Sequence[ClassPatches],
    classes: ClassMap,
    *,
    title: str,
    description: dict[str, Any] | None = None,
) -> Path:
    """Draw the patches of a tile: one class in large panels, or several classes, one in each row.

    Args:
        path: PNG to write; about 2000 px wide.
        image: The tile, uint8 (3, H, W), e.g. from ``display_rgb``.
        mask: Its mask (H, W).
        patches: Of each class that is drawn, at least one.
        classes: Names of the classes.
        title: Heading.
        description: Kept in the file.

    Returns:
        ``path``.

    Raises:
        OutputError: The picture cannot be written.
    """
    from matplotlib.figure import Figure

    rows = [_class_panels(image, mask, one, classes) for one in patches]
    if len(rows) == 1:
        panels = [_Panel(title="the tile", image=image), *rows[0]]
        rows = [panels[first : first + 3] for first in range(0, len(panels), 3)]
    columns = max(len(row) for row in rows)
    height, width = image.shape[-2:]
    panel_px = (_WIDTH_PX - _GAP_PX * (columns + 1)) / columns
    panel_rows_px = panel_px * height / width
    row_px = _TITLE_PX + panel_rows_px + _GAP_PX
    total_px = _HEAD_PX + row_px * len(rows) + _LEGEND_PX
    figure = Figure(figsize=(_WIDTH_PX / _DPI, total_px / _DPI), dpi=_DPI, facecolor="white")
    figure.text(_GAP_PX / _WIDTH_PX, 1 - 8 / total_px, title, va="top", fontsize=15, color=_INK, fontweight="bold")
    for number, row in enumerate(rows):
        bottom = total_px - _HEAD_PX - (number + 1) * row_px + _GAP_PX
        for place, panel in enumerate(row):
            left = _GAP_PX + place * (panel_px + _GAP_PX)
            axes = figure.add_axes(
                (left / _WIDTH_PX, bottom / total_px, panel_px / _WIDTH_PX, panel_rows_px / total_px)
            )
            _draw_panel(axes, panel, cell_px=panel_px / width)
    _draw_legend(figure, _kinds_in(patches))
    return save_png(figure, path, description)


def _class_panels(image: Image, mask: Mask, patches: ClassPatches, classes: ClassMap) -> list[_Panel]:
    share = (mask == patches.class_index).mean()
    panels = [
        _Panel(
            title=f"{classes.names[patches.class_index]}\n{100 * share:.1f} % of the tile",
            image=paint_class(image, mask, patches.class_index),
        )
    ]
    for stage in patches.stages:
        rows, cols = stage.kinds.shape
        counts = stage.counts
        text = f"{counts[PatchKind.POSITIVE]:,} positive, {counts[PatchKind.NEGATIVE]:,} negative"
        rest = f"{counts[PatchKind.DISCARDED]:,} discarded"
        if counts[PatchKind.VOID]:
            rest += f", {counts[PatchKind.VOID]:,} void"
        panels.append(
            _Panel(
                title=f"stride {stage.stride}, {cols} × {rows} patches\n{text}, {rest}",
                image=paint_patches(image, stage),
                stride=stage.stride,
            )
        )
    return panels


def _draw_panel(axes: Axes, panel: _Panel, *, cell_px: float) -> None:
    height, width = panel.image.shape[-2:]
    large = cell_px >= 1
    axes.imshow(
        np.moveaxis(panel.image, 0, -1),
        extent=(0, width, height, 0),
        interpolation="nearest" if large else "antialiased",
    )
    axes.set_title(panel.title, fontsize=11 if width * cell_px > 500 else 8.5, color=_INK, pad=5)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#888888")
        spine.set_linewidth(0.8)
    if panel.stride is not None and panel.stride * cell_px >= _MIN_CELL_PX:
        axes.vlines(np.arange(panel.stride, width, panel.stride), 0, height, color="white", linewidth=0.5, alpha=0.45)
        axes.hlines(np.arange(panel.stride, height, panel.stride), 0, width, color="white", linewidth=0.5, alpha=0.45)


def _kinds_in(patches: Sequence[ClassPatches]) -> list[PatchKind]:
    """Return the kinds that the legend explains: void only where there is some."""
    void = any(stage.counts[PatchKind.VOID] for one in patches for stage in one.stages)
    return [kind for kind in PatchKind if void or kind != PatchKind.VOID]


def _draw_legend(figure: Figure, kinds: Sequence[PatchKind]) -> None:
    from matplotlib.patches import Patch

    handles = []
    for kind in kinds:
        face = np.array(PATCH_COLORS[kind]) * _OPACITY[kind] + 128 * (1 - _OPACITY[kind])
        void = kind == PatchKind.VOID
        handles.append(
            Patch(
                facecolor=tuple(face / 255),
                edgecolor="#6e6e6e" if void else "#777777",
                hatch="////" if void else None,
                linewidth=0.8,
                label=_MEANING[kind],
            )
        )
    figure.legend(
        handles=handles,
        loc="lower center",
        ncol=len(handles),
        frameon=False,
        fontsize=13,
        labelcolor=_INK,
        handlelength=1.8,
        handleheight=1.2,
        columnspacing=2.2,
        borderaxespad=0.35,
    )
