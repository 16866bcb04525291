from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from ctrs.cli import app as program
from ctrs.config import PrepareConfig
from ctrs.tiles import prepare_tiles
from tests.report.trained import write_evaluation, write_run

HEAVY = {"torch", "timm", "lightning", "albumentations", "segmentation_models_pytorch", "safetensors"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "roofs")


def test_tables_on_stdout(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(run.parent.parent)
    write_evaluation(run)
    assert program.main(["info"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "run: runs/roofs\n"
    for text in ("low vegetation", "#00ffff", "CC BY 4.0", "near infrared", "0.834", "strict, without clutter"):
        assert text in captured.out


def test_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["info", str(run / "best"), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["name"], row["epoch"], row["data"]["licence"]) == ("roofs", 5, "CC BY 4.0")
    assert row["protocol"] == "validation tiles: strict, without clutter"


def test_markdown_is_written_and_never_replaced_unasked(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = run / "model_card.md"
    for _ in range(2):
        assert program.main(["info", str(run), "--markdown"]) == 0
        assert capsys.readouterr().out == f"{card}\n"
    assert card.read_text().startswith("# roofs\n")
    card.write_text("mine")
    assert program.main(["info", str(run), "--markdown"]) == 1
    assert "exists and differs" in capsys.readouterr().err
    assert card.read_text() == "mine"
    assert program.main(["info", str(run), "--markdown", "--overwrite"]) == 0
    assert program.main(["info", str(run), "--markdown", "--out", str(tmp_path / "x.md")]) == 0
    assert (tmp_path / "x.md").read_text() == card.read_text()
    assert program.main(["info", str(run), "--markdown", "-o", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert program.main(["info", str(run), "--out", "y.md"]) == 2


def test_the_card_of_a_lone_file_lies_beside_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lone = tmp_path / "town.safetensors"
    lone.write_bytes((run / "best" / "model.safetensors").read_bytes())
    assert program.main(["info", str(lone), "--markdown", "--stac"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "town_model_card.md"), str(tmp_path / "town.stac.json")
    ]  # fmt: skip


def test_a_weight_file_needs_no_suffix(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lone = tmp_path / "roofs.v2"
    lone.write_bytes((run / "best" / "model.safetensors").read_bytes())
    assert program.main(["info", str(lone), "--verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epoch"] == 5
    lone.write_bytes(lone.read_bytes()[:40])  # within its header
    assert program.main(["info", str(lone)]) == 1
    assert "not a model of ctrs" in capsys.readouterr().err


def test_verify_finds_a_flipped_bit(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / "best" / "model.safetensors"
    assert program.main(["info", str(run), "--verify", "--json"]) == 0
    assert "weights are whole" in capsys.readouterr().err
    data = bytearray(file.read_bytes())
    data[-5] ^= 4
    file.write_bytes(data)
    assert program.main(["info", str(run)]) == 0
    capsys.readouterr()
    assert program.main(["info", str(run), "--verify"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "not the weights that" in line


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda folder: folder / "gone", "no such run or checkpoint"),
        (lambda folder: folder, "no checkpoint there"),
        (lambda folder: _write(folder / "x.pth"), "not a model of ctrs"),
        (lambda folder: _write(folder / "x.safetensors"), "broken or incomplete"),
    ],
)
def test_what_is_no_model_is_one_line(make, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["info", str(make(tmp_path))]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line


def _write(path: Path) -> Path:
    path.write_bytes(b"x")
    return path


def test_prepared_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, count, values in (("images", 3, 200), ("labels", 1, 2)):
        (tmp_path / "town" / kind).mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, values, (count, 64, 256)).astype(np.uint8)
        with rasterio.open(
            tmp_path / "town" / kind / "a.tif", "w", driver="GTiff", width=256, height=64, count=count, dtype="uint8",
            crs="EPSG:32633", transform=rasterio.Affine(0.5, 0, 500000, 0, -0.5, 5800000),
        ) as dataset:  # fmt: skip
            dataset.write(pixels)
    prepare_tiles(tmp_path / "town", tmp_path / "prepared", PrepareConfig(licence="CC0", tile_px=64))
    assert program.main(["info", str(tmp_path / "prepared")]) == 0
    out = capsys.readouterr().out
    assert "CC0" in out
    assert "building" in out
    assert program.main(["info", str(tmp_path / "prepared"), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["licence"] == "CC0"
    assert program.main(["info", str(tmp_path / "prepared"), "--markdown"]) == 2
    assert "prepared data, but --markdown" in capsys.readouterr().err


def test_a_model_is_shown_without_torch(run: Path) -> None:
    write_evaluation(run)
    script = (
        "import sys\nfrom ctrs.cli.app import main\n"
        f"code = main(['info', {str(run)!r}, '--markdown', '--stac', '--verify'])\n"
        f"print('LOADED', code, sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED 0 []", done.stderr
