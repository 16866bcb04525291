"""What the counts and previews of scenes give away about their values."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ctrs.tiles.facts import Preview, SceneFacts
from ctrs.tiles.findings import Findings
from ctrs.tiles.radiometry import check_radiometry

NAMES = ("red", "green")


def facts(pixels: np.ndarray, valid: np.ndarray | None = None, **changes: Any) -> SceneFacts:
    """Facts of a scene that is its own preview."""
    valid = np.ones(pixels.shape[1:], bool) if valid is None else valid
    number = int(valid.sum())
    limits = np.iinfo(pixels.dtype) if pixels.dtype.kind in "iu" else None
    low, high = (
        tuple(0 if limits is None else int((band[valid] == end).sum()) for band in pixels)
        for end in ((limits.min, limits.max) if limits is not None else (0, 0))
    )
    preview = Preview(step=1, pixels=pixels, valid=valid, mask=np.zeros(valid.shape, np.uint8))
    return SceneFacts(
        num_px=valid.size, valid_px=number, label_counts=(number,), ignored_px=0, tiled_counts=(number,),
        left_out_counts=(0,), coverage=(0, number), low_px=low, high_px=high, preview=replace(preview, **changes),
    )  # fmt: skip


def noise(seed: int = 0, *, low: int = 20, high: int = 200, dtype: str = "uint8", size: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (2, size, size)).astype(dtype)


def found(scenes: dict[str, SceneFacts], dtype: str = "uint8", nodata: float | None = None) -> list[str]:
    findings = Findings(issues_warnings=False)
    check_radiometry(scenes, NAMES, dtype, nodata, findings)
    assert {finding.check for finding in findings.entries} <= {"radiometry"}
    return [f"{finding.level}: {finding.message}" for finding in findings.entries]


def test_ordinary_imagery() -> None:
    assert found({f"s{number}": facts(noise(number)) for number in range(8)}) == []
    floats = {f"s{number}": facts(noise(number).astype(np.float32) / 255) for number in range(8)}
    assert found(floats, "float32") == []


def test_empty_scenes() -> None:
    nothing = np.zeros((40, 40), bool)
    scenes = {"a": facts(noise()), "b": facts(noise(1), nothing)}
    assert found(scenes) == ["warning: scene b: no valid pixel; it gives no tiles; check its nodata and alpha"]
    assert found({"b": scenes["b"]}) == ["fault: scene b: no valid pixel in any scene; check nodata and alpha"]


def test_constant_bands() -> None:
    flat = noise()
    flat[1] = 9
    valid = np.ones((40, 40), bool)
    valid[:5] = False
    hidden = flat.copy()
    hidden[1, :5] = 200  # where it does not count
    expected = r"warning: band green is constant \(9\) in 2 of 3 scenes \(b, c\); leave it out with --bidx"
    (message,) = found({"a": facts(noise(3)), "b": facts(flat), "c": facts(hidden, valid)})
    assert re.match(expected, message)


@pytest.mark.parametrize(("value", "end"), [(255, "greatest"), (0, "least")])
def test_saturated_bands(value: int, end: str) -> None:
    clipped = noise()
    clipped[0, :6] = value  # 15 %
    barely = noise(1)
    barely[0, :1] = value  # 2.5 %
    (message,) = found({"a": facts(barely), "b": facts(clipped)})
    expected = f"warning: saturated in scene b: 15.0% of band red of scene b have the {end} value {value};"
    assert message.startswith(expected)
    clipped[1, :8] = value
    (message,) = found({"a": facts(barely), "b": facts(clipped)})
    assert "20.0% of band green" in message, "the worst band is named"
    barely[1, :3] = value
    (message,) = found({"a": facts(barely)})
    assert message.startswith("note: saturated in scene a: 7.5% of band green")


def test_eight_bit_values_in_sixteen_bits() -> None:
    shallow, full = facts(noise(dtype="uint16")), facts(noise(1, high=4000, dtype="uint16"))
    (message,) = found({"a": full, "b": shallow, "c": full}, "uint16")
    assert message.startswith("warning: 8-bit values (0 to 255) in uint16 in scene b, the others use more")
    (message,) = found({"a": shallow, "b": shallow}, "uint16")
    assert message.startswith("note: all values lie within 0 to 255, though the dtype is uint16")
    assert found({"a": full}, "uint16") == []


def test_outliers_among_scenes() -> None:
    scenes = {f"s{number}": facts(noise(number)) for number in range(6)}
    dark = facts((noise(9) // 5).astype(np.uint8))
    (message,) = found({**scenes, "dark": dark})
    assert re.match(r"warning: scene dark differs from the others: mean of band (red|green) 2\d", message)
    wild = facts(np.where(noise(9) > 110, 255, 0).astype(np.uint8))
    assert any("standard deviation of band" in message for message in found({**scenes, "wild": wild}))
    assert found({**dict(list(scenes.items())[:3]), "dark": dark}) == [], "of four scenes none stands out"
    same = {f"s{number}": facts(noise(7)) for number in range(6)}
    assert found(same | {"near": facts(noise(8))}) == [], "equal scenes have no spread; that makes no outlier"


def test_nodata_values_amid_valid_pixels() -> None:
    pixels, valid = noise(), np.ones((40, 40), bool)
    valid[:, :10] = False
    assert found({"a": facts(pixels, valid)}, nodata=255.0) == []
    valid[20, 20] = valid[30, 35] = False
    (message,) = found({"a": facts(pixels, valid)}, nodata=255.0)
    assert message.startswith("note: 2 single pixels of the nodata value 255 lie amid valid ones in scene a")
    assert found({"a": facts(pixels, valid, step=4)}, nodata=255.0) == [], "a thinned preview shows no single pixels"
