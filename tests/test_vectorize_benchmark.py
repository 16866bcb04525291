"""The comparison of building polygons runs as it stands."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import geopandas
import pytest

ROOT = Path(__file__).resolve().parent.parent


def printed_by(script: str, *arguments: str | Path, cwd: Path) -> list[str]:
    """Run a benchmark of polygons in a process of its own and return the lines that it printed."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "vectorize" / script, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_polygons_side_by_side(tmp_path: Path) -> None:
    def run(*arguments: str) -> list[list[str]]:
        lines = printed_by("", *arguments, "--levels", "clean", "medium", cwd=tmp_path)
        rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
        return [row for row in rows if row[0] in ("clean", "medium")]

    outside = f"copy={sys.executable} -c \"import shutil; shutil.copy('kept/truth.gpkg', r'{{out}}')\""
    rows = run("--size", "1200", "--keep", "kept", "--outside", outside)
    names = [(row[0], row[1]) for row in rows]
    methods = ["shapes-dp", "ctrs", "ctrs-full", "floor", "copy"]
    assert names == 2 * [(level, method) for level in ("clean", "medium") for method in methods]
    iou = {(row[0], row[1]): float(row[2]) for row in rows[:10]}
    assert iou["clean", "copy"] == iou["medium", "copy"] == 1.0
    assert iou["clean", "ctrs"] > 0.97
    assert iou["clean", "floor"] > 0.999
    assert 0.8 < iou["medium", "shapes-dp"] < iou["medium", "floor"] < 0.97
    assert iou["medium", "shapes-dp"] < iou["medium", "ctrs-full"]
    units = geopandas.read_file(tmp_path / "kept" / "units.gpkg")
    units.to_crs("EPSG:4326").to_file(tmp_path / "real.geojson")
    real = run("--footprints", "real.geojson", "--methods", "shapes-dp")
    assert [row[1] for row in real] == 4 * ["shapes-dp"]


@pytest.mark.slow
def test_real_buildings(tmp_path: Path, real_data: Path) -> None:
    arguments: list[str | Path] = [
        "--data",
        real_data,
        "--places",
        "zanzibar_a",
        "--levels",
        "low",
        "--keep",
        tmp_path / "kept",
    ]
    lines = printed_by("real.py", *arguments, "--pictures", cwd=tmp_path)
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| zanzibar_a, low")]
    ways = ["none", "full", "full, watershed", "full, instances"]
    assert [row[1] for row in rows] == ways + ways  # main figures, and the others
    iou = {row[1]: float(row[2]) for row in rows[:4]}
    assert 0.8 < iou["none"] < iou["full, instances"] < 1
    assert (tmp_path / "kept" / "zanzibar_a_low_mask_full_quality.json").exists()
    assert (tmp_path / "kept" / "zanzibar_a_low_mask_full.png").exists()


def test_peers_that_are_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "vectorize"))
    spec = importlib.util.spec_from_file_location("comparison_main", ROOT / "benchmarks" / "vectorize" / "__main__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    python = tmp_path / "geoai" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert module.installed_peers(tmp_path) == {"geoai": python}
    told = capsys.readouterr().err
    for name in ("raster-vision", "building-regulariser", "geomltoolkits"):
        assert f"{name}: not run, no {tmp_path / name}" in told
    assert "geoai: not run" not in told
