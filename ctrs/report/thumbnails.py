"""Small pictures inside a page: an image, and beside it the same image under its mask."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ctrs.classes import IGNORE_INDEX, Mask
from ctrs.report.html import Html, element, join
from ctrs.report.pictures import Image

OVERLAY_OPACITY = 0.45
"""Of a class's colour over the image; its borders are opaque."""

_JPEG_QUALITY = 80
_FEW_COLORS = 256
"""Colours up to which a PNG takes less room than a JPEG, and shows them as they are."""

_GAP_PX = 6


def data_uri(image: Image) -> str:
    """Return an image as text that a page can hold: a PNG where it has few colours, else a JPEG.

    Args:
        image: uint8 (3, H, W).
    """
    from PIL import Image as Picture

    picture = Picture.fromarray(np.ascontiguousarray(np.moveaxis(image, 0, -1)))
    stream = io.BytesIO()
    if picture.getcolors(_FEW_COLORS) is not None:
        picture.save(stream, "PNG")
        return _uri("png", stream.getvalue())
    picture.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return _uri("jpeg", stream.getvalue())


def overlay_uri(mask: Mask, colors: Sequence[tuple[int, int, int]]) -> str:
    """Return a mask as a PNG to lay over its image: classes translucent with opaque borders, ignored pixels clear.

    Args:
        mask: Class indices (H, W), 255 where ignored.
        colors: By class index.
    """
    from PIL import Image as Picture

    num = len(colors)
    # Entries of a palette: the classes translucent, the classes opaque, nothing.
    table = np.zeros((2 * num + 1, 4), np.uint8)
    table[:num, :3] = table[num : 2 * num, :3] = colors
    table[:num, 3], table[num : 2 * num, 3] = round(255 * OVERLAY_OPACITY), 255
    entries = np.where(mask < num, mask, np.uint16(2 * num))
    entries[class_borders(mask) & (mask < num)] += np.uint16(num)
    if len(table) <= 256:  # a palette takes a quarter of the room
        picture = Picture.fromarray(entries.astype(np.uint8))
        picture.putpalette(table[:, :3].tobytes())
        picture.info["transparency"] = table[:, 3].tobytes()
    else:
        picture = Picture.fromarray(table[entries])
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return _uri("png", stream.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def class_borders(mask: Mask) -> npt.NDArray[np.bool_]:
    """Return the pixels (H, W) beside, above or below one of another class; ignored pixels make no borders.

    >>> class_borders(np.array([[0, 0, 1, 1, 255]], np.uint8)).tolist()
    [[False, True, True, False, False]]
    """
    borders = np.zeros(mask.shape, bool)
    labelled = mask != IGNORE_INDEX
    across = (mask[:, :-1] != mask[:, 1:]) & labelled[:, :-1] & labelled[:, 1:]
    down = (mask[:-1] != mask[1:]) & labelled[:-1] & labelled[1:]
    borders[:, :-1] |= across
    borders[:, 1:] |= across
    borders[:-1] |= down
    borders[1:] |= down
    return borders


def shrink(image: Image, mask: Mask, longest_px: int) -> tuple[Image, Mask]:
    """Return an image (3, H, W), averaged, and its mask, every n-th pixel, with edges of at most ``longest_px``."""
    from PIL import Image as Picture

    height, width = mask.shape
    scale = longest_px / max(height, width)
    if scale >= 1:
        return image, mask
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Picture.fromarray(np.ascontiguousarray(np.moveaxis(image, 0, -1))).resize(size, Picture.Resampling.BOX)
    rows = ((np.arange(size[1]) + 0.5) * height / size[1]).astype(np.intp)
    cols = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(np.intp)
    return np.ascontiguousarray(np.moveaxis(np.asarray(picture), -1, 0)), mask[np.ix_(rows, cols)]


def image_beside_overlay(
    image: Image, mask: Mask, colors: Sequence[tuple[int, int, int]], *, key: str, alt: str, square: bool = False
) -> Html:
    """Draw an image, and right of it the same image under its mask; the image is held once.

    Args:
        image: uint8 (3, H, W).
        mask: Class indices (H, W), 255 where ignored.
        colors: By class index.
        key: Anchor that no other picture of the page has.
        alt: What the picture shows, for those who cannot see it.
        square: Leave room for a square, so that pictures of different shapes stand in line.
    """
    height, width = mask.shape
    cell_width, cell_height = (max(height, width),) * 2 if square else (width, height)
    scale = 256 / max(cell_width, cell_height)
    left, top = (cell_width - width) / 2 * scale, 0.0
    size = {"width": width * scale, "height": height * scale}
    second = left + cell_width * scale + _GAP_PX
    sharp = "pixels" if scale > 1.5 else None
    total = (2 * cell_width * scale + _GAP_PX, cell_height * scale)
    return element(
        "svg",
        element("title", alt),
        join(
            [
                element("image", id=key, x=left, y=top, **size, href=data_uri(image), class_=sharp),
                element("use", href=f"#{key}", x=second - left),
                element("image", x=second, y=top, **size, href=overlay_uri(mask, colors), class_="pixels"),
            ]
        ),
        viewBox=f"0 0 {total[0]:.0f} {total[1]:.0f}",
        role="img",
        aria_label=alt,
    )
