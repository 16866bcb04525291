from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from ctrs.synthetic.buildings import paint_boxes, paint_roofs
from ctrs.synthetic.canvas import Canvas, value_noise, white_noise
from ctrs.synthetic.inventory import Box, Roof, TownClass
from ctrs.synthetic.scene import Town, render_scene
from ctrs.synthetic.streets import MAIN_HALF_WIDTH_M, PAVEMENT_M, TownPlan

SIZE = 300


@pytest.mark.parametrize("direction", ["east", "south"])
def test_neighbouring_scenes_continue_one_town(direction: str) -> None:
    """Rendered apart, two neighbours equal one window over both, so what crosses the seam goes on."""
    dc, dr = (1, 0) if direction == "east" else (0, 1)
    col, row = 10 * SIZE, 2 * SIZE
    both_image, both_label = Town(1).render(col, row, SIZE * (1 + dc), SIZE * (1 + dr), 0.2)
    for number in (0, 1):
        image, label = Town(1).render(col + number * dc * SIZE, row + number * dr * SIZE, SIZE, SIZE, 0.2)
        part = (
            slice(number * dr * SIZE, number * dr * SIZE + SIZE),
            slice(number * dc * SIZE, number * dc * SIZE + SIZE),
        )
        np.testing.assert_array_equal(label, both_label[part])
        np.testing.assert_allclose(image, both_image[part], atol=2e-3)


def test_labels_agree_across_the_seam_as_within_a_scene() -> None:
    town = Town(2)
    left, right = (render_scene(town, 3, column, 500, 0.2)[1] for column in (10, 11))
    across = (left[:, -1] == right[:, 0]).mean()
    within = (left[:, 1:] == left[:, :-1]).mean()
    assert across > 0.93
    assert abs(across - within) < 0.05


def test_pieces_of_a_big_scene_join(monkeypatch: pytest.MonkeyPatch) -> None:
    whole_image, whole_label = Town(1).render(900, 700, 260, 200, 0.2)
    monkeypatch.setattr("ctrs.synthetic.scene._PIECE_PX", 97)
    image, label = Town(1).render(900, 700, 260, 200, 0.2)
    np.testing.assert_array_equal(label, whole_label)
    np.testing.assert_allclose(image, whole_image, atol=2e-3)


def test_scenes_differ_in_exposure_but_not_wildly() -> None:
    town = Town(0)
    images = [render_scene(town, 2, column, 200, 0.4)[0] for column in (10, 11, 12, 13)]
    means = np.array([image.mean(axis=(0, 1)) for image in images])
    assert means.min() > 50
    assert means.max() < 190
    assert all((image == 255).mean() < 0.02 for image in images)


def test_colour_alone_does_not_give_the_buildings_away() -> None:
    """Grey roofs look like roads and red roofs like courts: the best colour table leaves much undecided."""
    town = Town(0)
    (train_image, train_label), (test_image, test_label) = (
        render_scene(town, 2, column, 500, 0.4) for column in (10, 13)
    )

    def cells(image: np.ndarray) -> np.ndarray:
        smooth = np.stack([ndimage.uniform_filter(image[..., band], 3) for band in range(3)], axis=-1) // 16
        return smooth.astype(int) @ np.array([256, 16, 1])

    building = np.bincount(cells(train_image).ravel(), weights=(train_label == 1).ravel(), minlength=4096)
    total = np.bincount(cells(train_image).ravel(), minlength=4096)
    predicted = (building > 0.5 * total)[cells(test_image)]
    truth = test_label == TownClass.BUILDING
    iou = (predicted & truth).sum() / (predicted | truth).sum()
    assert 0.1 < iou < 0.65


def test_plan_coordinates_invert() -> None:
    plan = TownPlan(11)
    for u, v in ((0.0, 0.0), (2310.5, 470.25), (-80.0, 1500.0)):
        x, y = plan.to_ground(u, v)
        back = plan.to_plan(np.array([x]), np.array([y]))
        assert (float(back[0][0]), float(back[1][0])) == pytest.approx((u, v), abs=1e-3)


def test_blocks_lie_between_streets_and_fill_the_quarter() -> None:
    plan = TownPlan(5)
    quarter = plan.quarter(3, 12)
    assert len(quarter.blocks) == len(quarter.side_streets) + 1
    for block in quarter.blocks:
        assert block.u0 >= quarter.u0 + MAIN_HALF_WIDTH_M + PAVEMENT_M - 1e-9
        assert block.v1 <= quarter.v1 - MAIN_HALF_WIDTH_M - PAVEMENT_M + 1e-9
        assert 25.0 < block.u1 - block.u0 < 102.0
        assert 25.0 < block.v1 - block.v0 < 102.0
        for street in quarter.side_streets:
            low, high = (block.v0, block.v1) if street.axis == "u" else (block.u0, block.u1)
            start, end = (block.u0, block.u1) if street.axis == "u" else (block.v0, block.v1)
            if start < street.end_m and end > street.start_m:
                gap = max(low - street.at_m, street.at_m - high)
                assert gap >= street.half_width_m + PAVEMENT_M - 1e-9


def empty_canvas(plan: TownPlan) -> Canvas:
    return Canvas(plan, 0, 0, 300, 300, 0.2)


def test_shadow_has_the_length_and_direction_of_the_sun() -> None:
    plan = TownPlan(0)
    canvas = empty_canvas(plan)
    height, size = 8.0, 4.0
    paint_boxes(
        canvas,
        [Box(x=30.0, y=30.0, angle_rad=0.0, length_m=size, width_m=size, height_m=height, color=(1, 1, 1), label=None)],
    )
    shadow = canvas.cast_shadows() > 0.5
    length = height / math.tan(plan.sun_elevation_rad)
    away = (-math.sin(plan.sun_azimuth_rad), math.cos(plan.sun_azimuth_rad))  # east, south: from the sun
    for reach, expected in ((0.5 * length, True), (0.9 * length, True), (length + size, False)):
        row, col = int((30.0 + reach * away[1]) / 0.2), int((30.0 + reach * away[0]) / 0.2)
        assert bool(shadow[row, col]) is expected
    sunny_row, sunny_col = int((30.0 - 5 * away[1]) / 0.2), int((30.0 - 5 * away[0]) / 0.2)
    assert not shadow[sunny_row, sunny_col]


def test_gable_faces_the_sun_on_one_side_and_label_is_the_outline() -> None:
    plan = TownPlan(0)
    canvas = empty_canvas(plan)
    angle = plan.sun_azimuth_rad  # the ridge runs across the sun's direction
    roof = Roof(
        x=30.0, y=30.0, angle_rad=angle, length_m=12.0, width_m=8.0, eave_m=4.0, slope=0.7,
        shape="gable", material="red", tone=(1.0, 1.0, 1.0),
    )  # fmt: skip
    paint_roofs(canvas, [roof])
    inside = np.array([[roof.contains(float(x), float(y), 0.0) for x in canvas.x] for y in canvas.y])
    np.testing.assert_array_equal(canvas.label == TownClass.BUILDING, inside)
    assert canvas.height.max() == pytest.approx(4.0 + 0.7 * 4.0, abs=0.1)
    toward = canvas.sun[:2] / np.hypot(*canvas.sun[:2])
    lit, dark = (
        canvas.slope_light[int((30.0 + s * toward[1]) / 0.2), int((30.0 + s * toward[0]) / 0.2)] for s in (2.0, -2.0)
    )
    assert lit > 1.1
    assert dark < 0.6


def test_noise_depends_on_place_only() -> None:
    x = np.arange(40) * 0.2
    whole = value_noise(7, x, x, 1.7)
    np.testing.assert_allclose(value_noise(7, x[13:], x[5:], 1.7), whole[5:, 13:], atol=1e-5)
    assert np.abs(whole).max() <= 1.0
    assert np.abs(value_noise(8, x, x, 1.7) - whole).max() > 0.1
    cells = np.arange(-150, 150)
    noise = white_noise(7, cells, cells)
    np.testing.assert_array_equal(white_noise(7, cells[20:], cells[30:]), noise[30:, 20:])
    assert noise.mean() == pytest.approx(0.0, abs=0.02)
    assert noise.std() == pytest.approx(1.0, abs=0.02)
