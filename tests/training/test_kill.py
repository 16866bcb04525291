"""SIGKILL at any moment: a run that goes on ends with the weights of one that was never killed, bit for bit.

Runs are forked from one process that has imported torch, so that each kill costs a second and not ten. Some are killed
at chosen places (while a state, a checkpoint or a pointer is written, half way through a file), the others at random
moments.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ctrs
from ctrs.model_files import hash_weights

NUM_RANDOM = 10
PLACES = [  # function, which call of it, half: the file that it writes is left half-written
    ("ctrs.training.batch_step.optimize", 3, False),
    ("ctrs.training.resume.save_tensors", 2, True),
    ("ctrs.training.resume.sync", 1, False),
    ("ctrs.training.resume.sync", 5, False),
    ("ctrs.training.resume.sync", 6, False),
    ("ctrs.training.resume.write_text", 2, False),
    ("ctrs.training.resume.shutil.rmtree", 6, False),
    ("ctrs.training.trainer.append_metrics", 1, False),
    ("ctrs.models.checkpoint.save_tensors", 1, True),
    ("ctrs.models.checkpoint.save_tensors", 2, True),
    ("ctrs.jobs.PartialWork.publish", 1, False),
    ("ctrs.jobs.sync", 2, False),
    ("ctrs.training.trainer.draw", 1, False),
]
OPTIONS: dict[str, Any] = {
    "backbone": "test_convnext", "decoder": "dcfam", "loss": "cl", "epochs": 3, "batch_size": 4, "accumulate": 2,
    "crop": 32, "learning_rate": 3e-3, "schedule": "cosine", "drop_path": 0.2, "ema": 0.9, "patience": 3,
    "device": "cpu", "threads": 1, "log": [],
}  # fmt: skip


def weights_of(run: Path) -> dict[str, str]:
    files = ("last/model.safetensors", "best/model.safetensors", "heads.safetensors")
    return {name: hash_weights(run / name) for name in files}


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    measured = ("seconds", "images_per_second", "data_wait", "peak_memory_mb")
    return [{key: row[key] for key in row if key not in measured} for row in rows]


def forked(call: Callable[[], object]) -> int:
    """Call in a child process; return its id."""
    child = os.fork()
    if child == 0:
        try:
            call()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    return child


def kill_at(place: str, number: int, *, half: bool) -> None:
    """Let a function end this process at its call of that number, with half of a file written before if asked for."""
    import importlib

    parts = place.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            owner: Any = importlib.import_module(".".join(parts[:cut]))
            break
        except ModuleNotFoundError:
            continue
    for name in parts[cut:-1]:
        owner = getattr(owner, name)
    original, calls = getattr(owner, parts[-1]), 0

    def replaced(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            if half:
                original(*arguments, **options)
                content = arguments[0].read_bytes()
                arguments[0].write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, parts[-1], replaced)


def main(folder: Path) -> None:
    """Train a run in one piece and one in many, and write down where the pieces ended."""
    from ctrs.config import TrainConfig, from_mapping
    from ctrs.models.checkpoint import load_checkpoint
    from ctrs.training import train
    from ctrs.training.resume import read_state

    data, whole, killed = folder / "town", folder / "whole", folder / "killed"
    rng = random.Random(0)

    def go(run: Path, *, resume: bool = False, save_minutes: float = 1e-9, place: Any = None) -> Callable[[], object]:
        def call() -> None:
            if place is not None:
                kill_at(place[0], place[1], half=place[2])
            train(data, run, from_mapping(TrainConfig, {**OPTIONS, "save_minutes": save_minutes}), resume=resume)

        return call

    began = time.monotonic()
    _, status = os.waitpid(forked(go(whole, save_minutes=60)), 0)
    assert status == 0
    duration = time.monotonic() - began
    seen: list[dict[str, Any]] = []
    for number in range(len(PLACES) + NUM_RANDOM):
        place = PLACES[number] if number < len(PLACES) else None
        # Of those killed at random, some save after each step and some only now and then.
        save_minutes = 1e-9 if place or number % 2 else 0.05 / 60
        child = forked(go(killed, resume=number % 3 == 2 and killed.is_dir(), save_minutes=save_minutes, place=place))
        if place is None:
            time.sleep(rng.uniform(0.05, 0.8) * duration)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        state = read_state(killed / "resume")
        signalled = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        seen.append({"epoch": state.epoch, "step": state.step, "killed": signalled, "status": status})
        assert signalled or status == 0, place
        if (killed / "last").exists():
            load_checkpoint(killed / "last")
        if state.epoch == OPTIONS["epochs"] and number + 1 < len(PLACES) + NUM_RANDOM:
            _compare(whole, killed, go)  # it came to its end: the next ones begin anew
            killed = folder / f"killed-{number}"
    _compare(whole, killed, go)
    (folder / "seen.json").write_text(json.dumps(seen))


def _compare(whole: Path, killed: Path, go: Callable[..., Callable[[], object]]) -> None:
    _, status = os.waitpid(forked(go(killed, resume=True, save_minutes=60)), 0)
    assert status == 0
    assert weights_of(killed) == weights_of(whole)
    assert rows_of(killed) == rows_of(whole)
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}
    assert len(list((killed / "resume").iterdir())) == len(list((whole / "resume").iterdir()))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_sigkill_at_any_moment_changes_nothing(prepared: Any, tmp_path: Path) -> None:
    prepared(train=14, val=2)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(ctrs.__file__).parents[1])}
    process = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, str(tmp_path)], env=environment, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-4000:]
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert sum(entry["killed"] for entry in seen) >= 15, seen
    assert len({entry["step"] for entry in seen if entry["step"]}) >= 2, "no run was killed within an epoch"
    assert len({(entry["epoch"], entry["step"]) for entry in seen}) >= 6, seen


if __name__ == "__main__":
    main(Path(sys.argv[1]))
