"""Small pictures inside a page: an image, and beside it the same image under its mask."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.classes import IGNORE_INDEX, Mask
from ctrs.report.html import Html, element, join
from ctrs.report.pictures import Image

OVERLAY_OPACITY = 0.45
"""Of a class's colour over the image; its borders are opaque."""

_JPEG_QUALITY = 80
_GAP_PX = 6


def data_uri(image: Image) -> str:
    """Return an image as text that a page can hold: lossless where that takes less room, else a JPEG.

    Args:
        image: uint8 (3, H, W).
    """
    from PIL import Image as Picture

    picture = Picture.fromarray(np.ascontiguousarray(np.moveaxis(image, 0, -1)))
    lossless, lossy = io.BytesIO(), io.BytesIO()
    picture.save(lossless, "PNG", optimize=True)
    picture.save(lossy, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    if len(lossless.getvalue()) <= len(lossy.getvalue()):
        return _uri("png", lossless.getvalue())
    return _uri("jpeg", lossy.getvalue())


def overlay_uri(mask: Mask, colors: Sequence[tuple[int, int, int]]) -> str:
    """Return a mask as a PNG to lay over its image: classes translucent with opaque borders, ignored pixels clear.

    Args:
        mask: Class indices (H, W), 255 where ignored.
        colors: By class index.
    """
    from PIL import Image as Picture

    opacity = np.zeros((256, 1), np.uint8)
    opacity[: len(colors)] = round(255 * OVERLAY_OPACITY)
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    painted = np.concatenate([table, opacity], axis=1)[mask]
    painted[class_borders(mask) & (mask < len(colors)), 3] = 255
    stream = io.BytesIO()
    _with_palette(painted, Picture).save(stream, "PNG", optimize=True)
    return _uri("png", stream.getvalue())


def _with_palette(painted: npt.NDArray[np.uint8], pictures: Any) -> Any:
    """Return RGBA pixels as a picture with a palette, which takes a quarter of the room, if 256 entries are enough."""
    packed = np.ascontiguousarray(painted).view(np.uint32)[..., 0]
    values, places = np.unique(packed, return_inverse=True)
    if len(values) > 256:
        return pictures.fromarray(painted)
    entries = values[:, None].view(np.uint8)
    picture = pictures.fromarray(places.reshape(packed.shape).astype(np.uint8))
    picture.putpalette(entries[:, :3].tobytes())
    picture.info["transparency"] = entries[:, 3].tobytes()
    return picture


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
