"""Paints what rises: roofs with lit and shaded faces, boxes, cars and trees, each with its height for the shadows."""

from __future__ import annotations

import math

import numpy as np

from ctrs.synthetic.canvas import BoolArray, Canvas, FloatArray
from ctrs.synthetic.inventory import Box, Car, Rgb, Roof, RoofMaterial, TownClass, Tree, TreeKind

_MATERIALS: dict[RoofMaterial, Rgb] = {
    "red": (0.62, 0.35, 0.28),
    "orange": (0.71, 0.45, 0.34),
    "brown": (0.47, 0.36, 0.31),
    "slate": (0.41, 0.42, 0.45),
    "bitumen": (0.40, 0.40, 0.41),
    "gravel": (0.60, 0.58, 0.55),
    "white": (0.83, 0.83, 0.82),
    "metal": (0.63, 0.65, 0.66),
    "green": (0.47, 0.47, 0.33),
}
_TILED = ("red", "orange", "brown", "slate")
_CROWNS: dict[TreeKind, tuple[Rgb, Rgb]] = {
    "broadleaf": ((0.22, 0.31, 0.15), (0.31, 0.39, 0.20)),
    "conifer": ((0.15, 0.24, 0.16), (0.20, 0.29, 0.19)),
    "autumn": ((0.42, 0.35, 0.18), (0.52, 0.38, 0.20)),
    "shrub": ((0.28, 0.36, 0.19), (0.36, 0.40, 0.22)),
}


def _lambert(canvas: Canvas, slope_x: FloatArray | float, slope_y: FloatArray | float) -> FloatArray:
    """Return direct light on a surface rising by slope_x east and slope_y south, relative to level ground.

    Softened towards 1, as light reflected between surfaces softens it.
    """
    sx, sy, sz = canvas.sun
    x, y = np.asarray(slope_x, dtype=np.float32), np.asarray(slope_y, dtype=np.float32)
    facing = (sz - x * sx - y * sy) / (np.sqrt(1.0 + x * x + y * y) * sz)
    result: FloatArray = (0.12 + 0.88 * np.clip(facing, 0.0, 1.5)).astype(np.float32)
    return result


def paint_roofs(canvas: Canvas, roofs: list[Roof]) -> None:
    """Paint roofs; where they overlap the higher face shows."""
    for roof in roofs:
        _paint_roof(canvas, roof)


def _paint_roof(canvas: Canvas, roof: Roof) -> None:
    box = canvas.around(roof.x, roof.y, math.hypot(roof.length_m, roof.width_m) / 2 + 0.5)
    if box is None:
        return
    a, b = canvas.local(box, roof.x, roof.y, roof.angle_rad)
    to_end = np.float32(roof.length_m / 2) - np.abs(a)  # distances to the borders
    to_eave = np.float32(roof.width_m / 2) - np.abs(b)
    inside = (to_end > 0.0) & (to_eave > 0.0)
    rise_a, rise_b, run, seam = _faces(roof, a, b, to_end, to_eave)
    rise = run * np.float32(roof.slope)
    top = np.float32(roof.eave_m) + rise
    mask = inside & (top > canvas.height[box])
    if not mask.any():
        return
    cos, sin = math.cos(roof.angle_rad), math.sin(roof.angle_rad)
    light = _lambert(canvas, rise_a * cos - rise_b * sin, rise_a * sin + rise_b * cos)
    tone = (
        _texture(canvas, roof, a, run)[mask]
        * (
            1.0
            + 0.055 * canvas.mid[box]
            + 0.05 * canvas.fine[box]
            + 0.025 * canvas.grain[box]
            + 0.03 * canvas.coarse[box]
        )[mask]
    )
    color = np.array(_MATERIALS[roof.material], dtype=np.float32) * np.array(roof.tone, dtype=np.float32)
    painted = color * tone[:, None]
    border = np.minimum(to_end, to_eave)[mask]
    if roof.shape == "flat":  # a bright parapet with a dark line inside
        parapet, gutter = border < 0.38, (border >= 0.38) & (border < 0.62)
        painted[parapet] = painted[parapet] * 0.55 + np.float32(0.32)
        painted[gutter] *= np.float32(0.84)
    else:
        painted[border < 0.2] *= np.float32(0.86)
        ridge = seam[mask] < 0.2
        painted[ridge] = painted[ridge] * 0.86 + np.float32(0.10)
    if roof.material == "green":  # sedum and bare spots
        moss = np.clip(0.5 + 0.8 * canvas.mid[box] + 0.5 * canvas.fine[box], 0.0, 1.0)[mask]
        painted = painted * (1.0 - 0.3 * moss[:, None] * np.array([1.0, 0.35, 0.9], dtype=np.float32))
    canvas.color[box][mask] = painted
    canvas.label[box][mask] = TownClass.BUILDING
    canvas.height[box][mask] = top[mask]
    canvas.slope_light[box][mask] = np.broadcast_to(light, mask.shape)[mask]


def _faces(
    roof: Roof, a: FloatArray, b: FloatArray, to_end: FloatArray, to_eave: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return the slopes along and across the ridge, the run from the eave, and the distance to ridge or hip."""
    level = np.zeros_like(a)
    far = np.full_like(a, 1e3)
    up_b = -np.sign(b) * np.float32(roof.slope)
    match roof.shape:
        case "flat":
            return level, level, level, far
        case "shed":
            return level, level + np.float32(roof.slope), b + np.float32(roof.width_m / 2), far
        case "gable":
            return level, up_b, to_eave, np.abs(b)
        case "hip" | "half_hip":
            end = to_end if roof.shape == "hip" else to_end + np.float32(roof.width_m * 0.27)
            gabled = to_eave <= end
            up_a = -np.sign(a) * np.float32(roof.slope)
            run = np.minimum(to_eave, end)
            seam = np.minimum(np.abs(to_eave - end) * np.float32(0.7), np.where(gabled, np.abs(b), 1e3))
            return np.where(gabled, 0.0, up_a), np.where(gabled, up_b, 0.0), run, seam.astype(np.float32)


def _texture(canvas: Canvas, roof: Roof, a: FloatArray, run: FloatArray) -> FloatArray:
    """Return brightness factors: courses of tiles, seams of metal, sheets of bitumen, stains."""
    # Patterns finer than two pixels would only alias.
    fade = min(1.0, max(0.0, 0.35 / canvas.pixel_size_m - 0.75))
    if roof.material in _TILED:
        pattern = 0.05 * fade * np.sin(run * np.float32(2 * math.pi / 0.55))
    elif roof.material == "metal":
        pattern = 0.04 * np.sin(a * np.float32(2 * math.pi / 1.1))
    elif roof.material == "bitumen":
        pattern = 0.05 * np.sign(np.mod(a, np.float32(2.0)) - np.float32(1.0))
    else:
        pattern = np.zeros_like(a)
    result: FloatArray = (1.0 + pattern).astype(np.float32)
    return result


def paint_boxes(canvas: Canvas, boxes: list[Box]) -> None:
    """Paint boxes on top of what is there."""
    for item in boxes:
        box = canvas.around(item.x, item.y, math.hypot(item.length_m, item.width_m) / 2 + 0.3)
        if box is None:
            continue
        a, b = canvas.local(box, item.x, item.y, item.angle_rad)
        mask = (np.abs(a) < item.length_m / 2) & (np.abs(b) < item.width_m / 2)
        if item.label is not None:  # what stands on the ground never stands on a roof
            mask &= canvas.label[box] != TownClass.BUILDING
        tone = 1.0 + item.texture * canvas.fine[box] + 0.5 * item.texture * canvas.grain[box]
        if item.ribs:
            tone = tone * (1.0 + 0.08 * np.sign(np.mod(a, 0.8) - 0.4))
        canvas.color[box][mask] = np.array(item.color, dtype=np.float32) * tone[mask][:, None].astype(np.float32)
        canvas.height[box][mask] += np.float32(item.height_m)
        if item.height_m > 0.2:
            canvas.slope_light[box][mask] = 1.0
        if item.label is not None:
            canvas.label[box][mask] = item.label


def paint_cars(canvas: Canvas, cars: list[Car]) -> None:
    """Paint cars: body with rounded corners, dark windows, lighter roof."""
    for car in cars:
        box = canvas.around(car.x, car.y, car.length_m / 2 + 0.5)
        if box is None:
            continue
        a, b = canvas.local(box, car.x, car.y, car.angle_rad)
        half_l, half_w = car.length_m / 2, car.width_m / 2
        body = (np.power(np.abs(a) / half_l, 5) + np.power(np.abs(b) / half_w, 5) < 1.0) & (
            canvas.label[box] != TownClass.BUILDING
        )
        t = a / half_l
        side = np.abs(b) > half_w * 0.78
        windows = ((t > 0.12) & (t < 0.42)) | ((t < -0.55) & (t > -0.78)) | (side & (np.abs(t) < 0.6))
        cabin = (t <= 0.12) & (t >= -0.55) & ~side
        color = np.array(car.color, dtype=np.float32)
        shade = np.where(windows, 0.36, np.where(cabin, 1.06, 0.97)).astype(np.float32)[..., None]
        painted = (color * shade + 0.02)[body] * (1.0 + 0.02 * canvas.grain[box][body])[:, None]
        canvas.color[box][body] = painted
        canvas.label[box][body] = TownClass.CAR
        canvas.height[box][body] = np.where(cabin | windows, 1.45, 0.9)[body].astype(np.float32)
        canvas.slope_light[box][body] = 1.0


def paint_trees(canvas: Canvas, trees: list[Tree]) -> None:
    """Paint crowns: lobed outlines, a lit and a dark side, leafy speckle; they hide what is lower."""
    for tree in trees:
        _paint_tree(canvas, tree)


def _paint_tree(canvas: Canvas, tree: Tree) -> None:
    box = canvas.around(tree.x, tree.y, tree.radius_m * 1.5 + 0.3)
    if box is None:
        return
    dx, dy = canvas.local(box, tree.x, tree.y, 0.0)
    distance = np.hypot(dx, dy)
    bearing = np.arctan2(dy, dx)
    lobes = 5 if tree.kind != "conifer" else 8
    outline = tree.radius_m * (
        1.0
        + 0.10 * np.sin(3 * bearing + tree.phase)
        + 0.07 * np.sin(lobes * bearing + 2.3 * tree.phase)
        + 0.16 * canvas.mid[box]
        + 0.12 * canvas.fine[box]
    )
    part = distance / np.maximum(outline, 0.2)
    dome = np.sqrt(np.clip(1.0 - np.minimum(part, 1.0) ** 2, 0.0, 1.0))
    top = tree.height_m * (0.45 + 0.55 * (dome if tree.kind != "conifer" else 1.0 - np.minimum(part, 1.0)))
    mask: BoolArray = (part < 1.0) & (top > canvas.height[box])
    if not mask.any():
        return
    steep = (1.5 if tree.kind == "conifer" else 1.05) * np.minimum(part, 1.0)
    away = np.maximum(distance, 0.05)
    light = _lambert(canvas, (-steep * dx / away).astype(np.float32), (-steep * dy / away).astype(np.float32))
    leaves = 0.26 * canvas.fine[box] + 0.12 * canvas.mid[box] + 0.10 * canvas.grain[box]
    if tree.kind == "conifer":
        leaves = 0.5 * leaves + 0.12 * np.sin(lobes * bearing + tree.phase)
    dark, bright = (np.array(c, dtype=np.float32) for c in _CROWNS[tree.kind])
    mix = np.clip(0.5 + 0.5 * canvas.coarse[box] + 0.4 * canvas.fine[box], 0.0, 1.0)[mask][:, None]
    tone = (tree.tone * (1.0 + leaves) * (0.72 + 0.28 * dome))[mask]
    canvas.color[box][mask] = (dark + (bright - dark) * mix) * tone[:, None].astype(np.float32)
    canvas.label[box][mask] = TownClass.TREE
    canvas.height[box][mask] = top[mask]
    canvas.slope_light[box][mask] = light[mask]
