"""Paints the ground: patches of lawn, soil, paving and water, then streets with pavements and markings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctrs.synthetic.canvas import BoolArray, Box2d, Canvas, FloatArray
from ctrs.synthetic.inventory import Patch, PatchKind, Rgb, TownClass
from ctrs.synthetic.streets import PAVEMENT_M, Street

_GRAIN = 0.03
_STONE_TINT = np.array([0.075, 0.03, -0.015], dtype=np.float32)
_CORNER_M = 3.6  # how far street corners are rounded


@dataclass(frozen=True, kw_only=True)
class _Surface:
    """Two colours between which a surface varies, and how strongly it speckles."""

    one: Rgb
    other: Rgb
    label: TownClass
    speckle: float = 0.05


_SURFACES: dict[PatchKind, _Surface] = {
    "lawn": _Surface(one=(0.37, 0.46, 0.25), other=(0.49, 0.50, 0.32), label=TownClass.LOW_VEGETATION, speckle=0.09),
    "meadow": _Surface(one=(0.40, 0.45, 0.26), other=(0.59, 0.55, 0.38), label=TownClass.LOW_VEGETATION, speckle=0.13),
    "soil": _Surface(one=(0.58, 0.47, 0.37), other=(0.63, 0.43, 0.33), label=TownClass.LOW_VEGETATION, speckle=0.09),
    "bed": _Surface(one=(0.43, 0.32, 0.25), other=(0.36, 0.40, 0.25), label=TownClass.LOW_VEGETATION, speckle=0.20),
    "asphalt": _Surface(one=(0.43, 0.43, 0.44), other=(0.50, 0.50, 0.50), label=TownClass.IMPERVIOUS),
    "paving": _Surface(one=(0.59, 0.57, 0.54), other=(0.52, 0.50, 0.47), label=TownClass.IMPERVIOUS, speckle=0.06),
    "red_paving": _Surface(one=(0.59, 0.45, 0.40), other=(0.53, 0.43, 0.39), label=TownClass.IMPERVIOUS, speckle=0.07),
    "concrete": _Surface(one=(0.67, 0.66, 0.63), other=(0.59, 0.58, 0.55), label=TownClass.IMPERVIOUS, speckle=0.04),
    "gravel": _Surface(one=(0.64, 0.60, 0.53), other=(0.56, 0.52, 0.46), label=TownClass.IMPERVIOUS, speckle=0.10),
    "water": _Surface(one=(0.19, 0.25, 0.25), other=(0.25, 0.31, 0.27), label=TownClass.CLUTTER, speckle=0.03),
    "pool": _Surface(one=(0.35, 0.66, 0.76), other=(0.43, 0.73, 0.80), label=TownClass.CLUTTER, speckle=0.05),
    "site": _Surface(one=(0.66, 0.54, 0.41), other=(0.52, 0.41, 0.32), label=TownClass.CLUTTER, speckle=0.16),
    "court": _Surface(one=(0.62, 0.37, 0.27), other=(0.59, 0.36, 0.28), label=TownClass.CLUTTER, speckle=0.03),
    "sand": _Surface(one=(0.76, 0.68, 0.53), other=(0.70, 0.62, 0.48), label=TownClass.CLUTTER, speckle=0.07),
    "rubbish": _Surface(one=(0.62, 0.58, 0.54), other=(0.34, 0.30, 0.28), label=TownClass.CLUTTER, speckle=0.55),
}  # fmt: skip


def paint_patches(canvas: Canvas, patches: list[Patch]) -> None:
    """Paint patches in their order, later ones over earlier ones, on grass."""
    _cover(canvas, (slice(0, len(canvas.y)), slice(0, len(canvas.x))), np.ones(canvas.label.shape, bool), "lawn", 1.0)
    for patch in patches:
        box = canvas.plan_box(patch.u0, patch.v0, patch.u1, patch.v1, patch.rough_m)
        if box is not None:
            _paint_patch(canvas, patch, box)


def _paint_patch(canvas: Canvas, patch: Patch, box: Box2d) -> None:
    u = canvas.u[box] - np.float32((patch.u0 + patch.u1) / 2)
    v = canvas.v[box] - np.float32((patch.v0 + patch.v1) / 2)
    half_u, half_v = (patch.u1 - patch.u0) / 2, (patch.v1 - patch.v0) / 2
    if patch.ellipse:
        outside = (np.hypot(u / half_u, v / half_v) - 1.0) * min(half_u, half_v)
    else:
        outside = np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)
    if patch.rough_m:
        outside = outside + patch.rough_m * (0.75 * canvas.mid[box] + 0.25 * canvas.fine[box])
    _cover(canvas, box, outside < 0.0, patch.kind, patch.tone)
    if patch.bay_m:
        along, half_along, half_across = (u, half_u, half_v) if patch.bay_m > 0 else (v, half_v, half_u)
        across = v if patch.bay_m > 0 else u
        bay = abs(patch.bay_m)
        lines = (np.mod(along + half_along + 0.06, bay) < 0.14) & (np.abs(across) < half_across - 0.2) & (outside < 0.0)
        _mark(canvas, box, lines, 0.30)
    if patch.kind == "court":
        lines = (np.abs(outside + 1.2) < 0.08) | (np.minimum(np.abs(u), np.abs(v)) < 0.07)
        _mark(canvas, box, lines & (outside < -1.1), 0.6)


def _cover(canvas: Canvas, box: Box2d, mask: BoolArray, kind: PatchKind, tone: float) -> None:
    surface = _SURFACES[kind]
    coarse, mid, fine = canvas.coarse[box][mask], canvas.mid[box][mask], canvas.fine[box][mask]
    mix = np.clip(0.5 + 0.55 * coarse + 0.3 * mid, 0.0, 1.0)[:, None]
    speckle = 1.0 + surface.speckle * (0.6 * fine + 0.4 * mid) + _GRAIN * canvas.grain[box][mask]
    one, other = np.array(surface.one, dtype=np.float32), np.array(surface.other, dtype=np.float32)
    painted = (one + (other - one) * mix) * (np.float32(tone) * speckle)[:, None]
    if surface.label == TownClass.IMPERVIOUS:  # no two streets have quite the same stone: warmer here, greyer there
        painted *= np.float32(1.0) + canvas.broad[box][mask][:, None] * _STONE_TINT
    canvas.color[box][mask] = painted
    canvas.label[box][mask] = surface.label


def _mark(canvas: Canvas, box: Box2d, mask: BoolArray, strength: float) -> None:
    """Paint worn white road paint."""
    worn = np.clip(strength * (1.0 + 0.5 * canvas.mid[box][mask]), 0.0, 1.0)[:, None]
    color = canvas.color[box][mask]
    canvas.color[box][mask] = color + (np.float32(0.86) - color) * worn


def _smooth_min(a: FloatArray, b: FloatArray, k: float) -> FloatArray:
    """Return a minimum whose corner is rounded over ``k``; equal to the minimum where the two differ by more."""
    blend = np.maximum(np.float32(k) - np.abs(a - b), 0.0) / np.float32(k)
    result: FloatArray = np.minimum(a, b) - blend * blend * np.float32(k / 4)
    return result


def _street_box(canvas: Canvas, street: Street, pad_m: float) -> Box2d | None:
    if street.main:
        return slice(0, len(canvas.y)), slice(0, len(canvas.x))
    low, high = street.at_m - street.half_width_m, street.at_m + street.half_width_m
    if street.axis == "u":
        return canvas.plan_box(street.start_m, low, street.end_m, high, pad_m)
    return canvas.plan_box(low, street.start_m, high, street.end_m, pad_m)


def _street_frame(canvas: Canvas, street: Street, box: Box2d) -> tuple[FloatArray, FloatArray]:
    """Return plan coordinates along the street and across it from its centre line."""
    along, across = (canvas.u, canvas.v) if street.axis == "u" else (canvas.v, canvas.u)
    return along[box], across[box] - np.float32(street.at_m)


def paint_streets(canvas: Canvas, streets: list[Street]) -> None:
    """Paint all streets: pavements, kerbs, carriageways with wear, then their markings."""
    edge = np.full(canvas.label.shape, 1e3, dtype=np.float32)  # signed distance to the carriageway's edge
    main_edge = np.full(canvas.label.shape, 1e3, dtype=np.float32)
    wear = np.zeros(canvas.label.shape, dtype=np.float32)
    for street in streets:
        box = _street_box(canvas, street, _CORNER_M + PAVEMENT_M + 2.0)
        if box is None:
            continue
        along, across = _street_frame(canvas, street, box)
        beyond = np.maximum(np.float32(street.start_m) - along, along - np.float32(street.end_m))
        distance = np.maximum(np.abs(across) - np.float32(street.half_width_m), beyond)
        edge[box] = _smooth_min(edge[box], distance, _CORNER_M)
        if street.main:
            np.minimum(main_edge, distance, out=main_edge)
        tracks = np.exp(-np.square((np.abs(np.abs(across) - 1.9) - 0.8) / 0.35))
        wear[box] += np.where(distance < 0.0, tracks, 0.0).astype(np.float32)
    everywhere = (slice(0, edge.shape[0]), slice(0, edge.shape[1]))
    pavement = (edge >= 0.0) & (edge < PAVEMENT_M)
    _cover(canvas, everywhere, pavement, "paving", 1.02)
    slabs = pavement & ((np.mod(canvas.u, 1.0) < 0.12) | (np.mod(canvas.v, 1.0) < 0.12))
    canvas.color[slabs] *= np.float32(0.95)
    road = edge < 0.0
    _cover(canvas, everywhere, road, "asphalt", 0.98)
    canvas.color[road] *= (1.0 - 0.05 * np.minimum(wear[road], 1.0))[:, None]
    patched = road & (canvas.coarse > 0.62) & (np.abs(edge + 1.6) < 1.1)  # mended with darker asphalt
    canvas.color[patched] *= np.float32(0.84)
    kerb = np.abs(edge - 0.08) < 0.12
    canvas.color[kerb] = canvas.color[kerb] * 0.4 + np.float32(0.70) * 0.6
    edge_line = (np.abs(edge + 0.45) < 0.09) & (main_edge < 0.0)
    _mark(canvas, everywhere, edge_line, 0.55)
    _paint_markings(canvas, streets)


def _paint_markings(canvas: Canvas, streets: list[Street]) -> None:
    mains: dict[str, list[Street]] = {"u": [], "v": []}
    for street in streets:
        if street.main:
            mains[street.axis].append(street)
    for street in streets:
        box = _street_box(canvas, street, 0.0)
        if box is None:
            continue
        along, across = _street_frame(canvas, street, box)
        if not street.main:
            inside = (along > street.start_m + 9.0) & (along < street.end_m - 9.0)
            dashes = (np.abs(across) < 0.07) & (np.mod(along, 7.0) < 2.0) & inside
            _mark(canvas, box, dashes, 0.28)
            continue
        crossing = np.full(along.shape, 1e3, dtype=np.float32)  # distance to the nearest crossing's kerb
        for other in mains["v" if street.axis == "u" else "u"]:
            np.minimum(crossing, np.abs(along - np.float32(other.at_m)) - np.float32(other.half_width_m), out=crossing)
        dashes = (np.abs(across) < 0.1) & (np.mod(along, 6.0) < 3.2) & (crossing > 8.0)
        _mark(canvas, box, dashes, 0.75)
        walk = (crossing > 2.6) & (crossing < 5.4) & (np.abs(across) < street.half_width_m - 0.5)
        _mark(canvas, box, walk & (np.mod(across, 1.0) < 0.5), 0.75)
        stop = (crossing > 6.2) & (crossing < 6.7) & (np.abs(across) < street.half_width_m - 0.5)
        _mark(canvas, box, stop & (across * np.sign(along) > 0.0), 0.7)
