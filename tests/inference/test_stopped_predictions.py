"""``ctrs predict`` as a process that is killed, stopped or out of disk: it goes on, and nothing is half-written."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from ctrs.classes import BUILDING_CLASSES
from ctrs.jobs import partial_dir
from ctrs.model_files import CheckpointMetadata
from ctrs.models import create_model, save_checkpoint
from ctrs.raster.bands import Bands

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")]

HEIGHT, WIDTH = 2600, 150
LIMIT_S = 600
"""How long a process may take that takes seconds by itself: other work may keep the machine busy."""
PROGRAM = """
import resource, sys, time
limit, pause = int(sys.argv.pop(1)), float(sys.argv.pop(1))
if limit:  # no file may grow beyond this, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from ctrs.inference import pixels
read = pixels.PixelStandardizer.__call__
def slowly(*arguments, **options):
    time.sleep(pause)
    return read(*arguments, **options)
pixels.PixelStandardizer.__call__ = slowly
from ctrs.cli.app import main
sys.argv[0] = "ctrs"
sys.exit(main())
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A run and a scene: rows are finished every few windows."""
    import torch

    folder = tmp_path_factory.mktemp("stopped")
    torch.manual_seed(0)
    model = create_model("test_convnext", "dcfam", num_classes=2, in_channels=3)
    bands = Bands(
        names=("red", "green", "blue"), dtype="uint8", low=(0,) * 3, high=(255,) * 3, mean=(99,) * 3, std=(50,) * 3
    )
    metadata = CheckpointMetadata(
        architecture=model.architecture, classes=BUILDING_CLASSES, bands=bands, window_px=64, overlap=0.25
    )
    save_checkpoint(folder / "run" / "best", model, metadata)
    pixels = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH)).astype(np.uint8)
    profile = {"driver": "GTiff", "width": WIDTH, "height": HEIGHT, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(folder / "scene.tif", "w", **profile, transform=Affine(0.2, 0, 5e5, 0, -0.2, 5e6)) as file:
        file.write(pixels)
    return folder


def command(work, out, *more, limit=0, pause=0.0):
    arguments = ["predict", str(work / "scene.tif"), "-m", str(work / "run"), "-o", str(out), *more]
    return [sys.executable, "-c", PROGRAM, str(limit), str(pause), *arguments]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


def run(arguments, **options):
    return subprocess.run(
        arguments, capture_output=True, text=True, check=False, timeout=LIMIT_S, env=environment(), **options
    )


def products(mask):
    """Bytes of each raster that stands under a final name beside the mask."""
    return {path.name.removeprefix(mask.stem.split("_")[0]): path.read_bytes() for path in mask.parent.glob("*.tif")}


@pytest.mark.parametrize("more", [(), ("--confidence", "margin", "--probabilities", "uint8")], ids=["mask", "all"])
def test_killed_at_any_moment_it_ends_with_the_same_bytes(work, tmp_path, more):
    whole = tmp_path / "whole" / "a_mask.tif"
    once = run(command(work, whole, *more))
    assert once.returncode == 0, once.stderr
    out = tmp_path / "killed" / "a_mask.tif"
    moments = random.Random(len(more))
    kills, finished_bands = 0, []
    while True:
        # Less and less slow, so that the last one gets through.
        process = subprocess.Popen(
            command(work, out, *more, pause=0.05 if kills < 5 else 0.0), stderr=subprocess.PIPE, env=environment()
        )
        started = time.monotonic()
        rows = partial_dir(out) / "rows"
        known = len(list(rows.rglob("*.tif")))
        while (
            kills < 5 and process.poll() is None and len(list(rows.rglob("*.tif"))) <= known
            and time.monotonic() - started < LIMIT_S
        ):  # fmt: skip
            time.sleep(0.01)
        if kills < 5:
            time.sleep(moments.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
        _, said = process.communicate(timeout=LIMIT_S)
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, said.decode()
            break
        kills += 1
        finished_bands.append(len(list(rows.rglob("*.tif"))))
        assert not products(out)
    assert kills >= 3
    assert finished_bands == sorted(finished_bands)
    assert finished_bands[-1] > finished_bands[0]
    assert "going on at row" in said.decode()
    assert products(out) == products(whole)
    assert not partial_dir(out).exists()


def test_sigterm_keeps_the_work_and_says_so(work, tmp_path):
    out = tmp_path / "a_mask.tif"
    process = subprocess.Popen(command(work, out, pause=0.05), stderr=subprocess.PIPE, text=True, env=environment())
    deadline = time.monotonic() + LIMIT_S
    while not list((partial_dir(out) / "rows").rglob("*.tif")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 143, said
    last = said.strip().splitlines()[-1]
    assert "stopped by SIGTERM" in last
    assert str(partial_dir(out)) in last
    assert not out.exists()
    again = run(command(work, out))
    assert again.returncode == 0, again.stderr
    assert "going on at row" in again.stderr


@pytest.mark.parametrize("room", ["the first rows", "the finished mask"])
def test_a_full_disk_is_one_clear_line_and_the_work_goes_on_later(work, tmp_path, room):
    whole = tmp_path / "whole" / "a_mask.tif"
    assert run(command(work, whole)).returncode == 0
    # Rows come in bands of some 256, the mask with its overviews at once.
    limit = 4096 if room == "the first rows" else whole.stat().st_size * 2 // 3
    out = tmp_path / "full" / "a_mask.tif"
    full = run(command(work, out, limit=limit))
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    last = full.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "not writable" in last
    assert "free space there or choose another place with -o" in last
    assert not out.exists()
    again = run(command(work, out))
    assert again.returncode == 0, again.stderr
    assert products(out) == products(whole)


def test_a_folder_that_may_not_be_written_is_one_clear_line(work, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    bound = []
    if os.geteuid() == 0:  # who may write anywhere, unless that right is taken away
        bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if shutil.which("setpriv") is None or run([*bound, "true"]).returncode:
            pytest.skip("root may write anywhere")
    refused = run([*bound, *command(work, closed / "a_mask.tif")])
    assert refused.returncode == 1, refused.stderr
    assert "Traceback" not in refused.stderr
    last = refused.stderr.strip().splitlines()[-1]
    assert last == f"error: {closed}: not writable (Permission denied); choose another place with -o"
    assert not list(closed.iterdir())


@pytest.fixture
def small_disk(tmp_path):
    """A function that makes a file system of so many bytes in memory, which only root may."""
    mounted = []

    def mount(size):
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here ({done.stderr.decode().strip()})")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("share", [0.3, 1.0, 1.7], ids=["rows", "mask", "overviews"])
def test_a_disk_that_is_really_full(work, tmp_path, small_disk, share):
    whole = tmp_path / "whole" / "a_mask.tif"
    assert run(command(work, whole)).returncode == 0
    disk = small_disk(int(whole.stat().st_size * share) // 4096 * 4096)
    out = disk / "a_mask.tif"
    full = run(command(work, out))
    assert full.returncode == 1, full.stderr
    assert "Traceback" not in full.stderr
    last = full.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert re.search(r"; [\d.]+ (B|kB) left there\); free space there or choose another place with -o", last)
    assert not products(out)
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    again = run(command(work, out))
    assert again.returncode == 0, again.stderr
    assert products(out) == products(whole)


@pytest.mark.soak  # minutes of compiling
def test_a_compiled_network_gives_the_same_mask(work, tmp_path):
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("compiling takes a C++ compiler")
    scene = tmp_path / "part.tif"
    with rasterio.open(work / "scene.tif") as file:
        pixels = file.read(window=((0, 300), (0, WIDTH)))
        with rasterio.open(scene, "w", **{**file.profile, "height": 300}) as part:
            part.write(pixels)
    found = {}
    for name, more in {"plain": (), "compiled": ("--compile",)}.items():
        out = tmp_path / name / "a_mask.tif"
        wanted = ["--precision", "fp32", "--probabilities", "float16", "--confidence", "margin", *more]
        arguments = ["predict", str(scene), "-m", str(work / "run"), "-o", str(out), *wanted]
        done = run([sys.executable, "-c", PROGRAM, "0", "0", *arguments])
        assert done.returncode == 0, done.stderr
        with rasterio.open(out) as file:
            found[name] = [file.read(1)]
        for beside in ("a_probabilities.tif", "a_confidence.tif"):
            with rasterio.open(out.with_name(beside)) as file:
                found[name].append(file.read().astype(np.float64))
    (plain, shares, margin), (compiled, compiled_shares, _) = found["plain"], found["compiled"]
    np.testing.assert_allclose(compiled_shares, shares, atol=1e-3)  # the steps of 16 bits
    sure = margin[0] / 65535 > 1e-3
    assert sure.mean() > 0.5
    np.testing.assert_array_equal(compiled[sure], plain[sure])
