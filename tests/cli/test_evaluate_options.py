"""Each option of ``ctrs eval`` reaches the configuration that is scored with, under its key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.main import get_command

from ctrs import evaluation
from ctrs.cli.app import app, main
from ctrs.config import EvalConfig
from ctrs.errors import CtrsError

SETTINGS: dict[str, tuple[list[str], str, object]] = {
    "--split": (["train"], "split", "train"),
    "--fail-under": (["building=0.8", "--fail-under", "mean_iou=0.7"], "fail_under",
                     (("building", 0.8), ("mean_iou", 0.7))),
    "--eroded": ([], "eroded", True),
    "--boundary": (["5"], "boundary_px", 5),
    "--distances": (["2,4.5"], "distances_px", (2.0, 4.5)),
    "--objects": (["car, tree"], "objects", ("car", "tree")),
    "--object-iou": (["0.6"], "object_iou", 0.6),
    "--min-object": (["9"], "min_object_px", 9),
    "--bins": (["20"], "bins", 20),
    "--bootstrap": (["50"], "bootstrap", 50),
    "--confidence": (["0.9"], "confidence", 0.9),
    "--seed": (["3"], "seed", 3),
    "--places": (["2"], "num_places", 2),
    "--pixels-only": ([], "pixels_only", True),
    "--batch-size": (["4"], "predict.batch_size", 4),
    "--device": (["cuda:1"], "predict.device", "cuda:1"),
    "--threads": (["1"], "predict.threads", 1),
    "--overwrite": ([], "overwrite", True),
}  # fmt: skip
"""Values other than the default, the key, and what stands there."""

OF_MASKS: dict[str, tuple[list[str], str, object]] = {
    "--classes": (["classes.toml"], "classes", Path("classes.toml")),
    "--class-field": (["kind"], "class_field", "kind"),
    "--resample": ([], "resample", True),
}
PLACES = {"--data", "--pred", "--truth", "--out"}
TALK = {"--json", "--verbose", "--quiet"}


class EnoughError(CtrsError):
    """What ends a call once all has been told."""


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """Call ``ctrs eval`` and return what it would score, and how."""
    monkeypatch.chdir(tmp_path)
    calls: list[SimpleNamespace] = []

    def listen(name: str) -> None:
        def heard(scored: Any, data: Any, config: EvalConfig, *, out: Any = None, progress: object) -> None:
            calls.append(SimpleNamespace(name=name, scored=scored, data=data, config=config, out=out))
            raise EnoughError("enough")

        monkeypatch.setattr(evaluation, name, heard)

    for name in ("evaluate", "evaluate_masks", "evaluate_models"):
        listen(name)

    def call(*arguments: str) -> SimpleNamespace:
        assert main(["eval", *arguments, "-q"]) == 1
        return calls.pop()

    return call


def value_at(config: object, key: str) -> object:
    for part in key.split("."):
        config = getattr(config, part)
    return config


def test_without_options_all_is_as_usual(called: Callable[..., SimpleNamespace]) -> None:
    assert called("runs/a", "--data", "town").config == EvalConfig()


def test_no_option_is_left_out() -> None:
    command: Any = get_command(app)
    options = [entry.opts for entry in command.commands["eval"].params if entry.param_type_name == "option"]
    assert {opts[0] for opts in options} == {*SETTINGS, *OF_MASKS, *PLACES, *TALK}


@pytest.mark.parametrize("option", SETTINGS)
def test_an_option_arrives_under_its_key(option: str, called: Callable[..., SimpleNamespace]) -> None:
    words, key, value = SETTINGS[option]
    model = ("runs/a", "--data", "town")
    assert value_at(EvalConfig(), key) != value
    assert value_at(called(*model, option, *words).config, key) == value


@pytest.mark.parametrize("option", OF_MASKS)
def test_an_option_of_masks_arrives_under_its_key(option: str, called: Callable[..., SimpleNamespace]) -> None:
    words, key, value = OF_MASKS[option]
    masks = ("--pred", "a.tif", "--truth", "b.tif")
    assert value_at(EvalConfig(), key) != value
    assert value_at(called(*masks, option, *words).config, key) == value


def test_labels_may_be_spared_erosion(called: Callable[..., SimpleNamespace]) -> None:
    assert called("runs/a", "--data", "town", "--no-eroded").config.eroded is False
    assert called("runs/a", "--data", "town", "--objects", "none").config.objects == ()


def test_places_arrive(called: Callable[..., SimpleNamespace]) -> None:
    one = called("runs/a", "--data", "town")
    assert (one.name, one.scored, one.data) == ("evaluate", Path("runs/a"), Path("town"))
    two = called("runs/a", "runs/b", "--data", "town", "--out", "both")
    assert (two.name, two.scored, two.data) == ("evaluate_models", [Path("runs/a"), Path("runs/b")], Path("town"))
    assert two.out == Path("both")
    masks = called("--pred", "a.tif", "--truth", "b.tif", "--pred", "c.tif", "--truth", "d.tif", "--out", "here")
    assert [Path(mask) for mask in masks.scored] == [Path("a.tif"), Path("c.tif")]
    assert [Path(mask) for mask in masks.data] == [Path("b.tif"), Path("d.tif")]
    assert (masks.name, masks.out) == ("evaluate_masks", Path("here"))


MODEL, MASKS = ("runs/a", "--data", "town"), ("--pred", "a.tif", "--truth", "b.tif")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*MODEL, "--places", "200"), "--places = 200 found, expected 0 to 100"),
        ((*MODEL, "--boundary", "0"), "--boundary = 0 found, expected 1 to 64"),
        ((*MODEL, "--distances", "99"), "--distances = (99.0,) found, expected pixels above 0"),
        ((*MODEL, "--distances", ""), "--distances '' found, expected values joined by commas, or none"),
        ((*MODEL, "--distances", "1;2"), "--distances '1;2' found, expected pixels joined by commas"),
        ((*MODEL, "--objects", " ,"), "--objects ' ,' found, expected values joined by commas, or none"),
        ((*MODEL, "--min-object", "0"), "--min-object = 0 found"),
        ((*MODEL, "--object-iou", "1"), "--object-iou = 1.0 found"),
        ((*MODEL, "--fail-under", "building=2"), "--fail-under building = 2.0 found"),
        ((*MODEL, "--fail-under", "building"), "--fail-under = 'building' found"),
        ((*MODEL, "--batch-size", "0"), "--batch-size = 0 found"),
        ((*MODEL, "--threads", "0"), "--threads = 0 found"),
        ((*MASKS, "--device", "foo"), "--device and --pred found; no network runs where masks are scored"),
        ((*MASKS, "--threads", "1", "--batch-size", "2"), "--batch-size, --threads and --pred found"),
    ],
)
def test_what_is_refused_is_named_as_it_was_typed(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_distances_may_be_none(called: Callable[..., SimpleNamespace]) -> None:
    assert called("runs/a", "--data", "town", "--distances", "none").config.distances_px == ()
