"""Houses and what belongs to them: roof materials, chimneys, dormers, solar panels, garages, gardens."""

from __future__ import annotations

from ctrs.synthetic.inventory import PatchKind, Rgb, Roof, RoofMaterial, RoofShape, TownClass
from ctrs.synthetic.site import Site

_PITCHED: tuple[tuple[RoofMaterial, float], ...] = (("red", 0.34), ("orange", 0.18), ("brown", 0.2), ("slate", 0.28))
_FLAT: tuple[tuple[RoofMaterial, float], ...] = (
    ("gravel", 0.34), ("bitumen", 0.26), ("white", 0.18), ("metal", 0.12), ("green", 0.10),
)  # fmt: skip


def draw_material(site: Site, *, flat: bool = False) -> RoofMaterial:
    """Draw what a roof is covered with."""
    choices = _FLAT if flat else _PITCHED
    return choices[int(site.rng.choice(len(choices), p=[share for _, share in choices]))][0]


def draw_tone(site: Site, near: Rgb | None = None) -> Rgb:
    """Draw factors on a material's colour; ``near`` a neighbour's they differ little."""
    r, g, b = near or (1.0, 1.0, 1.0)
    spread = 0.09 if near is None else 0.03
    level = 1.0 + float(site.rng.normal(0.0, spread))
    tint = site.rng.normal(0.0, spread / 5, 3)
    return r * level * (1 + float(tint[0])), g * level * (1 + float(tint[1])), b * level * (1 + float(tint[2]))


def furnish_pitched_roof(site: Site, roof: Roof) -> None:
    """Add chimneys, dormers, roof windows and solar panels."""
    brick: Rgb = (0.50, 0.33, 0.28) if site.chance(0.6) else (0.56, 0.55, 0.53)
    reach = roof.length_m / 2 - (roof.width_m / 2 if roof.shape == "hip" else 1.2)
    for _ in range(int(site.rng.integers(1, 3))):
        a = site.between(-max(reach, 0.3), max(reach, 0.3))
        site.on_roof(roof, a, site.between(0.3, 1.0) * site.rng.choice([-1, 1]), 0.7, 0.6, 1.0, brick)
    side = float(site.rng.choice([-1.0, 1.0]))
    if site.chance(0.35) and roof.width_m > 7.5 and reach > 2.0:
        cover: Rgb = (0.42, 0.43, 0.45) if site.chance(0.6) else (0.58, 0.33, 0.26)
        for a in (-reach * 0.55, reach * 0.55):
            site.on_roof(roof, a, side * roof.width_m * 0.27, 1.9, roof.width_m * 0.24, 0.9, cover)
    if site.chance(0.4):
        for a in (-reach * 0.5, 0.0, reach * 0.5):
            if site.chance(0.6):
                site.on_roof(roof, a, -side * roof.width_m * 0.26, 0.8, 1.1, 0.05, (0.30, 0.36, 0.43))
    if site.chance(0.13) and reach > 2.0:
        length = min(reach * 1.5, 7.0)
        site.on_roof(roof, 0.0, -side * roof.width_m * 0.25, length, roof.width_m * 0.28, 0.1, (0.13, 0.16, 0.25))


def furnish_flat_roof(site: Site, roof: Roof, vents: int | None = None) -> None:
    """Add vents, air conditioners, skylights and plant rooms."""
    half_a, half_b = roof.length_m / 2 - 1.2, roof.width_m / 2 - 1.2
    if half_a < 1 or half_b < 1:
        return
    count = max(1, int(roof.length_m * roof.width_m / 60)) if vents is None else vents
    for _ in range(count):
        size = site.between(0.5, 1.3)
        grey = site.between(0.35, 0.8)
        site.on_roof(
            roof, site.between(-half_a, half_a), site.between(-half_b, half_b), size, size, 0.9, (grey, grey, grey)
        )
    if roof.shape != "flat":
        return
    if site.chance(0.4) and half_a > 5:
        for a in (-half_a * 0.6, 0.0, half_a * 0.6):
            site.on_roof(roof, a, 0.0, 1.4, half_b, 0.4, (0.72, 0.76, 0.78))
    if site.chance(0.5) and half_b > 3.5:
        grey = site.between(0.45, 0.66)
        a = site.between(-half_a * 0.6, half_a * 0.6)
        site.on_roof(roof, a, half_b * 0.3, 3.4, 2.8, 2.4, (grey, grey, grey * 0.98))
    if site.chance(0.15):
        for number in range(int(half_b * 2 / 2.4)):
            site.on_roof(roof, 0.0, -half_b + 1.0 + 2.4 * number, half_a * 1.2, 1.3, 0.3, (0.13, 0.16, 0.25))


def build_detached_plot(plot: Site) -> None:
    """Build a house with drive, garage and garden."""
    w, d = plot.width_m, plot.depth_m
    if w < 9.0 or d < 14.0:
        plot.tree(w / 2, d / 2, 3.0)
        return
    setback = plot.between(3.5, min(7.5, d * 0.25))
    drive_left = plot.chance(0.5)
    drive_s = 2.3 if drive_left else w - 2.3
    room = w - 4.6 - 1.8
    length = min(plot.between(9.0, 13.0), room)
    depth = min(plot.between(8.0, 10.5), d - setback - 5.0)
    s = (4.6 if drive_left else 1.8) + length / 2 + plot.between(0.0, room - length)
    t = setback + depth / 2
    covers: tuple[PatchKind, ...] = ("paving", "red_paving", "concrete", "gravel", "asphalt")
    ground = covers[int(plot.rng.integers(len(covers)))]
    if plot.chance(0.2):
        plot.patch(ground, 0.3, 0.0, w - 0.3, setback - 0.3)
    drive_end = setback + plot.between(4.0, 7.0)
    plot.patch(ground, drive_s - 1.6, 0.0, drive_s + 1.6, drive_end)
    plot.patch(ground, s - 0.7, 0.0, s + 0.7, setback + 0.3)
    terrace, back = ground if plot.chance(0.4) else "paving", setback + depth
    plot.patch(terrace, s - length * 0.4, back, s + length * 0.3, back + plot.between(2.0, 4.0))
    _house(plot, s, t, length, depth)
    if plot.chance(0.75):
        carport = plot.chance(0.7)
        plot.roof(
            drive_s,
            drive_end + 3.0,
            3.3,
            6.2,
            eave_m=2.6,
            shape="flat" if carport else "gable",
            material=draw_material(plot, flat=carport),
            tone=draw_tone(plot),
            slope=0.5,
            ridge="t",
        )
    if plot.chance(0.6):
        plot.car(drive_s, plot.between(2.6, max(2.8, drive_end - 2.4)), along="t", van=plot.chance(0.06))
    _garden(plot, back)


def _house(plot: Site, s: float, t: float, length: float, depth: float) -> None:
    shapes: tuple[RoofShape, ...] = ("gable", "half_hip", "hip", "flat", "shed")
    shape = shapes[int(plot.rng.choice(5, p=[0.42, 0.12, 0.28, 0.12, 0.06]))]
    material, tone = draw_material(plot, flat=shape == "flat"), draw_tone(plot)
    eave, slope = plot.between(3.0, 5.8), plot.between(0.5, 0.95)
    slope = 0.25 if shape == "shed" else slope
    ridge_along = plot.chance(0.65)
    main = plot.roof(
        s,
        t,
        length,
        depth,
        eave_m=eave,
        shape=shape,
        material=material,
        tone=tone,
        slope=slope,
        ridge="s" if ridge_along else "t",
    )
    if shape == "flat":
        furnish_flat_roof(plot, main)
        if plot.chance(0.5):  # a second, higher storey on part of it
            plot.roof(
                s - length * 0.18,
                t,
                length * 0.6,
                depth * 0.8,
                eave_m=eave + 2.8,
                shape="flat",
                material=material,
                tone=draw_tone(plot, tone),
                anchor=(s, t),
            )
        return
    furnish_pitched_roof(plot, main)
    if plot.chance(0.4) and shape != "shed":  # an L or T: a wing across the ridge towards the garden
        wing, out = length * plot.between(0.4, 0.55), plot.between(2.5, 4.5)
        offset = plot.between(-1.0, 1.0) * (length - wing) / 2
        offset = offset if plot.chance(0.4) else (length - wing) / 2 * float(plot.rng.choice([-1, 1]))
        plot.roof(
            s + offset,
            t + out / 2 + 0.2,
            wing,
            depth + out - 0.4,
            eave_m=eave,
            shape="gable" if shape == "half_hip" else shape,
            material=material,
            tone=tone,
            slope=slope,
            ridge="t",
            anchor=(s, t),
        )


def _garden(plot: Site, back: float) -> None:
    w, d = plot.width_m, plot.depth_m
    depth = d - back
    if depth < 4.0:
        return
    if plot.chance(0.35):
        plot.patch("meadow", 0.2, back + 3.0, w - 0.2, d - 0.2, rough_m=0.5)
    for _ in range(int(plot.rng.integers(0, 3))):
        s, t = plot.between(1, w - 4), plot.between(back + 3, max(back + 3.1, d - 3))
        plot.patch("bed", s, t, s + plot.between(1.5, 4.5), min(d - 0.5, t + plot.between(1.2, 3.0)), rough_m=0.4)
    if depth > 9 and plot.chance(0.13):
        s, t = plot.between(2, w - 8), back + 5.0
        plot.patch("paving", s - 0.9, t - 0.9, s + 6.5, min(d - 0.5, t + 4.2))
        plot.patch("pool", s, t, s + 5.6, min(d - 1.2, t + 3.2), ellipse=plot.chance(0.4))
    if plot.chance(0.3):
        s, t = plot.between(2, w - 2), d - plot.between(1.8, 2.6)
        if not plot.inventory.roofed(*plot.to_ground(s, t), 2.0):
            plot.roof(
                s,
                t,
                plot.between(2.2, 3.2),
                plot.between(1.9, 2.6),
                eave_m=2.1,
                shape="gable" if plot.chance(0.5) else "flat",
                material=draw_material(plot, flat=plot.chance(0.5)),
                tone=draw_tone(plot),
                slope=0.4,
            )
    if plot.chance(0.16):  # a trampoline
        s, t = plot.between(2.5, w - 2.5), plot.between(back + 3.5, max(back + 3.6, d - 2.5))
        plot.patch("rubbish" if plot.chance(0.5) else "pool", s - 1.6, t - 1.6, s + 1.6, t + 1.6, ellipse=True)
    if plot.chance(0.55):
        plot.hedge(0.4, d - 0.5, w - 0.4, d - 0.5)
    if plot.chance(0.45):
        plot.hedge(w - 0.4, 1.0, w - 0.4, d - 1.0)
    if plot.chance(0.25):
        plot.hedge(0.5, 0.5, w * 0.4, 0.5)
    for _ in range(int(plot.rng.integers(2, 7))):
        plot.tree(plot.between(1, w - 1), plot.between(back + 2, d - 0.5), plot.between(1.4, 4.2))
    for _ in range(int(plot.rng.integers(0, 5))):
        s, t = plot.between(0.8, w - 0.8), plot.between(0.8, d - 0.8)
        plot.tree(s, t, plot.between(0.5, 1.0), kind="shrub", clear_m=0.6)
    if plot.chance(0.4):
        plot.tree(plot.between(1, w - 1), plot.between(1.0, 2.5), plot.between(1.2, 2.4))
    if plot.chance(0.1):
        plot.box(plot.between(2, w - 2), d - 1.5, 1.6, 1.2, 0.7, (0.45, 0.36, 0.27), TownClass.CLUTTER, texture=0.3)
