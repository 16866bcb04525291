from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from ctrs.cli import app as program
from ctrs.errors import ExportError, OutputError, OutputExistsError, UsageError
from ctrs.inference import Predictor
from ctrs.inference import export as exporting
from ctrs.inference.export import export_onnx, export_program
from ctrs.inference.export_tags import misfits, plugin_tags
from ctrs.inference.exported_network import ExportedNetwork, as_input, expected_logits, input_range, trial_pixels
from ctrs.inference.onnx_file import read_onnx_tags
from ctrs.inference.program_file import TAGS_FILE, read_program_tags
from ctrs.models import BACKBONE_ALIASES, DECODERS, CheckpointMetadata, create_model, save_checkpoint
from ctrs.raster.bands import Bands
from tests.inference.conftest import make_bands, make_classes

SMALL = ("test_resnet", "segformer")
WINDOW = 40

REAL = Bands(
    names=("height",), dtype="float32", low=(-2.0,), high=(30.0,), mean=(6.0,), std=(4.0,), nodata=None
)  # fmt: skip


def save(folder: Path, network: tuple[str, str] = SMALL, *, bands: Bands | None = None, **changes: object) -> Path:
    bands = bands or make_bands(3)
    torch.manual_seed(1)
    model = create_model(*network, num_classes=3, in_channels=bands.count).eval()
    values: dict[str, object] = {"window_px": WINDOW, "overlap": 0.25, "pixel_size_m": 0.148, **changes}
    metadata = CheckpointMetadata(
        architecture=model.architecture,
        classes=make_classes(3),
        bands=bands,
        **values,  # type: ignore[arg-type]
    )
    save_checkpoint(folder, model, metadata)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "roofs")


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(checkpoint, tmp_path_factory.mktemp("out") / "roofs.onnx").path


def onnx_output(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["image"]
    return session.run(None, {"image": images.astype(np.float32)})[0]


def predicted(checkpoint: Path, pixels: np.ndarray) -> np.ndarray:
    """Return the probabilities by the way of ctrs predict."""
    predictor = Predictor.from_checkpoint(checkpoint, device="cpu", precision="fp32")
    return torch.from_numpy(predictor.array_logits(pixels)).softmax(0).numpy()


def test_tiles_as_geodeep_cuts_them_get_the_classes_of_predict(checkpoint: Path, exported: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (5, 3, WINDOW, WINDOW), dtype=np.uint8)
    found = onnx_output(exported, (pixels / 255.0).astype(np.float32))  # five at a time, as the batch axis is free
    assert found.dtype == np.float32
    expected = np.stack([predicted(checkpoint, part) for part in pixels])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.std() > 1e-3  # the classes do not come out alike


@pytest.mark.parametrize(
    ("dtype", "divided_by", "resize_factor"), [("uint16", 65535.0, 1.0), ("uint8", 255.0, 1.28), ("float32", 1.0, 1.0)]
)
def test_scaling_and_resizing_are_in_the_graph(
    dtype: str, divided_by: float, resize_factor: float, tmp_path: Path
) -> None:
    bands = REAL if dtype == "float32" else make_bands(4, dtype)
    folder = save(tmp_path / "model", bands=bands, resize_factor=resize_factor, window_px=50)
    result = export_onnx(folder, tmp_path / "x.onnx")
    pixels = trial_pixels(bands, 50, count=1)[0]
    if dtype == "float32":
        pixels[:, 3:9, 4:8] = np.nan
    assert input_range(dtype) == divided_by
    expected = predicted(folder, pixels)
    found = onnx_output(result.path, pixels[None] / divided_by)[0]
    assert found.shape == (3, 50, 50)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    tags = read_onnx_tags(result.path)
    # Deepness divides all values by 255, subtracts the mean and divides by the deviation.
    mean, std = json.loads(tags["standardization_mean"])[0], json.loads(tags["standardization_std"])[0]
    np.testing.assert_allclose((1234.0 / 255 - mean) / std, 1234.0 / divided_by)


class Returns(nn.Module):
    """A network whose logits are its input."""

    def forward(self, images: torch.Tensor) -> object:
        return types.SimpleNamespace(logits=images)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("resize_factor", [1.0, 1.28])
def test_input_is_standardized_as_in_training(dtype: str, resize_factor: float) -> None:
    bands = Bands(
        names=("a", "b"), dtype=dtype, low=(0.0, 10.0), high=(200.0, 90.0), mean=(80.0, 40.0), std=(30.0, 9.0)
    )  # fmt: skip
    pixels = trial_pixels(bands, 32, count=2)
    pixels[0, 0, 0, :4] = (0, 250, 3, 90)  # beyond low and high too
    metadata = types.SimpleNamespace(bands=bands, resize_factor=resize_factor)
    network = ExportedNetwork(Returns(), bands, resize_factor=resize_factor, output="logits")  # type: ignore[arg-type]
    found = network(torch.from_numpy(as_input(pixels))).numpy()
    expected = expected_logits(Returns(), metadata, pixels)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    if dtype == "uint8" and resize_factor == 1.0:
        plain = make_bands(2)
        same = ExportedNetwork(Returns(), plain, output="logits")  # type: ignore[arg-type]
        scaled = plain.standardize(plain.scale(pixels))
        assert np.array_equal(same(torch.from_numpy(as_input(pixels))).numpy(), scaled)  # bit for bit


def test_file_says_what_deepness_and_geodeep_read(exported: Path) -> None:
    tags = read_onnx_tags(exported)
    assert {key: json.loads(value) for key, value in tags.items() if not key.startswith("CTRS_")} == {
        "model_type": "Segmentor",
        "class_names": {"0": "class 0", "1": "class 1", "2": "class 2"},
        "resolution": 14.8,
        "tiles_size": WINDOW,
        "tiles_overlap": 25,
        "standardization_mean": [0.0, 0.0, 0.0],
        "standardization_std": [1.0, 1.0, 1.0],
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }
    assert [int(tags["tiles_overlap"]), int(tags["seg_small_segment"])] == [25, 0]  # GeoDeep's way
    assert [entry["color"] for entry in json.loads(tags["CTRS_CLASSES"])] == [[i, 100, 200] for i in range(3)]
    assert len(tags["CTRS_MODEL"]) == 64


def test_file_has_one_free_axis_and_no_notes_on_the_machine(exported: Path) -> None:
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    (image,), (output,) = model.graph.input, model.graph.output
    shapes = [[dim.dim_param or dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in (image, output)]
    assert shapes == [["batch", 3, WINDOW, WINDOW], ["batch", 3, WINDOW, WINDOW]]
    assert output.name == "probabilities"
    assert b".py" not in exported.read_bytes()


def test_same_model_gives_the_same_bytes_and_is_not_written_twice(
    checkpoint: Path, exported: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.onnx"
    assert export_onnx(checkpoint, again).difference is not None
    assert again.read_bytes() == exported.read_bytes()
    written = again.stat().st_mtime_ns
    assert export_onnx(checkpoint, again).difference is None
    assert again.stat().st_mtime_ns == written
    with pytest.raises(OutputExistsError, match="result of other inputs or options"):
        export_onnx(checkpoint, again, output="logits")
    assert again.read_bytes() == exported.read_bytes()
    assert export_onnx(checkpoint, again, output="logits", overwrite=True).difference < 1e-4  # type: ignore[operator]
    assert onnx.load(again).graph.output[0].name == "logits"
    assert [entry.name for entry in tmp_path.iterdir()] == ["again.onnx"]


def test_archive_runs_without_ctrs(checkpoint: Path, tmp_path: Path) -> None:
    first, second = (export_program(checkpoint, tmp_path / f"{name}.pt2") for name in "ab")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.misfits == ()
    pixels = trial_pixels(make_bands(3), WINDOW, count=3)
    extra = {TAGS_FILE: ""}
    network = torch.export.load(first.path, extra_files=extra).module()
    found = network(torch.from_numpy(as_input(pixels))).detach().numpy()
    np.testing.assert_allclose(found, np.stack([predicted(checkpoint, part) for part in pixels]), atol=1e-5)
    tags = json.loads(extra[TAGS_FILE])
    assert tags["class_names"] == '{"0": "class 0", "1": "class 1", "2": "class 2"}'
    assert tags == read_program_tags(first.path)
    assert export_program(checkpoint, first.path).difference is None
    names = [node.meta for node in torch.export.load(first.path).graph.nodes if node.meta.get("stack_trace")]
    assert names == []


@pytest.mark.parametrize(("export", "name"), [(export_onnx, "x.onnx"), (export_program, "x.pt2")])
def test_file_that_computes_something_else_is_not_published(
    export: object, name: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = exporting.capture

    def capture_other(network: ExportedNetwork, example: torch.Tensor, **_: object) -> object:
        network.mean = network.mean + 0.01
        return capture(network, example)

    monkeypatch.setattr(exporting, "capture", capture_other)
    with pytest.raises(ExportError, match=r"test_resnet with segformer was not exported to x\.\w+: results differ"):
        export(checkpoint, tmp_path / name)  # type: ignore[operator]
    assert list(tmp_path.iterdir()) == []


def test_network_that_cannot_be_captured_is_refused_in_one_line(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: ExportedNetwork, image: torch.Tensor) -> torch.Tensor:
        return image.softmax(1) if image.sum() > 0 else image

    monkeypatch.setattr(ExportedNetwork, "forward", forward)
    with pytest.raises(ExportError, match=r"torch \S+ cannot capture it \(\w+: ") as caught:
        export_onnx(checkpoint, tmp_path / "x.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_nothing(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_onnx", full)
    with pytest.raises(OutputError, match=r"x\.onnx: cannot be written \(No space left on device\)"):
        export_onnx(checkpoint, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_other_programs_cannot_do_is_said() -> None:
    def told(bands: Bands, **changes: object) -> str:
        return "; ".join(misfits(types.SimpleNamespace(bands=bands, **{"pixel_size_m": 0.1, **changes})))  # type: ignore[arg-type]

    assert told(make_bands(3)) == ""
    assert "takes three bands, this network 4" in told(make_bands(4))
    assert "values below 0" in told(make_bands(3, "int16"))
    assert "each tile's own extremes" in told(REAL)
    assert "no resolution" in told(make_bands(3), pixel_size_m=None)


def test_unknown_ground_pixel_leaves_the_resolution_out() -> None:
    row = types.SimpleNamespace(bands=make_bands(3), classes=make_classes(3), overlap=0.5, pixel_size_m=None)
    assert "resolution" not in plugin_tags(row, window_px=64)  # type: ignore[arg-type]


def test_command_writes_into_the_run_and_tells_the_difference(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["export", str(checkpoint), "--pt2", "--window", "32", "--json"]) == 0
    captured = capsys.readouterr()
    (row,) = json.loads(captured.out)["written"]
    assert Path(row["path"]) == checkpoint / "roofs.pt2"
    assert row["window_px"] == 32
    assert row["difference"] < 1e-4
    assert "roofs.pt2: windows of 32 px; its results differ from the model's by" in captured.err
    (checkpoint / "roofs.pt2").unlink()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "no format given; pass --onnx, --pt2 or both"),
        (["--onnx", "--pt2", "-o", "x.onnx"], "--out names one file"),
        (["--pt2", "--window", "8"], "--window 8 found, expected 32 to 8192"),
        (["--pt2", "-o", "."], ".: is a folder; name a file with -o"),
    ],
)
def test_wrong_usage(arguments: list[str], part: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["export", str(checkpoint), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_package_is_named_with_the_remedy(
    name: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"--onnx needs {name}, .*pip install 'ctrs\[export\]'"):
        export_onnx(checkpoint, tmp_path / "x.onnx")


@pytest.mark.parametrize(("export", "name"), [(export_onnx, "x.onnx"), (export_program, "x.pt2")])
def test_each_step_is_told(export: Any, name: str, checkpoint: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    export(checkpoint, tmp_path / name, progress=lambda *step: told.append(step))
    steps = ["reading the model", "capturing the network", "writing it", "running what was written"]
    steps.append("comparing it with the model")
    assert told == [(done, 1, f"{name}: {step}") for step in steps for done in (0, 1)]
    export(checkpoint, tmp_path / name, progress=lambda *_: pytest.fail("there is nothing to do"))


def test_the_command_says_what_it_is_doing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["export", str(checkpoint), "--pt2", "-o", str(tmp_path / "x.pt2")]) == 0
    captured = capsys.readouterr()
    assert "x.pt2: capturing the network: 0/1\n" in captured.err
    assert captured.out == f"{tmp_path / 'x.pt2'}\n"


def _round_trip(network: tuple[str, str], folder: Path) -> None:
    result = export_onnx(save(folder / "model", network, window_px=70), folder / "x.onnx")
    assert result.difference is not None
    assert result.difference <= 1e-4


def _marked(names: Iterable[str], *slow: str) -> list[Any]:
    """The slow lane has time for a few; the soak takes all."""
    return [pytest.param(name, marks=pytest.mark.slow if name in slow else pytest.mark.soak) for name in names]


@pytest.mark.parametrize("backbone", _marked(BACKBONE_ALIASES, "poolformer", "convnext", "swin"))
def test_every_backbone(backbone: str, tmp_path: Path) -> None:
    _round_trip((backbone, "unetformer"), tmp_path)


@pytest.mark.parametrize("decoder", _marked(DECODERS, "dcfam", "upernet", "deeplabv3plus"))
def test_every_decoder(decoder: str, tmp_path: Path) -> None:
    _round_trip(("resnet18", decoder), tmp_path)
