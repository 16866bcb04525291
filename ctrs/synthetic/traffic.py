"""Lines the streets: parked cars along side streets, moving cars and avenue trees along main roads."""

from __future__ import annotations

import math

import numpy as np

from ctrs.synthetic.inventory import Inventory
from ctrs.synthetic.site import park_car, plant_tree
from ctrs.synthetic.streets import MAIN_HALF_WIDTH_M, Quarter, Street, TownPlan


def line_streets(plan: TownPlan, quarter: Quarter, inventory: Inventory) -> None:
    """Park cars along the side streets; lets cars drive and trees stand along the left and top main roads."""
    rng = plan.rng("streets", quarter.row, quarter.column)
    for street in quarter.side_streets:
        for side in (-1.0, 1.0):
            filled = rng.uniform(0.15, 0.7)
            for at in np.arange(street.start_m + 13.0, street.end_m - 13.0, 6.2):
                place = _beside(street, float(at), side * (street.half_width_m - 1.1))
                if rng.random() < filled and not _near_crossing(quarter, street, *place):
                    _car_on(plan, inventory, rng, street, place)
    left = Street(
        axis="v", at_m=quarter.u0, start_m=quarter.v0, end_m=quarter.v1, half_width_m=MAIN_HALF_WIDTH_M, main=True
    )
    top = Street(
        axis="u", at_m=quarter.v0, start_m=quarter.u0, end_m=quarter.u1, half_width_m=MAIN_HALF_WIDTH_M, main=True
    )
    for street in (left, top):
        for side in (-1.0, 1.0):
            at = street.start_m + rng.uniform(8.0, 30.0)
            while at < street.end_m - 8.0:
                _car_on(plan, inventory, rng, street, _beside(street, float(at), side * 2.3), van=rng.random() < 0.15)
                at += rng.uniform(9.0, 55.0)
            if rng.random() < 0.7:
                for at in np.arange(street.start_m + 14.0, street.end_m - 12.0, float(rng.uniform(8.5, 13.0))):
                    place = _beside(street, float(at), side * (street.half_width_m + 1.3))
                    x, y = plan.to_ground(*place)
                    clear = not _near_crossing(quarter, street, *place) and not inventory.roofed(x, y, 1.2)
                    if rng.random() < 0.85 and clear:
                        plant_tree(inventory, rng, x, y, float(rng.uniform(1.9, 3.6)), "broadleaf")


def _beside(street: Street, at_m: float, offset_m: float) -> tuple[float, float]:
    return (at_m, street.at_m + offset_m) if street.axis == "u" else (street.at_m + offset_m, at_m)


def _near_crossing(quarter: Quarter, street: Street, u: float, v: float, margin_m: float = 7.0) -> bool:
    for other in quarter.side_streets:
        if other is street:
            continue
        across, along = (v, u) if other.axis == "u" else (u, v)
        if (
            abs(across - other.at_m) < other.half_width_m + margin_m
            and other.start_m - margin_m < along < other.end_m + margin_m
        ):
            return True
    return False


def _car_on(
    plan: TownPlan,
    inventory: Inventory,
    rng: np.random.Generator,
    street: Street,
    place: tuple[float, float],
    *,
    van: bool = False,
) -> None:
    x, y = plan.to_ground(*place)
    park_car(inventory, rng, x, y, plan.direction_rad(*place, street.axis) % math.tau, van=van)
