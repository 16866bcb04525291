"""A site: a rectangle of ground with a street front, on which things are placed from its front left corner."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from ctrs.synthetic.inventory import (
    Box,
    Car,
    Inventory,
    Patch,
    PatchKind,
    Rgb,
    Roof,
    RoofMaterial,
    RoofShape,
    TownClass,
    Tree,
    TreeKind,
)
from ctrs.synthetic.streets import Block, TownPlan

Front = Literal["top", "bottom", "left", "right"]

_CAR_COLORS: tuple[tuple[Rgb, float], ...] = (
    ((0.87, 0.88, 0.89), 0.20), ((0.71, 0.72, 0.74), 0.20), ((0.45, 0.46, 0.48), 0.16), ((0.14, 0.14, 0.16), 0.20),
    ((0.20, 0.28, 0.48), 0.06), ((0.15, 0.20, 0.33), 0.05), ((0.58, 0.15, 0.14), 0.06), ((0.22, 0.31, 0.26), 0.02),
    ((0.62, 0.57, 0.46), 0.03), ((0.80, 0.64, 0.18), 0.02),
)  # fmt: skip


class Site:
    """Places things on a block or plot; s runs along the street front, t away from the street.

    Every place is given in (s, t); the plan bends it onto the ground. Roofs, boxes and cars keep their right angles.
    """

    def __init__(
        self,
        plan: TownPlan,
        inventory: Inventory,
        rng: np.random.Generator,
        rect: tuple[float, float, float, float],
        front: Front,
    ) -> None:
        self.plan = plan
        self.inventory = inventory
        self.rng = rng
        self.rect = rect
        self.front = front
        u0, v0, u1, v1 = rect
        along_u = front in ("top", "bottom")
        self.width_m, self.depth_m = (u1 - u0, v1 - v0) if along_u else (v1 - v0, u1 - u0)

    @classmethod
    def of_block(
        cls, plan: TownPlan, inventory: Inventory, rng: np.random.Generator, block: Block, front: Front
    ) -> Site:
        """Return a whole block as a site."""
        return cls(plan, inventory, rng, (block.u0, block.v0, block.u1, block.v1), front)

    def cut(self, s0: float, t0: float, s1: float, t1: float, front: Literal["same", "back"] = "same") -> Site:
        """Return a part of this site as a site of its own; a ``back`` front looks the other way."""
        corners = [self.to_plan(s0, t0), self.to_plan(s1, t1)]
        us, vs = sorted(c[0] for c in corners), sorted(c[1] for c in corners)
        turned: dict[Front, Front] = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}
        new_front = self.front if front == "same" else turned[self.front]
        return Site(self.plan, self.inventory, self.rng, (us[0], vs[0], us[1], vs[1]), new_front)

    def chance(self, probability: float) -> bool:
        """Draw yes or no."""
        return bool(self.rng.random() < probability)

    def between(self, low: float, high: float) -> float:
        """Draw a number."""
        return float(self.rng.uniform(low, high))

    def to_plan(self, s: float, t: float) -> tuple[float, float]:
        """Return the plan point (u, v) of a site point."""
        u0, v0, u1, v1 = self.rect
        match self.front:
            case "top":
                return u0 + s, v0 + t
            case "bottom":
                return u1 - s, v1 - t
            case "left":
                return u0 + t, v1 - s
            case "right":
                return u1 - t, v0 + s

    def to_ground(self, s: float, t: float) -> tuple[float, float]:
        """Return the ground point (x, y) of a site point."""
        return self.plan.to_ground(*self.to_plan(s, t))

    def angle_rad(self, s: float, t: float) -> float:
        """Return the ground direction of growing s."""
        u, v = self.to_plan(s, t)
        match self.front:
            case "top":
                return self.plan.direction_rad(u, v, "u")
            case "bottom":
                return self.plan.direction_rad(u, v, "u") + math.pi
            case "left":
                return self.plan.direction_rad(u, v, "v") + math.pi
            case "right":
                return self.plan.direction_rad(u, v, "v")

    def patch(
        self,
        kind: PatchKind,
        s0: float,
        t0: float,
        s1: float,
        t1: float,
        *,
        ellipse: bool = False,
        rough_m: float = 0.0,
        bay_m: float = 0.0,
    ) -> None:
        """Cover ground; with ``bay_m`` parking bays are marked along s."""
        (ua, va), (ub, vb) = self.to_plan(s0, t0), self.to_plan(s1, t1)
        along_u = self.front in ("top", "bottom")
        self.inventory.patches.append(
            Patch(
                kind=kind,
                u0=min(ua, ub),
                v0=min(va, vb),
                u1=max(ua, ub),
                v1=max(va, vb),
                tone=self.between(0.92, 1.08),
                ellipse=ellipse,
                rough_m=rough_m,
                bay_m=bay_m if along_u else -bay_m,
            )
        )

    def roof(
        self,
        s: float,
        t: float,
        size_s_m: float,
        size_t_m: float,
        *,
        eave_m: float,
        shape: RoofShape,
        material: RoofMaterial,
        tone: Rgb,
        slope: float = 0.0,
        ridge: Literal["s", "t"] = "s",
        anchor: tuple[float, float] | None = None,
    ) -> Roof:
        """Build a roof centred at (s, t); ``anchor``: the house centre whose direction all its parts share."""
        anchor = (s, t) if anchor is None else anchor
        angle = self.angle_rad(*anchor)
        x, y = self.to_ground(*anchor)
        ds, dt = s - anchor[0], t - anchor[1]
        x, y = x + ds * math.cos(angle) - dt * math.sin(angle), y + ds * math.sin(angle) + dt * math.cos(angle)
        along_s = ridge == "s"
        roof = Roof(
            x=x,
            y=y,
            angle_rad=angle if along_s else angle + math.pi / 2,
            length_m=size_s_m if along_s else size_t_m,
            width_m=size_t_m if along_s else size_s_m,
            eave_m=eave_m,
            slope=slope,
            shape=shape,
            material=material,
            tone=tone,
        )
        self.inventory.roofs.append(roof)
        return roof

    def on_roof(
        self, roof: Roof, a: float, b: float, length_m: float, width_m: float, height_m: float, color: Rgb
    ) -> None:
        """Set a box on a roof at (a along, b across) its ridge."""
        cos, sin = math.cos(roof.angle_rad), math.sin(roof.angle_rad)
        self.inventory.roof_boxes.append(
            Box(
                x=roof.x + a * cos - b * sin,
                y=roof.y + a * sin + b * cos,
                angle_rad=roof.angle_rad,
                length_m=length_m,
                width_m=width_m,
                height_m=height_m,
                color=color,
                label=None,
            )
        )

    def box(
        self,
        s: float,
        t: float,
        size_s_m: float,
        size_t_m: float,
        height_m: float,
        color: Rgb,
        label: TownClass,
        *,
        turn_rad: float = 0.0,
        texture: float = 0.03,
        ribs: bool = False,
    ) -> None:
        """Set a box on the ground."""
        x, y = self.to_ground(s, t)
        self.inventory.ground_boxes.append(
            Box(
                x=x,
                y=y,
                angle_rad=self.angle_rad(s, t) + turn_rad,
                length_m=size_s_m,
                width_m=size_t_m,
                height_m=height_m,
                color=color,
                label=label,
                texture=texture,
                ribs=ribs,
            )
        )

    def hedge(self, s0: float, t0: float, s1: float, t1: float) -> None:
        """Grow a hedge from one point to another along s or t."""
        green = self.between(0.9, 1.1)
        self.box(
            (s0 + s1) / 2,
            (t0 + t1) / 2,
            max(abs(s1 - s0), 0.9),
            max(abs(t1 - t0), 0.9),
            self.between(1.2, 2.0),
            (0.25 * green, 0.34 * green, 0.19 * green),
            TownClass.TREE,
            texture=0.22,
        )

    def tree(
        self, s: float, t: float, radius_m: float, *, kind: TreeKind | None = None, clear_m: float | None = None
    ) -> None:
        """Grow a tree, unless a roof stands there (within ``clear_m``, by default half the crown)."""
        x, y = self.to_ground(s, t)
        if self.inventory.roofed(x, y, 0.5 * radius_m if clear_m is None else clear_m):
            return
        plant_tree(self.inventory, self.rng, x, y, radius_m, kind)

    def clump(self, s: float, t: float, spread_m: float, count: int) -> None:
        """Grow a group of trees."""
        for _ in range(count):
            ds, dt = self.rng.normal(0.0, spread_m, 2)
            self.tree(s + float(ds), t + float(dt), self.between(2.0, 4.4))

    def car(self, s: float, t: float, *, along: Literal["s", "t"] = "s", van: bool = False) -> None:
        """Park a car, its front either way, unless another stands there."""
        x, y = self.to_ground(s, t)
        if any(math.hypot(car.x - x, car.y - y) < 2.2 for car in self.inventory.cars):
            return
        angle = self.angle_rad(s, t) + (0.0 if along == "s" else math.pi / 2)
        park_car(self.inventory, self.rng, x, y, angle, van=van)


def plant_tree(
    inventory: Inventory, rng: np.random.Generator, x: float, y: float, radius_m: float, kind: TreeKind | None = None
) -> None:
    """Add a tree at a ground point; without ``kind`` most are broadleaved."""
    if kind is None:
        draw = rng.random()
        kind = "broadleaf" if draw < 0.78 else "conifer" if draw < 0.93 else "autumn"
    inventory.trees.append(
        Tree(
            x=x,
            y=y,
            radius_m=radius_m * (0.75 if kind == "conifer" else 1.0),
            height_m=(1.7 if kind == "shrub" else float(rng.uniform(1.5, 2.3)) * radius_m + 1.0),
            kind=kind,
            tone=float(rng.uniform(0.84, 1.18)),
            phase=float(rng.uniform(0.0, 2.0 * math.pi)),
        )
    )


def park_car(
    inventory: Inventory, rng: np.random.Generator, x: float, y: float, angle_rad: float, *, van: bool = False
) -> None:
    """Add a car at a ground point, slightly askew, its front either way."""
    drawn = int(rng.choice(len(_CAR_COLORS), p=[share for _, share in _CAR_COLORS]))
    color = (0.85, 0.85, 0.84) if van else _CAR_COLORS[drawn][0]
    inventory.cars.append(
        Car(
            x=x,
            y=y,
            angle_rad=angle_rad + float(rng.normal(0.0, 0.025)) + (math.pi if rng.random() < 0.5 else 0.0),
            length_m=float(rng.uniform(5.2, 6.4) if van else rng.uniform(3.8, 4.8)),
            width_m=float(rng.uniform(1.95, 2.1) if van else rng.uniform(1.7, 1.9)),
            color=color,
        )
    )
