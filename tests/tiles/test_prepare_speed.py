"""Preparing costs little more than reading and writing the same pixels, in processor time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "prepare_speed.py"


@pytest.mark.slow
def test_cutting_costs_little_more_than_a_plain_loop() -> None:
    command = [sys.executable, str(BENCHMARK), "--size", "3000", "--layout", "tiled", "--workers", "2", "--json"]
    done = subprocess.run([*command, "--repeat", "3"], capture_output=True, text=True, check=True, timeout=600)
    sides = json.loads(done.stdout)["tiled"]
    assert sides["cut"]["cpu_ratio"] < 2.0  # about 1.2 on a quiet machine
