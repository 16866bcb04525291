"""The benchmarks run as they stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_what_prediction_costs(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    arguments = ["--quick", "--scenes", "900x700-collar-jpeg", "--growth", "700x700", "--times", "4", "--peers", ""]
    arguments += ["--threads", "1", "--precisions", "fp32,bf16", "--again", "0", "--json", str(out)]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "predict", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    (case,) = found["cases"]
    assert case["rounds"] == len(case["turns"]) == 2
    for precision in ("fp32", "bf16"):
        forward, predict = (case["sides"][f"{side} {precision}"] for side in ("forward", "predict"))
        assert predict["windows"] == forward["windows"] == predict["windows_allowed"] == 6
        parts = [turn[f"predict {precision}"] for turn in case["turns"]]
        for part in parts:
            assert part["opening"] + part["loop"] + part["finishing"] == pytest.approx(part["seconds"], abs=0.01)
        pairs = zip(parts, case["turns"], strict=True)
        ratios = [part["loop"] / turn[f"forward {precision}"]["seconds"] for part, turn in pairs]
        told = predict["loop_over_forward"]
        assert (told["low"], told["high"]) == (min(ratios), max(ratios))
        assert told["median"] == pytest.approx(sum(ratios) / 2)
        assert f"| predict {precision} | " in done.stdout
    assert set(found["growth"]["above_mib"]) == {"700", "2800"}
    assert "growth, MiB" in done.stdout
