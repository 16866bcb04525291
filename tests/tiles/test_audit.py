"""The audit of a source: what it holds, the tiles it shows, and that it is the same with and without tiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from ctrs.config import PrepareConfig
from ctrs.errors import CtrsError, DataError
from ctrs.tiles import audit_source, prepare_tiles
from ctrs.tiles.audit_record import audit_record, read_record
from ctrs.tiles.findings import Findings
from ctrs.tiles.samples import MAX_SAMPLES, SAMPLE_PX

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

SMALL = PrepareConfig(tile_px=64)


def test_the_audit_is_the_same_with_and_without_tiles(make: Maker, tmp_path: Path) -> None:
    make.potsdam(tmp_path / "p", ("2_10", "2_11", "2_13"), size=200)
    found = audit_source(tmp_path / "p", tmp_path / "p.html", SMALL)
    manifest = prepare_tiles(tmp_path / "p", tmp_path / "p_tiles", SMALL)
    record = read_record(tmp_path / "p_tiles")
    assert record is not None
    assert not found.written
    assert (found.name, found.preset, found.tile_px, found.stride_px) == ("p", "potsdam", 64, 64)
    assert json.loads(json.dumps(audit_record(found) | {"name": "p_tiles"})) == record
    for split in manifest.splits:
        assert found.class_px[split] == manifest.class_counts(split)
    assert len(found.tiles) == len(manifest.tiles) == 3 * 16
    assert {(tile.scene, tile.window, tile.split) for tile in found.tiles} == {
        (tile.scene, tile.window, tile.split) for tile in manifest.tiles
    }
    for scene in found.scenes:
        assert scene.num_tiles == 16
        assert scene.pixel_size_m == pytest.approx(0.05, abs=1e-4)
        # 200 px in tiles of 64: the last row and column are shifted inwards by 56 px.
        assert sum(scene.facts.coverage) == scene.facts.valid_px == 200**2
        assert scene.facts.coverage[:2] == (0, 200**2 - 2 * 56 * 200 + 56**2)
        assert np.array_equal(scene.facts.label_counts, scene.facts.tiled_counts)


def test_the_report_does_not_depend_on_the_number_of_threads(make: Maker, tmp_path: Path) -> None:
    make.potsdam(tmp_path / "p", ("2_10", "2_11", "2_13"), size=200)
    pages = []
    for workers in (1, 4):
        audit_source(tmp_path / "p", tmp_path / "p.html", PrepareConfig(tile_px=64, workers=workers))
        pages.append((tmp_path / "p.html").read_bytes())
    assert pages[0] == pages[1]


def test_samples_show_splits_and_classes(make: Maker, tmp_path: Path) -> None:
    truth = make.potsdam(tmp_path / "p", ("2_10", "2_11", "2_13"), size=320)
    found = audit_source(tmp_path / "p", tmp_path / "p.html", SMALL)
    assert len(found.samples) == MAX_SAMPLES
    assert {sample.split for sample in found.samples} == {"train", "val", "test"}
    assert len({sample.name for sample in found.samples}) == MAX_SAMPLES
    assert {int(value) for sample in found.samples for value in np.unique(sample.mask)} == set(range(6))
    sample = found.samples[0]
    scene, row, col = sample.name.removeprefix("potsdam_").rsplit("_", 2)
    expected = truth[scene][int(row) * 64 : int(row) * 64 + 64, int(col) * 64 : int(col) * 64 + 64]
    assert np.array_equal(sample.mask, expected)
    assert sample.pixels.shape == (3, 64, 64)
    assert sample.valid.all()


def test_samples_of_large_tiles_are_thinned(make: Maker, tmp_path: Path) -> None:
    truth = make.potsdam(tmp_path / "p", ("2_10", "2_13"), size=600, eroded=False)
    found = audit_source(tmp_path / "p", tmp_path / "p.html", PrepareConfig(tile_px=600))
    sample = next(sample for sample in found.samples if sample.name == "potsdam_2_10_000_000")
    assert sample.mask.shape == sample.pixels.shape[1:] == (200, 200)
    assert max(sample.mask.shape) <= SAMPLE_PX
    assert np.array_equal(sample.mask, truth["2_10"][::3, ::3])


def test_tiles_left_out_are_counted_and_shown(make: Maker, tmp_path: Path) -> None:
    make.potsdam(tmp_path / "p", ("2_10", "2_13"), size=256, eroded=False)
    path = tmp_path / "p/2_Ortho_RGB/top_potsdam_2_10_RGB.tif"
    with rasterio.open(path) as dataset:
        profile = {"crs": dataset.crs, "transform": dataset.transform}
        pixels = dataset.read()
    mask = np.full((256, 256), 255, np.uint8)
    mask[:64, :100] = 0
    make.raster(path, pixels, mask=mask, **profile)
    found = audit_source(tmp_path / "p", tmp_path / "p.html", PrepareConfig(tile_px=64, min_valid=0.5))
    facts = {scene.name: scene.facts for scene in found.scenes}["potsdam_2_10"]
    # The first tile is empty; of the second 36 columns of 64 are lost, and so its other 28 are left out.
    assert facts.valid_px == 256**2 - 64 * 100
    assert facts.coverage == (28 * 64, facts.valid_px - 28 * 64)
    assert sum(facts.left_out_counts) == 28 * 64
    left_out = [tile.window for tile in found.tiles if tile.split is None]
    assert [(window.row_off, window.col_off) for window in left_out] == [(0, 0), (0, 64)]
    (note,) = [finding for finding in found.findings if finding.check == "coverage"]
    assert note.level == "note"
    assert note.message.startswith("1792 valid pixels")


def test_a_source_of_nothing_but_faults_has_a_report(make: Maker, tmp_path: Path) -> None:
    make.potsdam(tmp_path / "p", ("2_10", "2_13"), size=64, eroded=False)
    for path in (tmp_path / "p/2_Ortho_RGB").glob("*.tif"):
        path.write_bytes(b"no image")
    found = audit_source(tmp_path / "p", tmp_path / "p.html", SMALL)
    assert (found.num_faults, found.scenes, found.samples) == (2, (), ())
    assert "not readable as a raster" in (tmp_path / "p.html").read_text()
    assert audit_record(found)["num_faults"] == 2


def test_findings_are_raised_together(caplog: pytest.LogCaptureFixture) -> None:
    findings = Findings()
    findings.raise_faults()
    with findings.gathering("files", scene="a"):
        raise DataError("a.tif: bad")
    with pytest.raises(DataError, match=r"^a\.tif: bad$"):
        findings.raise_faults()
    findings.fault("bands", DataError("b.tif: worse"))
    with pytest.raises(CtrsError, match=r"a\.tif: bad; and 1 more fault: `ctrs prepare --check` shows all in a report"):
        findings.raise_faults()
    assert [record.message for record in caplog.records] == ["b.tif: worse"]  # the first is in the error itself
    assert [finding.scene for finding in findings.entries] == ["a", None]


def test_records_that_are_no_records(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    (tmp_path / "audit.json").write_text("{")
    with pytest.raises(DataError, match=r"audit\.json: not readable .* with --overwrite"):
        read_record(tmp_path)
    (tmp_path / "audit.json").write_text('{"format_version": 99}')
    with pytest.raises(DataError, match=r"format_version 99 found, expected 1"):
        read_record(tmp_path)
