"""``ctrs prepare`` and ``ctrs prepare --check`` as they are typed: what is printed where, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from ctrs.cli.app import main
from ctrs.synthetic import TownConfig, make_town

SIZE = 300


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TownConfig(size_px=SIZE, pixel_size_m=0.35, train_ids=("2_10", "2_11"), test_ids=("2_13",))
    return make_town(tmp_path_factory.mktemp("town") / "town", config)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def paint_unknown(town: Path, copy: Path) -> Path:
    """Copy the town and give two of its labels a colour that no table holds."""
    for path in town.rglob("*"):
        if path.is_file() and "noBoundary" not in path.name:
            target = copy / path.relative_to(town)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    for name in ("2_10", "2_11"):
        with rasterio.open(copy / f"5_Labels_all/top_potsdam_{name}_label.tif", "r+") as label:
            label.write(np.full((3, 7, 7), 90, np.uint8), window=rasterio.windows.Window(20, 10, 7, 7))
    return copy


def test_prepare_prints_classes_before_and_after_and_the_report(town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(town), "--tile", "150"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[-2:] == [str(Path("prepared/town/report.html")), str(Path("prepared/town"))]
    assert "classes before and after, each pixel once" in out
    assert "label px" in out
    assert "warning" not in err
    names = sorted(path.name for path in Path("prepared/town").iterdir())
    assert names == [
        "audit.json",
        "images",
        "manifest.parquet",
        "masks",
        "masks_eroded",
        "prepared.json",
        "report.html",
    ]
    record = json.loads(Path("prepared/town/audit.json").read_text())
    assert sum(counts["label_px"] for counts in record["classes"].values()) == 3 * SIZE**2
    for counts in record["classes"].values():
        assert counts["label_px"] == counts["tiled_px"] + counts["left_out_px"]
        assert f" {counts['label_px']} " in out
    # A second time nothing is made, and the same is said.
    assert main(["prepare", str(town), "--tile", "150"]) == 0
    again, err = capsys.readouterr()
    assert again == out
    assert "already prepared from the same files" in err


def test_prepare_as_json(town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(town), "--tile", "150", "--json", "-o", "tiles"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["path"], result["report"]) == ("tiles", str(Path("tiles/report.html")))
    assert result["findings"] == []
    assert result["class_px"]["car"]["left_out_px"] == 0
    assert result["splits"]["test"]["tiles"] == 4


def test_resampled_labels_are_shown_as_they_came_too(
    town: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prepare", str(town), "--tile", "64", "--gsd", "4"]
    assert main([*arguments, "-o", "coarse"]) == 0
    out, _ = capsys.readouterr()
    assert "source px" in out
    assert "resampled to ground pixels of 4 m; source px: in the label files, where there is imagery" in out
    assert main([*arguments, "--check", "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)["classes"]
    assert checked == json.loads((tmp_path / "coarse/audit.json").read_text())["classes"]
    assert sum(counts["source_px"] for counts in checked.values()) == 3 * SIZE**2
    for counts in checked.values():
        assert f" {counts['source_px']} " in out
        assert counts["source_m2"] == pytest.approx(counts["source_px"] * 0.35**2, rel=5e-3)
        assert counts["label_m2"] == pytest.approx(counts["label_px"] * 16, rel=5e-3)


def test_check_writes_a_report_and_nothing_else(town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(town), "--tile", "150", "--check"]) == 0
    out, _ = capsys.readouterr()
    assert out.splitlines()[0] == "nothing found that is wrong or odd"
    assert out.splitlines()[-1] == str(Path("prepared/town_check.html"))
    assert [path.as_posix() for path in Path().rglob("*") if path.is_file()] == ["prepared/town_check.html"]
    assert main(["prepare", str(town), "--tile", "150", "--check"]) == 0, "an older report is replaced"
    # What prepare writes stands beside it.
    assert main(["prepare", str(town), "--tile", "150"]) == 0


def test_check_lists_all_faults_and_fails(town: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = paint_unknown(town, tmp_path / "broken")
    assert main(["prepare", str(source), "--tile", "150", "--check", "-o", "look.html"]) == 1
    out, err = capsys.readouterr()
    faults = [line for line in out.splitlines() if line.startswith("fault")]
    assert len(faults) == 2
    assert all("unknown label colour (90, 90, 90) in 49 px, first at row 10, column 20" in line for line in faults)
    assert all(line.split()[1] == "colours" for line in faults)
    assert err.splitlines()[-1] == f"error: 2 faults found in {source}; the report is look.html"
    assert Path("look.html").is_file()
    assert main(["prepare", str(source), "--tile", "150", "--check", "-o", "look.html", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["num_faults"] == 2
    assert [finding["scene"] for finding in result["findings"]] == ["potsdam_2_10", "potsdam_2_11"]
    # The same on the way to tiles: the first, and how to see the others.
    assert main(["prepare", str(source), "--tile", "150"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "and 1 more fault: `ctrs prepare --check` shows all in a report" in err
    assert err.count("px, first at row 10") == 2
    assert not Path("prepared/broken").exists()


def test_check_of_an_empty_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["prepare", "empty", "--check"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: empty: no images found")
    assert len(err.splitlines()) == 1


def test_check_wants_a_html_file(town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(town), "--check", "-o", "prepared/town"]) == 2
    assert "--out prepared/town found, expected the name of an HTML file" in capsys.readouterr().err


def test_a_source_or_images_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare"]) == 2
    assert "no source given" in capsys.readouterr().err
