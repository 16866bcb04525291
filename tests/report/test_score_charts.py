"""Charts of scores: each value stands where it belongs, and can be read."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from ctrs.report.score_charts import Curve, Dot, confusion_table, curve_chart, dot_chart, reliability_chart


def circles(svg):
    return [(float(entry.get("cx")), float(entry.get("cy"))) for entry in ElementTree.fromstring(svg).iter("circle")]


def frame(svg):
    (found,) = [entry for entry in ElementTree.fromstring(svg).iter("rect") if entry.get("class") == "frame"]
    return [float(found.get(name)) for name in ("x", "y", "width", "height")]


def test_dots_lie_on_the_axis_by_their_value():
    dots = [Dot(value=0.0), Dot(value=0.5, low=0.25, high=0.75), Dot(value=1.0), Dot(value=float("nan"))]
    svg = dot_chart(["a", "b", "c", "d"], [("", (1, 2, 3), dots)], alt="IoU", unit="IoU")
    left, _, width, _ = frame(svg)
    assert [x for x, _ in circles(svg)] == pytest.approx([left, left + width / 2, left + width], abs=0.05)
    assert "b: 0.500, 0.250 to 0.750" in svg
    assert ">0.500<" in svg
    assert ">d<" in svg
    (bar,) = [path for path in re.findall(r'd="(M[^"]+)"', svg) if path.count("M") == 3]
    begin, end = re.match(r"M([\d.]+) [\d.]+H([\d.]+)", bar).groups()
    assert (float(begin), float(end)) == pytest.approx((left + width / 4, left + 3 * width / 4), abs=0.1)


def test_runs_stand_under_each_other_in_their_colours():
    series = [("A", (255, 0, 0), [Dot(value=0.3)]), ("B", (0, 0, 255), [Dot(value=0.6)])]
    svg = dot_chart(["roof & wall"], series, alt="x", unit="IoU")
    (_, first), (_, second) = circles(svg)
    assert first < second
    assert "A, roof &amp; wall: 0.300" in svg
    assert "#ff0000" in svg
    assert "#0000ff" in svg


def test_curves_leave_out_what_is_not_defined():
    points = np.array([[1.0, 0.2], [3.0, np.nan], [5.0, 0.6]])
    tree = Curve(name="tree", points=points, color=(0, 128, 0))
    svg = curve_chart([tree], x_ticks=(0, 1, 3, 5), x_title="px", y_title="F1", alt="F1")
    left, top, width, height = frame(svg)
    expected = [(left + width / 5, top + 0.8 * height), (left + width, top + 0.4 * height)]
    np.testing.assert_allclose(circles(svg), expected, atol=0.06)
    empty = Curve(name="none", points=np.full((2, 2), np.nan), color=(0, 0, 0))
    assert not circles(curve_chart([empty], x_ticks=(0, 1), x_title="", y_title="", alt=""))


def test_reliability_shows_accuracy_over_confidence_and_the_shares_of_bins():
    points = np.array([[np.nan, np.nan], [0.75, 0.5]])
    svg = reliability_chart([Curve(name="A", points=points, color=(1, 1, 1))], [0.0, 1.0], alt="reliability")
    left, top, width, height = frame(svg)
    assert circles(svg) == [pytest.approx((left + 0.75 * width, top + 0.5 * height), abs=0.05)]
    assert "100.00 % of the pixels have 0.50 to 1.00" in svg
    assert 'class="ideal"' in svg


def test_confusion_is_by_row_with_counts_on_hovering():
    counts = np.array([[75, 25, 0], [0, 0, 0]])
    html = confusion_table(counts, ["a", "b"], ["a", "b", "not predicted"], caption="strict")
    table = ElementTree.fromstring(html).find("table")
    cells = [[cell for cell in row if cell.tag == "td"] for row in table.find("tbody")]
    assert [cell.text for cell in cells[0]] == ["75.0", "25.0", "0.0", "100"]
    assert [cell.text for cell in cells[1]] == ["–", "–", "–", "0"]
    assert cells[0][0].get("title") == "75 of 100 px"
    assert cells[0][0].get("class") == "num heat right"
    assert cells[0][1].get("style") == "--share:0.2500"
