"""Pictures of scores inside a page: a place as panels side by side, a scene with its errors and places."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ctrs.classes import Mask
from ctrs.report.ground_map import hatching
from ctrs.report.html import Html, element, join
from ctrs.report.pictures import Image
from ctrs.report.thumbnails import data_uri

ERROR_COLOR = (0xE6, 0x00, 0x3D)
"""Of wrong pixels over the grey scene."""

_ERROR_OPACITY = 0.8

PANEL_PX = 256.0
_GAP_PX = 8.0
_TITLE_PX = 20.0
_TITLE_SIGNS = 38


@dataclass(frozen=True, kw_only=True)
class PlacePanels:
    """A place as it is drawn: its image, its true mask, and the mask of each run.

    Args:
        image: uint8 (3, h, w), None where there is none.
        truth: Class indices (h, w), 255 where ignored.
        runs: Name and mask (h, w) of each run.
        counted: True = pixel counts (h, w); errors elsewhere are not drawn.
    """

    image: Image | None
    truth: Mask
    runs: Sequence[tuple[str, Mask]]
    counted: npt.NDArray[np.bool_]


def place_panels(place: PlacePanels, colors: Sequence[tuple[int, int, int]], *, key: str, alt: str) -> Html:
    """Draw scene, truth and runs side by side, and the errors of each run over the grey scene.

    With one run all stand in a row; with several the errors stand below the runs that made them. What has no label or
    no prediction is hatched.

    Args:
        place: What is drawn.
        colors: By class index.
        key: Anchor that no other picture of the page has.
        alt: What the picture shows.
    """
    height, width = place.truth.shape
    scale = PANEL_PX / max(height, width)
    size = {"width": width * scale, "height": height * scale}
    sharp = "pixels" if scale > 1.5 else None
    step, row = size["width"] + _GAP_PX, size["height"] + _TITLE_PX + _GAP_PX
    shared = [hatching(f"{key}-hatching")]
    if place.image is not None:
        shared.append(element("image", id=key, **size, href=data_uri(place.image), class_=sharp))
    parts: list[Html] = [element("title", alt), element("defs", *shared)]

    def panel(col: int, line: int, title: str, *layers: Html, is_mask: bool = False) -> None:
        x, y = col * step, line * row
        parts.append(element("text", _shorten(title), x=x, y=y + _TITLE_PX - 7, font_size=12.5))
        ground = element("rect", **size, class_="frame")
        empty = [element("rect", **size, fill=f"url(#{key}-hatching)")] if is_mask else []
        parts.append(element("g", ground, *empty, *layers, transform=f"translate({x:.2f} {y + _TITLE_PX:.2f})"))

    scene = [] if place.image is None else [element("use", href=f"#{key}")]
    first = 0
    if scene:
        panel(0, 0, "scene", *scene)
        first = 1
    panel(first, 0, "truth", _layer(mask_uri(place.truth, colors), size), is_mask=True)
    alone = len(place.runs) == 1
    grey = [] if place.image is None else [element("use", href=f"#{key}", class_="faded")]
    for number, (name, mask) in enumerate(place.runs):
        col = first + 1 + number
        panel(col, 0, name, _layer(mask_uri(mask, colors), size), is_mask=True)
        wrong = (mask != place.truth) & place.counted
        title = "errors" if alone else f"errors of {name}"
        panel(col + 1 if alone else col, 0 if alone else 1, title, *grey, _layer(error_uri(wrong), size))
    columns = first + 1 + (2 if alone else len(place.runs))
    total = columns * step - _GAP_PX, (1 if alone else 2) * row - _GAP_PX
    return element(
        "svg",
        join(parts),
        viewBox=f"0 0 {total[0]:.1f} {total[1]:.1f}",
        width=round(total[0]),
        role="img",
        aria_label=alt,
    )


def _shorten(name: str) -> str:
    return name if len(name) <= _TITLE_SIGNS else f"{name[: _TITLE_SIGNS - 1]}\N{HORIZONTAL ELLIPSIS}"


def _layer(uri: str, size: dict[str, float]) -> Html:
    return element("image", **size, href=uri, class_="pixels")


def mask_uri(mask: Mask, colors: Sequence[tuple[int, int, int]]) -> str:
    """Return a mask in its classes' colours as a PNG, ignored pixels clear."""
    table = np.zeros((256, 4), np.uint8)
    table[: len(colors), :3], table[: len(colors), 3] = colors, 255
    return _palette_png(mask, table)


def error_uri(wrong: npt.NDArray[np.bool_]) -> str:
    """Return pixels (H, W), True = wrong, as a PNG to lay over their scene, clear elsewhere."""
    return _palette_png(
        wrong.astype(np.uint8), np.array([(*ERROR_COLOR, 0), (*ERROR_COLOR, round(255 * _ERROR_OPACITY))], np.uint8)
    )


def _palette_png(indices: npt.NDArray[np.uint8], table: npt.NDArray[np.uint8]) -> str:
    """Encode an image of palette entries; those that occur are numbered anew, which makes few bits of most masks."""
    from PIL import Image as Picture

    present, places = np.unique(indices, return_inverse=True)
    held = table[present]
    picture = Picture.fromarray(places.reshape(indices.shape).astype(np.uint8))
    picture.putpalette(held[:, :3].tobytes())
    bits = next(bits for bits in (1, 2, 4, 8) if len(present) <= 1 << bits)
    picture.info["transparency"] = held[:, 3].tobytes()
    stream = io.BytesIO()
    picture.save(stream, "PNG", bits=bits)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


MarkKind = Literal["worst", "disputed", "best"]


@dataclass(frozen=True, kw_only=True)
class PlaceMark:
    """A place on a scene: its pixels, what is written on it, and why it is shown."""

    label: str
    row_off: int
    col_off: int
    height: int
    width: int
    kind: MarkKind


def scene_overview(
    image: Image | None,
    error_rates: npt.NDArray[np.float64],
    marks: Sequence[PlaceMark],
    *,
    top: float,
    scene_shape: tuple[int, int],
    cell_px: int,
    alt: str,
    width_px: float = 480.0,
) -> Html:
    """Draw a scene in grey, the share of errors of its cells in red, and the places that are shown.

    Args:
        image: The scene made small, uint8 (3, h, w); None leaves it out.
        error_rates: Share of errors by cell (rows, cols), NaN where nothing counts.
        marks: Outlined and named, later ones over earlier ones.
        top: Share of errors that is drawn in full red.
        scene_shape: Rows and columns of the scene.
        cell_px: Edge of the cells in pixels of the scene.
        alt: What the picture shows.
        width_px: Longest edge of the picture.
    """
    height, width = scene_shape
    scale = width_px / max(height, width)
    size = {"width": width * scale, "height": height * scale}
    parts: list[Html] = [element("title", alt), element("rect", **size, class_="frame")]
    if image is not None:
        parts.append(element("image", **size, href=data_uri(image), class_="faded"))
    parts.append(_cells(error_rates, top, cell_px * scale, size))
    for mark in marks:
        box = {
            "x": mark.col_off * scale,
            "y": mark.row_off * scale,
            "width": mark.width * scale,
            "height": mark.height * scale,
        }
        parts.append(element("rect", **box, class_="mark casing"))
        parts.append(element("rect", element("title", mark.label), **box, class_=f"mark {mark.kind}"))
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 + 5
        parts.append(element("text", mark.label, x=x, y=y, text_anchor="middle", class_="halo", font_size=15))
    return element(
        "svg",
        join(parts),
        viewBox=f"0 0 {size['width']:.1f} {size['height']:.1f}",
        role="img",
        aria_label=alt,
    )


def _cells(error_rates: npt.NDArray[np.float64], top: float, edge: float, size: dict[str, float]) -> Html:
    """Return the cells as a picture of one pixel for each, opaque by their share of errors."""
    from PIL import Image as Picture

    rates = np.nan_to_num(error_rates, nan=0.0)
    pixels = np.empty((*rates.shape, 4), np.uint8)
    pixels[..., :3] = ERROR_COLOR
    pixels[..., 3] = np.rint(rates / top * 190) if top > 0 else 0
    stream = io.BytesIO()
    Picture.fromarray(pixels).save(stream, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    rows, cols = rates.shape
    # The last row and column may reach beyond the scene.
    whole = element(
        "image", width=cols * edge, height=rows * edge, href=uri, class_="pixels", preserveAspectRatio="none"
    )
    return element("svg", whole, **size, viewBox=f"0 0 {size['width']:.2f} {size['height']:.2f}")
