from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ctrs import __version__
from ctrs.cli import app as program
from ctrs.errors import CtrsError, OutputExistsError, UsageError

COMMANDS = [
    "prepare",
    "presets",
    "train",
    "eval",
    "predict",
    "vectorize",
    "info",
    "export",
    "ablate",
    "inspect",
    "demo",
]
HEAVY = {
    "torch",
    "timm",
    "lightning",
    "albumentations",
    "segmentation_models_pytorch",
    "geopandas",
    "rasterio",
    "scipy",
}


PAGES = [[], *([name] for name in COMMANDS), ["inspect", "patches"], ["inspect", "embeddings"], ["presets", "show"]]


@pytest.mark.parametrize("arguments", PAGES, ids=lambda words: " ".join(["ctrs", *words]))
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom ctrs.cli.app import main\n"
        f"code = main([*{arguments!r}, '--help'])\n"
        f"loaded = sorted({HEAVY!r} & set(sys.modules))\n"
        "print('LOADED', code, loaded)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED 0 []"
    assert "Usage:" in done.stdout


def test_help_answers_at_once() -> None:
    def processor_seconds(*words: str) -> float:  # on a busy machine the clock tells of others
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Beside a help page that nobody can make cheaper: machines differ in speed, and one machine from hour to hour.
    least = "import rich.table, typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"
    rounds = [(processor_seconds("-m", "ctrs", "train", "--help"), processor_seconds("-c", least)) for _ in range(5)]
    assert min(ours for ours, _ in rounds) < 4 * min(bare for _, bare in rounds), rounds


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ctrs {__version__}\n"


def test_no_command_shows_the_help_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([]) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == "error: no command given; see `ctrs --help`"
    assert "Usage: ctrs" in captured.out + captured.err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["prepare", "town", "--val-fraction", "2"], "--val-fraction 2.0 found, expected 0 to 0.5"),
        (["prepare", "town", "--tile=5"], "--tile 5 found, expected 32 to 8192"),
        (["prepare", "town", "--tile", "5 cm"], "--tile '5 cm' found, expected pixels or metres"),
        (["prepare", "town", "--bidx", "x"], "--bidx 'x' found, expected band numbers"),
        (["prepare", "town", "--label-kind", "odd"], "'--label-kind': 'odd' is not one of 'auto'"),
        (["train", "--name", "../mine"], "--name '../mine' found, expected a plain folder name"),
        (["train", "--name", "a/b"], "--name 'a/b' found, expected a plain folder name"),
        (["train", "--name", ".hidden"], "--name '.hidden' found, expected a plain folder name"),
        (["train", "--resume", "--name", ""], "--name '' found, expected a plain folder name"),
        (["train", "--epochs", "many"], "--epochs"),
        (["train", "--decoder", "psp"], "--decoder"),
        (["prepare"], "no source given; name a folder"),
        (["predict", "scene.tif", "--bidx", "red"], "--bidx 'red' found, expected band numbers"),
        (["train", "--config", "absent.toml"], "absent.toml: not readable"),
        (["train", "--epochs", "0"], "epochs = 0 found, expected 1 or more"),
        (["train", "--segmentation", "ce:0", "--loss", "none"], "segmentation 'ce:0': all weights are 0"),
        (["train", "--set", "augment=1"], "augment = 1 found, expected a table"),
        (["train", "--set", "augment.cutmix=2"], "error: options: augment.cutmix = 2.0 found, expected 0 to 1"),
        (["train", "--resume", "--loss", "none"], "--loss found, but --resume goes on with a run as it was set up"),
        (["train", "--resume", "--batch-size", "4", "--set", "augment.blur=1"], "--batch-size, --set augment.blur fou"),
        (["train", "--resume", "--overwrite", "--set", "ema=0.9"], "--nodes, --patience"),
        (["train", "--resume", "--set", "ema=0.9"], "--set of cache, channels_last, save_minutes and"),
        (["vectorize", "a.tif", "b.tif", "-o", "c.gpkg"], "one file for 2 masks"),
        (["vectorize", "a.tif", "--split", "erosion", "--split-width", "0"], "--split-width 0.0 found, expected more"),
        (["vectorize", "a.tif", "--instances", "--split", "erosion"], "--split 'erosion' found, expected none with"),
        (["vectorize", "a.tif", "--min-area=-1"], "--min-area -1.0 found, expected 0 or more"),
        (["vectorize", "a.tif", "--smooth", "inf"], "--smooth inf found, expected 0 or more"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert program.main(arguments) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert part in lines[0]
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train"], "no prepared data in"),
        (["eval"], "no run with a checkpoint in"),
        (["predict", "scene.tif"], "no run with a checkpoint in"),
        (["prepare", "absent"], "absent"),
        (["vectorize", "absent_mask.tif"], "absent_mask.tif"),
        (["vectorize", "."], ".: is a folder, expected a mask; name the masks in it"),
        (["eval", "absent"], "absent: no such run or checkpoint"),
        (["eval", "."], ".: no checkpoint there"),
        (["train", "--resume"], "no run in"),
        (["train", "--resume", "--name", "mine"], "no such run"),
    ],
)
def test_missing_input_is_one_line_and_exit_code_1(
    arguments: list[str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert program.main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert len(captured.err.splitlines()) == 1
    assert part in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (CtrsError("scene.tif: broken"), 1, "error: scene.tif: broken\n"),
        (UsageError("bad call"), 2, "error: bad call\n"),
        (OutputExistsError("x.tif: exists"), 1, "error: x.tif: exists\n"),
        (PermissionError(13, "Permission denied", "/data/x"), 1, "error: /data/x: permission denied\n"),
        (OSError(28, "No space left on device"), 1, "error: no space left on device\n"),
    ],
)
def test_errors_become_a_line(
    raised: Exception,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> None:
        raise raised

    monkeypatch.setattr("ctrs.cli.vectorize.VectorizeConfig", fail)
    assert program.main(["vectorize", "mask.tif"]) == code
    assert capsys.readouterr().err == message


def test_ctrl_c_exits_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ctrs.cli.vectorize.VectorizeConfig", stop)
    assert program.main(["vectorize", "mask.tif"]) == 130
    assert "stopped by Ctrl-C" in capsys.readouterr().err


def test_ctrl_c_names_the_unfinished_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(**_: object) -> None:
        error = KeyboardInterrupt()
        error.add_note("unfinished work is kept in .x.partial")
        raise error

    monkeypatch.setattr("ctrs.cli.vectorize.VectorizeConfig", stop)
    assert program.main(["vectorize", "mask.tif"]) == 130
    assert capsys.readouterr().err == "error: stopped by Ctrl-C; unfinished work is kept in .x.partial\n"


def test_sigterm_that_falls_into_a_callback_is_heard_again() -> None:
    script = """
import os, signal, sys, time, weakref
import ctrs.cli.vectorize
from ctrs.cli.app import main

class Thing:
    pass

def stop(**_):
    thing = Thing()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del thing  # what is raised in the callback is lost
    for _ in range(100):
        time.sleep(0.02)
    print("went on", flush=True)

ctrs.cli.vectorize.VectorizeConfig = stop
sys.exit(main(["vectorize", "mask.tif"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 143, done.stderr
    assert done.stdout == ""
    assert done.stderr == "error: stopped by SIGTERM\n"


def test_sigterm_exits_143_names_the_unfinished_work_and_is_not_passed_on() -> None:
    script = """
import os, signal, sys
import ctrs.cli.vectorize
from ctrs.cli.app import main

def stop(**_):
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt as error:
        os.kill(os.getpid(), signal.SIGTERM)  # sent twice
        error.add_note("unfinished work is kept")
        raise

ctrs.cli.vectorize.VectorizeConfig = stop
code = main(["vectorize", "mask.tif"])
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 143, done.stderr
    assert done.stdout == f"{int(signal.SIGTERM)}\n"
    assert done.stderr == "error: stopped by SIGTERM; unfinished work is kept\n"


@pytest.mark.parametrize(("error", "code"), [("KeyboardInterrupt", 130), ("RuntimeError('odd')", 1)])
def test_a_backward_pass_that_was_left_costs_no_exit_code(error: str, code: int) -> None:
    script = f"""
import sys, torch
from torch.utils.checkpoint import checkpoint
import ctrs.cli.vectorize
from ctrs.cli.app import main

calls = 0

def square(x):
    global calls
    calls += 1
    if calls == 3:  # computed again in the backward pass
        raise {error}
    return torch.where(x > 0, x * x, x.exp()).sum()

def stop(**_):
    x = torch.ones(8, requires_grad=True)
    sum(checkpoint(square, x, use_reentrant=False) for _ in range(2)).backward()

ctrs.cli.vectorize.VectorizeConfig = stop
sys.argv = ["ctrs", "vectorize", "mask.tif"]
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ")


def test_surprises_hide_the_traceback_unless_verbose(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("ctrs.cli.vectorize.VectorizeConfig", fail)
    assert program.main(["vectorize", "mask.tif"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: unexpected ZeroDivisionError: two lines; run again with --verbose")
    assert len(err.splitlines()) == 1
    assert program.main(["vectorize", "mask.tif", "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_one_bad_scene_does_not_cost_the_others_their_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ctrs.errors import RasterError
    from ctrs.inference import Predictor

    class Half:
        def predict_raster(self, scene: Path, mask: Path, *_: object, **__: object) -> Path:
            if "bad" in str(scene):
                raise RasterError("bad.tif: truncated")
            return mask

    monkeypatch.setattr(Predictor, "from_checkpoint", lambda *_, **__: Half())
    assert program.main(["predict", "bad.tif", "good.tif", "--model", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "good_mask.tif\n"
    assert "failed: bad.tif: truncated" in captured.err
    assert "error: 1 of 2 scenes have no mask, for the reasons above" in captured.err
    assert program.main(["predict", "bad.tif", "--model", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: bad.tif: truncated\n"


def test_console_json_goes_to_stdout_and_notes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    from ctrs.cli.console import Console

    console = Console(as_json=True, verbose=False, quiet=False)
    console.note("hello")
    console.result({"answer": 42}, lambda: pytest.fail("the table must not be shown"))
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"answer": 42}
    assert captured.err == "hello\n"


def test_plain_progress_opens_and_closes_each_phase(capsys: pytest.CaptureFixture[str]) -> None:
    from ctrs.cli.console import Console

    console = Console(as_json=False, verbose=False, quiet=False)
    with console.progress() as progress:
        for done in range(4):
            progress(done, 3, "tiling")
        progress(0, 2, "training")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tiling: 0/3"
    assert lines[1].startswith("tiling: 3/3, ")
    assert lines[2] == "training: 0/2"
    assert len(lines) == 3


def test_plain_progress_says_once_that_a_phase_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    from ctrs.cli.console import Console

    console = Console(as_json=False, verbose=False, quiet=False)
    with console.progress() as progress:
        for done in (0, 3, 3):
            progress(done, 3, "tiling")
        for _ in range(2):
            progress(1, 1, "scoring")
        progress(3, 3, "tiling")
    lines = [line.split(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["tiling: 0/3", "tiling: 3/3", "scoring: 1/1", "tiling: 3/3"]


def test_a_bar_begins_anew_with_the_next_run() -> None:
    import io

    from rich.console import Console as RichConsole
    from rich.progress import Progress

    from ctrs.cli.console import _RichPhases

    with Progress(console=RichConsole(file=io.StringIO(), force_terminal=True)) as bars:
        show = _RichPhases(bars)
        for run in (1, 2):
            for step in range(1, 4):
                show(step, 3, "training")
            assert [task.completed for task in bars.tasks if task.description == "training"] == [3]
            show(run, 2, "runs")
        show(1, 3, "training")
        assert [(task.description, task.completed) for task in bars.tasks] == [("runs", 2), ("training", 1)]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    from ctrs.cli.console import Console

    console = Console(as_json=False, verbose=False, quiet=True)
    with console.progress() as progress:
        progress(0, 2, "training")
    console.note("hello")
    assert capsys.readouterr().err == ""


def test_a_pattern_that_the_shell_expanded_is_told_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["prepare", "--images", "a.tif", "b.tif", "c.tif"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "(c.tif); quote patterns ('*.tif') so that the shell leaves them alone; see `ctrs prepare --help`" in line
