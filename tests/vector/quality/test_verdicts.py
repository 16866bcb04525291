from __future__ import annotations

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from ctrs.errors import LabelError
from ctrs.vector.quality import Judgement, judge_polygons, measure_quality
from tests.vector.quality import slow_verdicts

CRS = "EPSG:32633"


def layer(*bounds: tuple[float, float, float, float], crs: str | None = CRS) -> geopandas.GeoSeries:
    return geopandas.GeoSeries([shapely.box(*each) for each in bounds], crs=crs)


def rows(judgement: Judgement, side: str) -> list[tuple[int, int, str, int | None, float, int]]:
    found = judgement.buildings[judgement.buildings["layer"] == side]
    return [
        (
            row.id,
            row.source_id,
            row.verdict,
            None if row.partner is np.nan else row.partner,
            round(row.iou, 3),
            row.parts,
        )
        for row in found.astype({"partner": object}).replace({"partner": {float("nan"): None}}).itertuples()
    ]


def test_each_building_has_its_verdict() -> None:
    truth = layer(
        (0, 0, 10, 10),  # found a metre to the right
        (20, 0, 30, 10),  # drawn in two halves
        (40, 0, 50, 10),  # fused with the next
        (51, 0, 61, 10),
        (70, 0, 80, 10),  # nothing there
        (90, 0, 100, 10),  # a third of it drawn
    )
    drawn = layer(
        (120, 0, 130, 10), (1, 0, 11, 10), (20, 0, 25, 10), (25.5, 0, 30, 10), (40, 0, 61, 10), (90, 0, 93, 10)
    )
    judgement = judge_polygons(drawn, truth)
    assert judgement.quality.figures() == measure_quality(drawn, truth).figures()
    assert rows(judgement, "truth") == [
        (1, 1, "matched", 8, round(9 / 11, 3), 1),
        (2, 2, "matched", 9, 0.5, 2),
        (3, 3, "merged", 11, round(10 / 21, 3), 0),
        (4, 4, "merged", 11, round(10 / 21, 3), 0),
        (5, 5, "missed", None, 0.0, 0),
        (6, 6, "missed", 12, 0.3, 1),
    ]
    assert rows(judgement, "drawn") == [
        (7, 1, "spurious", None, 0.0, 0),
        (8, 2, "matched", 1, round(9 / 11, 3), 1),
        (9, 3, "matched", 2, 0.5, 0),  # half of the true one is enough for a match, not to lie mostly in it
        (10, 4, "split", 2, 0.45, 0),
        (11, 5, "merged", 3, round(10 / 21, 3), 2),
        (12, 6, "spurious", 6, 0.3, 0),
    ]
    assert judgement.count("truth") == {"matched": 2, "split": 0, "merged": 2, "missed": 2}
    assert judgement.count("drawn") == {"matched": 2, "split": 1, "merged": 1, "spurious": 2}
    measured = judgement.buildings.set_index("id")
    assert measured.loc[[1, 8], "hausdorff_m"].tolist() == pytest.approx([1.0, 1.0])
    assert measured.loc[[1, 8], "polis_m"].tolist() == pytest.approx([0.5, 0.5])
    assert measured["polis_m"].notna().sum() == 4
    assert measured["area_m2"].tolist()[:2] == pytest.approx([100.0, 100.0], rel=1e-3)


def test_a_building_in_pieces_is_split() -> None:
    judgement = judge_polygons(layer((0, 0, 4, 10), (6, 0, 10, 10)), layer((0, 0, 10, 10)))
    assert judgement.buildings["verdict"].tolist() == ["split", "split", "split"]
    assert judgement.buildings["partner"].tolist() == [2, 1, 1]


def test_the_layer_keeps_the_crs_of_what_is_judged() -> None:
    drawn = layer((400_000, 5_000_000, 400_010, 5_000_010))
    truth = drawn.to_crs("EPSG:4326")
    judgement = judge_polygons(drawn, truth)
    assert judgement.buildings.crs == drawn.crs
    assert judgement.buildings["verdict"].tolist() == ["matched", "matched"]
    assert judgement.buildings.geometry.iloc[0].hausdorff_distance(drawn.iloc[0]) < 1e-3


def test_what_is_no_polygon_has_no_verdict() -> None:
    drawn = geopandas.GeoSeries([shapely.Point(0, 0), shapely.box(0, 0, 10, 10), None], crs=CRS)
    judgement = judge_polygons(drawn, layer((0, 0, 10, 10)))
    assert judgement.buildings["source_id"].tolist() == [1, 2]
    assert judgement.quality.num_spurious == 2


def test_no_buildings_at_all() -> None:
    none = layer()
    assert len(judge_polygons(none, none).buildings) == 0
    assert judge_polygons(none, layer((0, 0, 1, 1))).count("truth")["missed"] == 1
    assert judge_polygons(layer((0, 0, 1, 1)), none).count("drawn")["spurious"] == 1
    with pytest.raises(LabelError, match="has no CRS"):
        judge_polygons(layer((0, 0, 1, 1), crs=None), layer((0, 0, 1, 1)))


boxes = st.lists(st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 8)] * 2), max_size=7)


@given(boxes, boxes)
def test_verdicts_equal_those_told_one_by_one(drawn: list[tuple[int, ...]], truth: list[tuple[int, ...]]) -> None:
    ours, theirs = ([(x, y, x + w, y + h) for x, y, w, h in side] for side in (drawn, truth))
    judgement = judge_polygons(layer(*ours), layer(*theirs))
    expected, true_expected = slow_verdicts.verdicts(ours, theirs)
    verdicts = judgement.buildings["verdict"].tolist()
    assert verdicts[len(theirs) :] == expected
    assert verdicts[: len(theirs)] == true_expected
    quality = judgement.quality
    assert quality.num_matched == expected.count("matched") == true_expected.count("matched")
    for level in quality.detections:
        precision, recall, f1 = slow_verdicts.detection(ours, theirs, level.iou)
        assert (level.precision, level.recall, level.f1) == (precision, recall, f1), level.iou
    partners = judgement.buildings["partner"]
    for place, partner in enumerate(partners):
        if verdicts[place] == "matched":
            assert partners[partner - 1] == place + 1
