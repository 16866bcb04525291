"""What the tags of a mask say of its scene, its network and the options."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch

from ctrs.config import PredictConfig
from ctrs.inference import provenance
from ctrs.inference.provenance import (
    InputHash,
    describe_inputs,
    hash_weights,
    input_files,
    options_text,
    result_options,
)
from ctrs.model_files import hash_weights as hash_weight_file
from ctrs.models import create_model
from ctrs.models.checkpoint import save_module
from ctrs.raster.geotiff import open_raster
from ctrs.raster.mosaic_parts import join_parts
from ctrs.raster.names import archive_member


def write_scene(path: Path, seed: int = 0, *, left: float = 400000.0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (3, 64, 48), np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=64, width=48, dtype="uint8", crs="EPSG:32633",
        transform=rasterio.Affine(0.5, 0, left, 0, -0.5, 5800000),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


def write_vrt(path: Path, *parts: Path) -> Path:
    """A VRT over rasters of the same size side by side, as ``gdalbuildvrt`` writes it."""
    sources = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="1">{part.name}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="48" ySize="64"/>'
        f'<DstRect xOff="{48 * number}" yOff="0" xSize="48" ySize="64"/></SimpleSource>'
        for number, part in enumerate(parts)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="{48 * len(parts)}" rasterYSize="64"><GeoTransform>400000,0.5,0,5800000,0,-0.5'
        f'</GeoTransform><VRTRasterBand dataType="Byte" band="1">{sources}</VRTRasterBand></VRTDataset>'
    )
    return path


def identity(path: Path) -> str:
    with open_raster(path) as dataset, InputHash(input_files(dataset)) as digest:
        return digest.result()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_is_hashed_as_sha256sum_does(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "a.tif")
    for sidecar in ("a.tif.aux.xml", "a.tif.ovr", "a.tfw"):
        (tmp_path / sidecar).write_text(
            "" if sidecar.endswith("ovr") else "<PAMDataset/>" if "xml" in sidecar else "1\n" * 6
        )
    (tmp_path / "a.tif.ovr").unlink()
    if shutil.which("sha256sum"):
        printed = subprocess.run(["sha256sum", str(scene)], capture_output=True, text=True, check=True).stdout
        assert identity(scene) == f"sha256:{printed.split()[0]}"
    assert identity(scene) == f"sha256:{sha256(scene.read_bytes())}"


def test_the_hash_is_of_the_whole_file_whatever_the_size_of_the_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(np.random.default_rng(0).bytes(100_001))
    monkeypatch.setattr(provenance, "_CHUNK_BYTES", 1000)
    with InputHash([str(path)]) as digest:
        assert digest.result() == f"sha256:{sha256(path.read_bytes())}"


def test_a_vrt_is_hashed_with_what_stands_behind_it_also_through_another_vrt(tmp_path: Path) -> None:
    one, two = write_scene(tmp_path / "a.tif", 1), write_scene(tmp_path / "b.tif", 2)
    inner = write_vrt(tmp_path / "inner.vrt", one)
    outer = write_vrt(tmp_path / "outer.vrt", inner, two)
    lines = "".join(f"{sha256(path.read_bytes())}\n" for path in (outer, inner, one, two))
    before = identity(outer)
    assert before == f"sha256-files:{sha256(lines.encode())}"
    with open_raster(outer) as dataset:
        described = describe_inputs(dataset)
    assert [Path(row["path"]).name for row in described] == ["outer.vrt", "inner.vrt", "a.tif", "b.tif"]
    write_scene(one, 3)
    assert identity(outer) != before


def test_a_mosaic_in_memory_is_hashed_by_its_parts(tmp_path: Path) -> None:
    one, two = write_scene(tmp_path / "a.tif", 1), write_scene(tmp_path / "b.tif", 2, left=400024.0)
    mosaic = join_parts([one, two], name="town")
    lines = "".join(f"{sha256(path.read_bytes())}\n" for path in (one, two))
    assert identity(mosaic.path) == f"sha256-files:{sha256(lines.encode())}"


def test_members_of_an_archive_are_hashed_as_the_archive(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "a.tif")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(scene, "top/a.tif")
        archive.write(scene, "top/b.tif")
    expected = f"sha256:{sha256((tmp_path / 'a.zip').read_bytes())}"
    assert identity(archive_member(tmp_path / "a.zip", "top/a.tif")) == expected
    both = [archive_member(tmp_path / "a.zip", f"top/{name}.tif").as_posix() for name in "ab"]
    with InputHash(both) as digest:
        assert digest.result() == expected


class Server(BaseHTTPRequestHandler):
    """Tells of files without giving them."""

    tag = '"abc"'

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1234")
        if "tagged" in self.path:
            self.send_header("ETag", self.tag)
        self.end_headers()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"/vsicurl/http:/127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_files_of_a_server_are_known_by_what_it_tells(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def known(*names: str) -> str:
        with InputHash([f"{server}/{name}" for name in names]) as digest:
            return digest.result()

    first = known("tagged.tif?signature=1")
    assert first.startswith("etag:")
    assert known("tagged.tif?signature=2") == first
    monkeypatch.setattr(Server, "tag", '"other"')
    assert known("tagged.tif") != first
    plain = known("plain.tif?signature=1")
    assert plain.startswith("name:")
    assert known("plain.tif?signature=2") == plain
    assert known("tagged.tif", "plain.tif").startswith("name-files:")


def test_a_name_that_is_no_file_is_hashed_as_a_name() -> None:
    with InputHash(["/vsimem/x.tif"]) as digest:
        assert digest.result() == f"name:{sha256(b'x.tif')}"


def test_a_file_that_cannot_be_read_is_named_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(b"abc")

    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", broken)
    with InputHash([str(path)]) as digest:
        assert digest.result() == f"name:{sha256(b'x.tif')}"
    assert "not readable to its end" in caplog.text


def test_leaving_the_block_stops_the_thread(tmp_path: Path) -> None:
    path = tmp_path / "big.bin"
    with path.open("wb") as stream:
        stream.truncate(20 * 2**30)  # a sparse file: it would take 10 s
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), InputHash([str(path)]) as digest:
        raise KeyboardInterrupt
    assert time.monotonic() - began < 2
    assert not digest._thread.is_alive()
    with pytest.raises(RuntimeError, match="stopped"):
        digest.result()


def test_the_networks_hash_is_the_one_of_its_weight_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("test_convnext", "dcfam", num_classes=2, in_channels=3)
    save_module(tmp_path / "w.safetensors", model)
    expected = hash_weight_file(tmp_path / "w.safetensors")
    assert hash_weights(model) == expected
    assert hash_weights(model.to(memory_format=torch.channels_last)) == expected
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert hash_weights(model) != expected


SETTLED = {
    "window_px": 512,
    "overlap": 0.25,
    "batch_size": 2,
    "bidx": (1, 2, 3),
    "precision": "float32",
    "device": "cpu",
}


def test_only_options_that_change_the_mask_are_named() -> None:
    plain = result_options(PredictConfig(), {**SETTLED, "resize_factor": 1.0, "gsd_factor": 1.0, "area": None})
    assert plain == {**SETTLED, "bidx": [1, 2, 3], "blend": "hann"}
    beside = PredictConfig(
        confidence="margin", probabilities="uint8", style=True, stac=True, threads=3, max_memory=2**30, strict=True,
        resume=False, overwrite=True, creation_options=(("COMPRESS", "ZSTD"),), device="cpu", precision="fp32",
    )  # fmt: skip
    assert result_options(beside, {**SETTLED, "resize_factor": 1.0}) == plain


@pytest.mark.parametrize(
    "changes",
    [
        {"blend": "constant"}, {"tta": "d4"}, {"bounds": (0.0, 0.0, 1.0, 1.0)}, {"classes": ("building",)},
        {"thresholds": (("building", 0.6),)}, {"compile": True}, {"skip_unreadable": True},
    ],
)  # fmt: skip
def test_options_that_change_the_mask_are_named(changes: dict[str, object]) -> None:
    plain = result_options(PredictConfig(), SETTLED)
    found = result_options(PredictConfig(**changes), SETTLED)  # type: ignore[arg-type]
    assert found != plain
    assert json.loads(options_text(found)) == json.loads(json.dumps(found))


@pytest.mark.parametrize("changes", [{"gsd_factor": 0.5}, {"resize_factor": 1.024}, {"area": "ab"}, {"overlap": 0.0}])
def test_what_was_settled_is_named(changes: dict[str, object]) -> None:
    plain = {**SETTLED, "resize_factor": 1.0, "gsd_factor": 1.0, "area": None}
    found = result_options(PredictConfig(), {**plain, **changes})
    assert found == {**result_options(PredictConfig(), plain), **changes}
