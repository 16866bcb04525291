"""``audit_source`` writes its report whatever is wrong with the source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from affine import Affine

from ctrs.cli.app import main
from ctrs.config import PrepareConfig
from ctrs.tiles import audit_source

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

PLACE = Affine(0.5, 0, 400000, 0, -0.5, 5800000)


def scenes_without_pixels(make: Maker, root: Path, kind: str) -> Path:
    for number in range(2):
        place = PLACE @ Affine.translation(number * 64, 0)
        if kind == "nodata":
            pixels, nodata = np.zeros((3, 64, 64), np.uint8), 0.0
        else:
            pixels, nodata = np.random.default_rng(number).random((3, 64, 64)).astype(np.float32), None
            pixels[1] = np.nan
        make.raster(root / f"images/{number}.tif", pixels, transform=place, crs="EPSG:32633", nodata=nodata)
        make.raster(root / f"labels/{number}.tif", make.indices(64, 64), transform=place, crs="EPSG:32633")
    return root


@pytest.mark.parametrize("kind", ["nodata", "nan"])
def test_scenes_without_a_valid_pixel(
    make: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    source, report = scenes_without_pixels(make, tmp_path / "src", kind), tmp_path / "look.html"
    audit = audit_source(source, report, PrepareConfig(tile_px=32))
    faults = [finding.message for finding in audit.findings if finding.level == "fault"]
    assert sum("0.tif: no valid pixel in any scene" in fault for fault in faults) == 1
    assert [scene.name for scene in audit.scenes] == ["0", "1"]
    assert audit.samples == ()
    assert "no valid pixel in any scene; check nodata and alpha" in report.read_text(encoding="utf-8")
    report.unlink()
    assert main(["prepare", str(source), "--tile", "32", "--check", "-o", str(report), "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["report"] == str(report)
    assert "unexpected" not in err
    assert report.is_file()
