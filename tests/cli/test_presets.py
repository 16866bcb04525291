"""``ctrs presets``: the list, the file of one, and names that do not exist."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest

from ctrs.cli.app import main
from ctrs.tiles.presets import GENERIC, preset_names, preset_text


def test_the_list_names_each_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    captured = capsys.readouterr()
    for name in preset_names():
        assert (f"│ {name} " in captured.out) == (name != GENERIC)
    assert "https://project.inria.fr/aerialimagelabeling/" in captured.out
    assert "train 24, test 14" in captured.out
    assert "…" not in captured.out  # nothing is cut off
    assert captured.err == ""


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["presets"]}
    assert set(rows) == set(preset_names()) - {GENERIC}
    assert rows["potsdam"]["extra"] == ["dsm"]
    assert rows["potsdam"]["variants"] == ["RGB", "IRRG", "RGBIR"]
    assert rows["inria"]["variants"] == []
    assert rows["openearthmap"]["splits"] == "train, val by list; test unlabelled"
    assert len(rows["loveda"]["classes"]) == 7


@pytest.mark.parametrize("name", [name for name in preset_names() if name != GENERIC])
def test_show_prints_the_file_exactly(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "show", name]) == 0
    captured = capsys.readouterr()
    assert captured.out == preset_text(name)
    assert captured.err == ""
    assert "class" in tomllib.loads(captured.out)


@pytest.mark.parametrize("name", [name for name in preset_names() if name != GENERIC])
def test_show_as_json_holds_what_the_file_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "show", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": name, "preset": tomllib.loads(preset_text(name))}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("postdam", "preset 'postdam' is unknown; did you mean potsdam? expected one of: inria, landcover_ai, "),
        ("Vaihingen", "did you mean vaihingen? "),
        ("zzz", "preset 'zzz' is unknown; expected one of: "),
        ("generic", "preset generic has no file"),
    ],
)
def test_an_unknown_name_is_one_line(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "show", name]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert said in captured.err


def test_no_torch_is_needed() -> None:
    script = (
        "import sys\nfrom ctrs.cli.app import main\n"
        "assert main(['presets']) == main(['presets', 'show', 'potsdam']) == 0\n"
        "print('LOADED', sorted({'torch', 'timm', 'albumentations', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"
