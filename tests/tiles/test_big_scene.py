"""Scenes far larger than memory: the peak of a process of its own, and a kill in the middle of the work."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

GIGABYTE = 2**30
PLACED = {"transform": Affine(0.1, 0, 366000, 0, -0.1, 5808000), "crs": "EPSG:32633"}

SCAN = r"""
import json, re, sys
from pathlib import Path
from ctrs.config import PrepareConfig
from ctrs.tiles.findings import Findings
from ctrs.tiles.layout import find_layout
from ctrs.tiles.scan import scan
from ctrs.tiles.scenes import check_source

config = PrepareConfig(tile_px=int(sys.argv[2]))
ready = check_source(find_layout(Path(sys.argv[1]), config, Findings()), config, Findings())
found = scan(ready, Path(sys.argv[3]), write=True, workers=2)
facts = found.facts["a"]
# Not getrusage: its peak is, at first, that of the process which started this one.
peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({
    "peak": peak,
    "tiles": len(found.tiles), "kept": sum(tile.kept for tile in found.tiles),
    "coverage": facts.coverage, "label": facts.label_counts, "tiled": facts.tiled_counts,
}))
"""

PREPARE = r"""
import json, re, sys
from pathlib import Path
from ctrs.config import PrepareConfig
from ctrs.tiles import prepare_tiles

manifest = prepare_tiles(Path(sys.argv[1]), Path(sys.argv[3]), PrepareConfig(tile_px=int(sys.argv[2]), workers=2))
peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({"peak": peak, "kept": len(manifest.tiles), **manifest.facts["a"]}))
"""


def sparse_scene(root: Path, height: int, width: int, *, num_blocks: int, block: int = 512) -> int:
    """Write an RGB scene and a label of which most blocks are not stored; returns the pixels that are valid."""
    options = {
        "driver": "GTiff", "width": width, "height": height, "dtype": "uint8", "tiled": True, "blockxsize": block,
        "blockysize": block, "compress": "deflate", "sparse_ok": True, "bigtiff": "YES", **PLACED,
    }  # fmt: skip
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    texture = rng.integers(1, 255, (3, 1000, 1000)).astype(np.uint8)
    places = rng.choice((height // 1000) * (width // 1000), num_blocks, replace=False)
    with (
        rasterio.open(root / "images/a.tif", "w", **options, count=3, photometric="RGB", nodata=0) as image,
        rasterio.open(root / "labels/a.tif", "w", **options, count=1) as label,
    ):
        for place in places.tolist():
            row, col = divmod(place, width // 1000)
            window = Window(col * 1000, row * 1000, 1000, 1000)
            image.write(texture, window=window)
            label.write(np.ones((1, 500, 1000), np.uint8), window=Window(col * 1000, row * 1000, 1000, 500))
    return num_blocks * 1000 * 1000


def run(program: str, root: Path, out: Path, tile: int, timeout: float) -> dict[str, object]:
    code = [sys.executable, "-W", "ignore", "-c", program, str(root), str(tile), str(out)]
    done = subprocess.run(code, capture_output=True, text=True, check=True, timeout=timeout)
    found: dict[str, object] = json.loads(done.stdout)
    print(f"peak {int(found['peak']) / 2**20:.0f} MB")  # type: ignore[call-overload]
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is measured as Linux counts it")
@pytest.mark.parametrize(("tile", "block"), [(512, 512), (500, 512)])
def test_a_wide_scene_needs_less_than_a_gigabyte(tmp_path: Path, tile: int, block: int) -> None:
    valid = sparse_scene(tmp_path / "src", 3000, 100_000, num_blocks=40, block=block)
    found = run(SCAN, tmp_path / "src", tmp_path / "out", tile, 600)
    assert found["label"] == found["tiled"] == [valid // 2, valid // 2]
    assert found["peak"] < GIGABYTE  # type: ignore[operator]


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is measured as Linux counts it")
@pytest.mark.timeout(3600)
def test_a_scene_of_ten_thousand_megapixels_needs_less_than_a_gigabyte(tmp_path: Path) -> None:
    valid = sparse_scene(tmp_path / "src", 100_000, 100_000, num_blocks=200)
    found = run(PREPARE, tmp_path / "src", tmp_path / "out", 500, 3000)
    assert found["num_px"] == 100_000**2
    assert found["kept"] == 200 * 4
    assert found["coverage"] == [0, valid]
    assert found["label_counts"] == found["tiled_counts"] == [valid // 2, valid // 2]
    assert found["peak"] < GIGABYTE  # type: ignore[operator]


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
@pytest.mark.parametrize(("tile", "stride"), [(64, 64), (60, 40)])
def test_a_killed_process_goes_on_with_the_same_bytes(tmp_path: Path, tile: int, stride: int) -> None:
    valid = sparse_scene(tmp_path / "src", 1000, 2000, num_blocks=2, block=256)
    assert valid
    code = (
        "import sys; from pathlib import Path; from ctrs.tiles import prepare_tiles; "
        "from ctrs.config import PrepareConfig; prepare_tiles(Path('src'), Path(sys.argv[1]), "
        f"PrepareConfig(tile_px={tile}, stride_px={stride}, min_valid=0.3, workers=2))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    subprocess.run([*command, "whole/out"], cwd=tmp_path, check=True, timeout=300)
    images = tmp_path / "killed/.out.partial/images"
    for number in (60, 250):  # killed twice
        process = subprocess.Popen([*command, "killed/out"], cwd=tmp_path)
        deadline = time.monotonic() + 120
        while not images.is_dir() or len(os.listdir(images)) < number:  # noqa: PTH208
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed/out").exists()
    subprocess.run([*command, "killed/out"], cwd=tmp_path, check=True, timeout=300)
    assert digest(tmp_path / "killed/out") == digest(tmp_path / "whole/out")
