"""Fixtures that every room may use: the real imagery where it is, and a way to run the program as a user does."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The machine's speed is no property of the code: a busy one must not fail an example. Examples are the same on each
# run, so that a red test is red for everybody; make soak looks for new ones.
settings.register_profile("ctrs", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, derandomize=False)
settings.load_profile("ctrs")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real imagery, from CTRS_TEST_DATA or ../shared/data."""
    folder = Path(os.environ.get("CTRS_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real imagery in {folder}; set CTRS_TEST_DATA")
    return folder


@pytest.fixture
def ask_qgis(tmp_path: Path) -> Callable[..., Any]:
    """Run a script in a Python that knows QGIS (this one, or the system's) and return its last line, read as JSON."""
    runtime = tmp_path / "qgis_runtime"
    runtime.mkdir(mode=0o700)
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "QT_QPA_PLATFORM": "offscreen",
        "XDG_RUNTIME_DIR": str(runtime),
    }  # fmt: skip

    def run(script: str, *arguments: Path) -> Any:
        for python in filter(shutil.which, (sys.executable, "/usr/bin/python3")):
            call = [python, "-c", f"import qgis.core\nprint('QGIS')\n{script}", *map(str, arguments)]
            answer = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False, env=environment)
            if answer.stdout.startswith("QGIS"):
                assert answer.returncode == 0, answer.stderr
                return json.loads(answer.stdout.splitlines()[-1])
        pytest.skip("QGIS, or its Python, is not installed")

    return run


@pytest.fixture(autouse=True)
def _same_random_numbers_in_any_order() -> None:
    """Seed torch before each test, so that no result depends on which tests ran before in the same process."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _library_logger_as_it_was() -> Iterator[None]:
    """Undo what a command run in this process does: its console listens to the library's logger for good."""
    logger = logging.getLogger("ctrs")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    with warnings.catch_warnings():
        yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


RunCtrs = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_ctrs(tmp_path: Path) -> RunCtrs:
    """Run ``ctrs ARGUMENTS`` in an empty folder, in a process of its own."""

    def run(*arguments: str | Path, cwd: Path | None = None, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ctrs", *map(str, arguments)],
            cwd=cwd or tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
