"""Each option of ``ctrs vectorize`` reaches the configuration that is drawn with, under its key."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from typer.main import get_command

import ctrs.vector
from ctrs.cli.app import app, main
from ctrs.config import VectorizeConfig
from ctrs.errors import ConfigError, CtrsError

SETTINGS: dict[str, tuple[list[str], str, object]] = {
    "--classes": (["building, road"], "classes", ("building", "road")),
    "--min-area": (["12.5"], "min_area_m2", 12.5),
    "--min-hole": (["3"], "min_hole_m2", 3.0),
    "--tolerance": (["0.7"], "tolerance_m", 0.7),
    "--simplify": (["0.8"], "tolerance_m", 0.8),
    "--regularize": (["full"], "regularize", "full"),
    "--split": (["watershed"], "split", "watershed"),
    "--split-width": (["2.5", "--split", "erosion"], "split_m", 2.5),
    "--instances": ([], "instances", True),
    "--probabilities": (["some.tif"], "probabilities", Path("some.tif")),
    "--opening": (["1"], "opening_m", 1.0),
    "--closing": (["2"], "closing_m", 2.0),
    "--smooth": (["5"], "smooth_m", 5.0),
    "--connectivity": (["8"], "connectivity", 8),
    "--qml": ([], "qml", True),
    "--jobs": (["3"], "jobs", 3),
    "--overwrite": ([], "overwrite", True),
}
"""Values other than the default, the key, and what stands there."""

ELSEWHERE = {"--out", "--truth", "--json", "--verbose", "--quiet", "--help"}


class EnoughError(CtrsError):
    """What ends a call once all has been told."""


def config_of(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> VectorizeConfig:
    told: list[VectorizeConfig] = []

    def listen(mask: Path, out: Path, config: VectorizeConfig, **rest: object) -> None:
        told.append(config)
        raise EnoughError("enough")

    monkeypatch.setattr(ctrs.vector, "vectorize", listen)
    assert main(["vectorize", "scene_mask.tif", *arguments]) == 1
    return told[0]


@pytest.mark.parametrize("option", SETTINGS)
def test_an_option_arrives(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values, key, expected = SETTINGS[option]
    assert getattr(VectorizeConfig(), key) != expected
    assert getattr(config_of([option, *values], monkeypatch), key) == expected


def test_probabilities_may_be_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(["--probabilities", "none"], monkeypatch)
    assert (config.probabilities, config.use_probabilities) == (None, False)
    assert config_of([], monkeypatch) == VectorizeConfig()


def test_each_option_and_each_setting_is_here() -> None:
    command = get_command(app).commands["vectorize"]  # type: ignore[attr-defined]
    found = {name for entry in command.params for name in entry.opts if name.startswith("--")}
    assert found - ELSEWHERE == set(SETTINGS)
    keys = {key for _, key, _ in SETTINGS.values()} | {"use_probabilities"}
    assert keys == {entry.name for entry in fields(VectorizeConfig)}


def test_a_connectivity_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vectorize", "scene_mask.tif", "--connectivity", "6"]) == 2
    assert "--connectivity 6: expected 4 or 8" in capsys.readouterr().err


def test_a_width_without_a_split_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vectorize", "scene_mask.tif", "--split-width", "3"]) == 2
    assert "--split-width says how narrow a neck --split parts; give both" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"split_m = 3.0 found, expected none without split"):
        VectorizeConfig(split_m=3.0)
    assert VectorizeConfig(split="erosion").neck_m == 3.0


@pytest.mark.parametrize("option", [["--split", "erosion"], ["--regularize", "full"]])
def test_what_is_for_buildings_alone_wants_buildings(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vectorize", "scene_mask.tif", "--classes", "water", *option]) == 2
    expected = f"{option[0]} '{option[1]}' found, expected none, or classes with \"building\": only "
    assert expected in capsys.readouterr().err
