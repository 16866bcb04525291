"""Fills the town's blocks: detached houses, row houses, apartments, shops, parks, yards and old-town courts."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from ctrs.synthetic.houses import build_detached_plot, draw_material, draw_tone, furnish_flat_roof, furnish_pitched_roof
from ctrs.synthetic.inventory import Inventory, PatchKind, Rgb, TownClass
from ctrs.synthetic.site import Front, Site
from ctrs.synthetic.streets import Quarter, TownPlan
from ctrs.synthetic.traffic import line_streets

_BIN_COLORS: tuple[Rgb, ...] = ((0.20, 0.36, 0.28), (0.24, 0.34, 0.52), (0.62, 0.60, 0.58), (0.72, 0.60, 0.20))
_CONTAINER_COLORS: tuple[Rgb, ...] = ((0.62, 0.26, 0.20), (0.22, 0.36, 0.55), (0.34, 0.46, 0.36), (0.72, 0.72, 0.70))


def furnish_quarter(plan: TownPlan, quarter: Quarter) -> Inventory:
    """Return everything that stands in a quarter, its side streets and its left and top main roads."""
    inventory = Inventory()
    for number, block in enumerate(quarter.blocks):
        rng = plan.rng("block", quarter.row, quarter.column, number)
        wide = block.u1 - block.u0 >= block.v1 - block.v0
        fronts: tuple[Front, Front] = ("top", "bottom") if wide else ("left", "right")
        site = Site.of_block(plan, inventory, rng, block, fronts[int(rng.integers(2))])
        names = list(_FILLERS)
        weights = np.array([_FILLERS[name][0] for name in names])
        fill = _FILLERS[names[int(rng.choice(len(names), p=weights / weights.sum()))]][1]
        fill(site)
        _set_bins(site)
    line_streets(plan, quarter, inventory)
    return inventory


def _detached(site: Site) -> None:
    site.patch("lawn", 0, 0, site.width_m, site.depth_m)
    rows = [site]
    if site.depth_m > 36.0:
        middle = site.depth_m * site.between(0.47, 0.53)
        rows = [
            site.cut(0, 0, site.width_m, middle),
            site.cut(0, middle, site.width_m, site.depth_m, front="back"),
        ]
    for row in rows:
        count = max(1, round(row.width_m / site.between(16.5, 22.0)))
        cuts = np.linspace(0.0, row.width_m, count + 1)
        cuts[1:-1] += site.rng.uniform(-1.5, 1.5, count - 1)
        for s0, s1 in itertools.pairwise(cuts):
            build_detached_plot(row.cut(float(s0), 0, float(s1), row.depth_m))


_LAP_M = 0.3
"""How far adjoining houses reach into each other, so that no ground shows between them where the street bends."""


def _row_houses(site: Site) -> None:
    site.patch("lawn", 0, 0, site.width_m, site.depth_m)
    lanes = [site]
    if site.depth_m > 44.0:
        lanes = [
            site.cut(0, 0, site.width_m, site.depth_m / 2),
            site.cut(0, site.depth_m / 2, site.width_m, site.depth_m, front="back"),
        ]
    for lane in lanes:
        unit = site.between(5.8, 7.4)
        count = int((lane.width_m - 6.0) / unit)
        start = (lane.width_m - count * unit) / 2
        setback, depth = site.between(4.5, 6.5), site.between(9.0, 10.5)
        material, tone, slope = draw_material(site), draw_tone(site), site.between(0.55, 0.85)
        gap = int(site.rng.integers(2, max(3, count - 1))) if count > 6 and site.chance(0.6) else -1
        for number in range(count):
            s = start + (number + 0.5) * unit
            lane.patch("paving", s - 0.7, 0, s + 0.7, setback + 0.5)
            if number == gap:
                lane.patch("paving", s - unit / 2 + 0.5, 0, s + unit / 2 - 0.5, setback + depth)
                lane.car(s + site.between(-1.0, 1.0), setback + site.between(0.0, 5.0), along="t")
                continue
            step = 0.35 * (number % 2)
            roof = lane.roof(
                s,
                setback + depth / 2 + step,
                unit + _LAP_M,
                depth,
                eave_m=5.6 + 0.25 * (number % 2),
                shape="gable",
                material=material,
                tone=draw_tone(site, tone),
                slope=slope,
            )
            furnish_pitched_roof(site, roof)
            back = setback + depth + step
            lane.patch("paving", s - unit / 2 + 0.3, back, s + unit / 2 - 0.3, back + site.between(2.0, 3.5))
            if site.chance(0.45):
                lane.patch("bed", s - unit / 2 + 0.5, back + 5, s - unit / 2 + 2.2, back + 9, rough_m=0.4)
            end = min(lane.depth_m - 1.5, back + 13.0)
            lane.hedge(s + unit / 2, back + 0.5, s + unit / 2, end)
            if site.chance(0.4) and end - back > 8:
                _shed(lane, s - unit / 4, end - 1.2)
            for _ in range(int(site.rng.integers(0, 3))):
                t = site.between(back + 3, max(back + 4, lane.depth_m - 1))
                lane.tree(s + site.between(-2, 2), t, site.between(1.3, 3.0))
            if site.chance(0.12):
                lane.patch("pool", s - 1.4, back + 5, s + 1.4, back + 7.8, ellipse=True)


def _apartments(site: Site) -> None:
    site.patch("meadow" if site.chance(0.4) else "lawn", 0, 0, site.width_m, site.depth_m)
    depth = site.between(11.0, 13.5)
    storeys = int(site.rng.integers(3, 6))
    pitch = depth + site.between(12.0, 16.0)
    count = max(1, int((site.depth_m - 4.0) / pitch))
    material, tone = draw_material(site, flat=site.chance(0.6)), draw_tone(site)
    flat = material in ("gravel", "bitumen", "white", "green")
    for number in range(count):
        t = 5.0 + depth / 2 + number * pitch
        length = site.width_m - site.between(8.0, 16.0)
        s = site.width_m / 2 + site.between(-2.0, 2.0)
        roof = site.roof(
            s,
            t,
            length,
            depth,
            eave_m=2.8 * storeys,
            shape="flat" if flat else "hip" if site.chance(0.5) else "gable",
            material=material,
            tone=draw_tone(site, tone),
            slope=0.0 if flat else site.between(0.4, 0.6),
        )
        (furnish_flat_roof if flat else furnish_pitched_roof)(site, roof)
        path = t + depth / 2 + 1.0
        site.patch("paving", 1.0, path, site.width_m - 1.0, path + 2.0)
        lot_depth = min(5.2, pitch - depth - 5.0)
        if number == 0 or site.chance(0.5):
            _parking(site, 3.0, path + 2.0, site.width_m * site.between(0.5, 0.9), path + 2.0 + lot_depth, filled=0.6)
    for _ in range(int(site.width_m * site.depth_m / 150)):
        site.tree(
            site.between(1, site.width_m - 1),
            site.between(1, site.depth_m - 1),
            site.between(1.8, 4.4),
            clear_m=site.between(1.0, 2.5),
        )


def _shops(site: Site) -> None:
    site.patch("asphalt" if site.chance(0.6) else "concrete", 0, 0, site.width_m, site.depth_m)
    lot = min(site.depth_m * 0.45, 18.0)
    depth = min(site.depth_m - lot - 5.0, site.between(20.0, 34.0))
    material, tone = draw_material(site, flat=True), draw_tone(site)
    s0 = 3.0
    while s0 < site.width_m - 14.0:
        length = min(site.between(16.0, 38.0), site.width_m - 3.0 - s0)
        roof = site.roof(
            s0 + length / 2,
            lot + depth / 2 + site.between(0.0, 2.0),
            length,
            depth,
            eave_m=site.between(5.0, 9.0),
            shape="flat",
            material=material,
            tone=draw_tone(site, tone),
        )
        furnish_flat_roof(site, roof)
        s0 += length + (0.0 if site.chance(0.4) else site.between(4.0, 8.0))
        if site.chance(0.4):
            material, tone = draw_material(site, flat=True), draw_tone(site)
    _parking(site, 3.0, 1.0, site.width_m - 3.0, 6.0, filled=0.65)
    if lot > 14.0:
        _parking(site, 4.0, lot - 6.0, site.width_m - 4.0, lot - 1.0, filled=0.5)
        for s in np.arange(6.0, site.width_m - 6.0, site.between(9.0, 14.0)):
            site.tree(float(s), 6.6, site.between(1.4, 2.2))
    if lot + depth + 4 < site.depth_m:
        site.patch("lawn", 0, lot + depth + 3.5, site.width_m, site.depth_m)
        for _ in range(6):
            t = site.between(lot + depth + 4, site.depth_m)
            site.tree(site.between(0, site.width_m), t, site.between(1.5, 3.5))
    for _ in range(int(site.rng.integers(1, 4))):
        _container(site, site.between(5, site.width_m - 5), site.depth_m - site.between(1.5, 3.0))
    site.car(site.between(8, site.width_m - 8), lot - 9.0 if lot > 14 else 8.0, van=True)


def _park(site: Site) -> None:
    site.patch("meadow", 0, 0, site.width_m, site.depth_m)
    w, d = site.width_m, site.depth_m
    path: PatchKind = "gravel" if site.chance(0.6) else "paving"
    across, along = d * site.between(0.35, 0.65), w * site.between(0.3, 0.7)
    site.patch(path, 0, across - 1.2, w, across + 1.2, rough_m=0.25)
    site.patch(path, along - 1.2, 0, along + 1.2, d, rough_m=0.25)
    site.patch(path, along - 5, across - 5, along + 5, across + 5, ellipse=True)
    site.patch("bed", along - 2.2, across - 2.2, along + 2.2, across + 2.2, ellipse=True, rough_m=0.3)
    pond_s, pond_t = w * site.between(0.2, 0.3), across + (d - across) * 0.5
    half_s, half_t = w * 0.13, d * 0.11
    site.patch("water", pond_s - half_s, pond_t - half_t, pond_s + half_s, pond_t + half_t, ellipse=True, rough_m=2.0)
    if site.chance(0.6):
        site.patch("court", w * 0.72, 4.0, w * 0.72 + min(10.0, w * 0.22), 4.0 + min(18.0, across - 6.0))
    else:
        site.patch("sand", w * 0.72, 5.0, w * 0.72 + 9.0, 12.0, ellipse=True, rough_m=0.6)
    if site.chance(0.8):
        roof = site.roof(
            w * 0.78,
            d * 0.84,
            site.between(7, 12),
            site.between(6, 8),
            eave_m=3.0,
            shape="hip",
            material=draw_material(site),
            tone=draw_tone(site),
            slope=0.5,
        )
        furnish_pitched_roof(site, roof)
    _parking(site, w * 0.05, 0.5, w * 0.05 + 15.0, 5.5, filled=0.6)
    for _ in range(int(w * d / 300)):
        site.clump(site.between(3, w - 3), site.between(7, d - 3), 4.5, int(site.rng.integers(1, 5)))


def _yard(site: Site) -> None:
    """A construction site on bare soil, or a works yard."""
    w, d = site.width_m, site.depth_m
    site.patch("meadow", 0, 0, w, d)
    site.patch("soil", 1.0, 1.0, w - 1.0, d - 1.0, rough_m=1.6)
    split = w * site.between(0.4, 0.55)
    site.patch("site", 2.0, 2.0, split, d - 3.0, rough_m=1.2)
    site.patch("concrete", split + 2.0, 6.0, split + 2.0 + (w - split) * 0.6, d * 0.55)
    site.patch("gravel", 1.0, 0.0, w * 0.9, 5.0, rough_m=0.5)
    for _ in range(int(site.rng.integers(3, 7))):
        _container(site, site.between(5, split - 3), site.between(7, d - 5))
    for _ in range(int(site.rng.integers(5, 10))):
        s, t, r = site.between(3, split), site.between(3, d - 4), site.between(1.2, 3.4)
        site.patch("rubbish", s - r, t - r, s + r, t + r, ellipse=True, rough_m=0.9)
    roof = site.roof(
        split + (w - split) * 0.5,
        d * 0.74,
        (w - split) * 0.7,
        min(16.0, d * 0.32),
        eave_m=site.between(5.0, 8.0),
        shape="shed" if site.chance(0.3) else "gable",
        material="metal" if site.chance(0.6) else draw_material(site),
        tone=draw_tone(site),
        slope=0.22,
    )
    furnish_flat_roof(site, roof, vents=2)
    for _ in range(int(site.rng.integers(3, 7))):
        site.car(site.between(split + 3, w - 4), site.between(2.0, d * 0.5), along="t", van=site.chance(0.4))
    for _ in range(8):
        site.tree(site.between(0, w), d - site.between(0.0, 2.0), site.between(1.2, 3.0))


def _allotments(site: Site) -> None:
    """Many small gardens, each with a hut, beds and fruit trees."""
    w, d = site.width_m, site.depth_m
    site.patch("meadow", 0, 0, w, d)
    columns, rows = max(2, round(w / 14.0)), max(2, round(d / 13.0))
    for column in range(columns):
        for row in range(rows):
            s, t = (column + 0.5) * w / columns, (row + 0.5) * d / rows
            half_w, half_d = w / columns / 2, d / rows / 2
            site.patch("lawn", s - half_w, t - half_d, s + half_w, t + half_d)
            _shed(site, s + site.between(-3, 3), t + site.between(1, 3), big=True)
            for _ in range(int(site.rng.integers(1, 4))):
                x, y = s + site.between(-4.5, 2.5), t - site.between(1.5, 4.5)
                site.patch("bed", x, y, x + site.between(1.5, 4.0), y + site.between(1.0, 2.4), rough_m=0.3)
            for _ in range(int(site.rng.integers(0, 3))):
                site.tree(s + site.between(-5, 5), t + site.between(-4, 4), site.between(1.2, 2.4))
            if site.chance(0.15):
                site.patch("pool", s - 3.5, t - 1.6, s - 0.8, t + 1.1, ellipse=True)
        if column:
            site.patch("gravel", column * w / columns - 0.9, 0, column * w / columns + 0.9, d, rough_m=0.3)
    _parking(site, 2.0, 0.0, 14.0, 5.0, filled=0.6)


def _court(site: Site) -> None:
    """Old town: houses wall to wall around a court."""
    w, d = site.width_m, site.depth_m
    site.patch("paving" if site.chance(0.5) else "red_paving", 0, 0, w, d)
    depth = min(site.between(9.5, 12.0), d / 2 - 5.0)
    site.patch("lawn", depth + 3, depth + 3, w - depth - 3, d - depth - 3, rough_m=0.5)
    for side in (site, site.cut(0, 0, w, d, front="back")):
        s = 0.5
        while s < w - 6.0:
            length = min(site.between(9.0, 17.0), w - 0.5 - s)
            length = length if w - 0.5 - s - length > 7.0 else w - 0.5 - s
            _town_house(side, s + length / 2, 0.5 + depth / 2, length + _LAP_M, depth, "s")
            s += length
    for s in (0.5 + depth / 2, w - 0.5 - depth / 2):
        t = 0.5 + depth
        while t < d - depth - 4.0:
            length = min(site.between(8.0, 14.0), d - 0.5 - depth - t)
            if site.chance(0.85):
                _town_house(site, s, t + length / 2, depth, length + _LAP_M, "t")
            t += length
    for _ in range(int((w - 2 * depth) * (d - 2 * depth) / 110)):
        s, t = site.between(depth + 3, w - depth - 3), site.between(depth + 3, d - depth - 3)
        if site.chance(0.3):
            _shed(site, s, t, big=True)
        site.tree(s, t, site.between(1.8, 4.2))
    for _ in range(4):
        site.car(site.between(depth + 3, w - depth - 3), depth + 2.4 + site.between(0, 0.6))


def _town_house(site: Site, s: float, t: float, size_s: float, size_t: float, ridge: str) -> None:
    if site.chance(0.18):
        roof = site.roof(
            s,
            t,
            size_s,
            size_t,
            eave_m=site.between(8.0, 12.0),
            shape="flat",
            material=draw_material(site, flat=True),
            tone=draw_tone(site),
        )
        furnish_flat_roof(site, roof)
        return
    roof = site.roof(
        s,
        t,
        size_s,
        size_t,
        eave_m=site.between(7.5, 10.5),
        shape="gable",
        material=draw_material(site),
        tone=draw_tone(site),
        slope=site.between(0.6, 0.9),
        ridge="s" if ridge == "s" else "t",
    )
    furnish_pitched_roof(site, roof)


def _parking(site: Site, s0: float, t0: float, s1: float, t1: float, *, filled: float) -> None:
    site.patch("asphalt", s0, t0, s1, t1, bay_m=2.5)
    for number in range(int((s1 - s0) / 2.5)):
        if site.chance(filled):
            site.car(s0 + 2.5 * (number + 0.5), (t0 + t1) / 2 + site.between(-0.3, 0.3), along="t")


def _shed(site: Site, s: float, t: float, *, big: bool = False) -> None:
    size = site.between(3.0, 4.6) if big else site.between(2.2, 3.0)
    x, y = site.to_ground(s, t)
    if not site.inventory.roofed(x, y, 2.5):
        site.roof(
            s,
            t,
            size,
            size * site.between(0.7, 0.95),
            eave_m=2.2,
            shape="gable" if site.chance(0.6) else "flat",
            material=draw_material(site, flat=site.chance(0.4)),
            tone=draw_tone(site),
            slope=0.4,
        )


def _container(site: Site, s: float, t: float) -> None:
    color = _CONTAINER_COLORS[int(site.rng.integers(len(_CONTAINER_COLORS)))]
    turn = 0.0 if site.chance(0.6) else site.between(-0.6, 0.6)
    site.box(s, t, site.between(5.5, 6.4), 2.45, 2.5, color, TownClass.CLUTTER, turn_rad=turn, ribs=True)


def _set_bins(site: Site) -> None:
    """Set out bins and skips: some clutter for every block."""
    for _ in range(int(site.rng.integers(2, 5))):
        s, t = site.between(2.0, site.width_m - 4.0), site.between(0.2, 0.8)
        for number in range(int(site.rng.integers(2, 5))):
            color = _BIN_COLORS[int(site.rng.integers(len(_BIN_COLORS)))]
            site.box(s + 1.3 * number, t, 1.1, 1.2, 1.2, color, TownClass.CLUTTER)
    if site.chance(0.35):
        s, t = site.between(4, site.width_m - 4), 1.6
        site.box(s, t, 3.6, 1.9, 0.9, (0.55, 0.42, 0.22), TownClass.CLUTTER, texture=0.3)


_FILLERS: dict[str, tuple[float, Callable[[Site], None]]] = {
    "detached": (0.40, _detached),
    "row houses": (0.14, _row_houses),
    "apartments": (0.13, _apartments),
    "shops": (0.09, _shops),
    "park": (0.06, _park),
    "yard": (0.05, _yard),
    "allotments": (0.04, _allotments),
    "court": (0.11, _court),
}
"""Share of the blocks and the function that fills one, by use."""
