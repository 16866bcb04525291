"""Charts: lengths and heights are in proportion to the numbers."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from ctrs.report.charts import Bar, Line, histogram, short_number, stacked_bars

COLORS = ((255, 255, 255), (0, 0, 255), (255, 0, 0))


def bars(*entries):
    return ElementTree.fromstring(stacked_bars(entries, ("white & <b>", "blue", "red"), COLORS, alt="shares"))


def test_parts_of_a_bar_follow_each_other_in_proportion():
    drawn = bars(Bar(name="train", values=(50.0, 30.0, 20.0), note="7 tiles"))
    parts = [rect for rect in drawn.iter("rect") if rect.get("fill")]
    assert [rect.get("fill") for rect in parts] == ["#ffffff", "#0000ff", "#ff0000"]
    widths = [float(rect.get("width")) for rect in parts]
    assert widths == pytest.approx([360, 216, 144])
    starts = [float(rect.get("x")) for rect in parts]
    assert starts[1:] == pytest.approx([starts[0] + 360, starts[0] + 576])
    texts = [text.text for text in drawn.iter("text")]
    assert texts[:5] == ["train", "50 %", "30 %", "20 %", "7 tiles"]
    assert [title.text for title in drawn.iter("title")] == [
        "shares", "train, white & <b>: 50.00 %", "train, blue: 30.00 %", "train, red: 20.00 %",
    ]  # fmt: skip


def test_text_on_a_bar_can_be_read():
    drawn = bars(Bar(name="a", values=(1.0, 1.0, 1.0)))
    inks = [text.get("style") for text in drawn.iter("text") if text.get("style")]
    assert inks == ["fill:#000000", "fill:#ffffff", "fill:#000000"]


def test_parts_without_anything_are_not_drawn_and_an_empty_bar_stays_empty():
    drawn = bars(Bar(name="a", values=(0.0, 3.0, 0.0)), Bar(name="empty", values=(0.0, 0.0, 0.0)))
    parts = [rect for rect in drawn.iter("rect") if rect.get("fill")]
    assert [rect.get("width") for rect in parts] == ["720"]


def points(path):
    return np.array(re.findall(r"([\d.]+) ([\d.]+)", path.get("d")), float)


def test_histograms_rise_with_the_counts():
    heights = np.array([0.0, 5.0, 10.0, 0.0])
    lines = [Line(name="red", heights=heights, color=(255, 0, 0)), Line(name="n", heights=heights / 2, color=(0, 0, 1))]
    drawn = ElementTree.fromstring(histogram(lines, 0.0, 255.0, alt="h"))
    red, other = (points(path) for path in drawn.iter("path"))
    assert np.ptp(red[:, 0]) == pytest.approx(216 * 3 / 4)
    rise = 84 - red[:, 1]
    assert rise == pytest.approx(heights / 10 * 78, abs=0.06)
    assert 84 - other[:, 1] == pytest.approx(rise / 2, abs=0.06)
    assert [text.text for text in drawn.iter("text")] == ["0", "255"]
    assert [title.text for title in drawn.iter("title")] == ["h", "red", "n"]


def test_a_histogram_of_nothing_is_an_empty_frame():
    line = Line(name="red", heights=np.zeros(4), color=(255, 0, 0))
    drawn = ElementTree.fromstring(histogram([line], 0.0, 1.0, alt="h", behind=np.zeros(4)))
    assert not list(drawn.iter("path"))


def test_what_is_compared_with_is_scaled_for_itself():
    line = Line(name="red", heights=np.array([1.0, 2.0]), color=(255, 0, 0))
    drawn = ElementTree.fromstring(histogram([line], 0.0, 1.0, alt="h", behind=np.array([1e6, 5e5])))
    behind = next(path for path in drawn.iter("path") if path.get("class") == "behind")
    assert 84 - points(behind)[1:3, 1] == pytest.approx([78, 39])


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (-12.0, "-12"), (65535.0, "65,535"), (0.31649, "0.316")])
def test_short_numbers(value, text):
    assert short_number(value) == text
