from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ctrs
from ctrs import jobs
from ctrs.classes import ClassMap, LandClass
from ctrs.errors import CheckpointError, CtrsError, InputNotFoundError, OutputError
from ctrs.model_files import hash_weights, tensor_sizes
from ctrs.models import (
    CheckpointMetadata,
    ProjectionHead,
    SegmentationModel,
    create_model,
    load_checkpoint,
    load_module,
    read_metadata,
    save_checkpoint,
    save_module,
)
from ctrs.models.checkpoint import hash_tensors, save_tensors
from ctrs.raster.bands import Bands


def make(
    backbone: str = "pvt", decoder: str = "unetformer", num_classes: int = 3
) -> tuple[SegmentationModel, CheckpointMetadata]:
    torch.manual_seed(0)
    model = create_model(backbone, decoder, num_classes=num_classes, in_channels=4)
    classes = tuple(LandClass(value=i, name=f"class {i}", color=(i, 0, 0)) for i in range(num_classes))
    bands = Bands(
        names=("red", "green", "blue", "nir"),
        dtype="uint16",
        low=(0.0,) * 4,
        high=(1000.5, 2000.0, 3000.0, 4000.0),
        mean=(100.25, 200.0, 300.0, 400.0),
        std=(10.0, 20.0, 30.0, 40.0),
        nodata=0.0,
    )
    return model, CheckpointMetadata(
        architecture=model.architecture,
        classes=ClassMap(classes=classes),
        bands=bands,
        window_px=500,
        overlap=0.25,
        pixel_size_m=0.05,
        resize_factor=512 / 500,
        recipe="ct-paper",
        config={"loss": "cl", "data": Path("prepared/town"), "contrast": {"stages": (0, 1)}},
        data={"name": "town", "split_hash": "abc"},
        metrics={"mean_iou": 0.5, "iou_car": float("nan")},
        epoch=7,
    )


@pytest.fixture(scope="module")
def made() -> tuple[SegmentationModel, CheckpointMetadata]:
    return make()


@pytest.fixture
def saved(made: tuple[SegmentationModel, CheckpointMetadata], tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "best"
    save_checkpoint(folder, *made)
    return folder


@pytest.mark.parametrize(
    ("backbone", "decoder"),
    [
        ("pvt", "unetformer"),
        ("swin", "dcfam"),
        ("resnet10t", "upernet"),
        ("resnet10t", "deeplabv3plus"),
        ("eva02_tiny_patch14_224", "fpn"),
        ("dinov2", "unetformer"),
    ],
)
def test_the_same_logits_bit_for_bit(backbone: str, decoder: str, tmp_path: Path) -> None:
    model, metadata = make(backbone, decoder)
    model(torch.randn(2, 4, 64, 64))  # moves the running statistics
    save_checkpoint(tmp_path / "best", model, metadata)
    images = torch.randn(1, 4, 50, 70)
    loaded, _ = load_checkpoint(tmp_path / "best")
    with torch.no_grad():
        assert torch.equal(loaded(images).logits, model.eval()(images).logits)
    assert not loaded.training


def test_channels_last_models_are_saved(tmp_path: Path) -> None:
    model, metadata = make()
    model = model.to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "best", model, metadata)
    loaded, _ = load_checkpoint(tmp_path / "best")
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in model.state_dict().items())


def test_metadata_survive(made: tuple[SegmentationModel, CheckpointMetadata], saved: Path) -> None:
    _, metadata = made
    _, found = load_checkpoint(saved)
    assert (found.classes, found.bands, found.architecture) == (metadata.classes, metadata.bands, metadata.architecture)
    assert (found.window_px, found.overlap, found.pixel_size_m, found.epoch) == (500, 0.25, 0.05, 7)
    assert found.resize_factor == 512 / 500
    assert found.config == {"loss": "cl", "data": "prepared/town", "contrast": {"stages": [0, 1]}}
    assert found.metrics == {"mean_iou": 0.5, "iou_car": None}
    assert {"ctrs", "torch", "timm"} <= found.versions.keys()
    text = (saved / "model.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["format_version"] == 2
    assert read_metadata(saved.parent) == found


def test_run_folder_checkpoint_folder_and_file(saved: Path) -> None:
    for path in (saved.parent, saved, saved / "model.safetensors"):
        assert load_checkpoint(path)[1].epoch == 7


def test_last_serves_where_there_is_no_best(made: tuple[SegmentationModel, CheckpointMetadata], tmp_path: Path) -> None:
    model, metadata = made
    save_checkpoint(tmp_path / "last", model, replace(metadata, epoch=9))
    assert read_metadata(tmp_path).epoch == 9
    save_checkpoint(tmp_path / "best", model, metadata)
    assert read_metadata(tmp_path).epoch == 7


def test_loading_leaves_the_random_numbers_alone(saved: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load_checkpoint(saved)
    assert torch.equal(torch.rand(3), expected)


def test_saving_replaces(made: tuple[SegmentationModel, CheckpointMetadata], saved: Path) -> None:
    model, metadata = made
    save_checkpoint(saved, model, replace(metadata, epoch=8))
    assert read_metadata(saved).epoch == 8
    assert sorted(path.name for path in saved.parent.iterdir()) == ["best"]
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "model.safetensors"]


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_others_may_read_as_the_umask_says(
    made: tuple[SegmentationModel, CheckpointMetadata], tmp_path: Path, umask: int
) -> None:
    heads = tmp_path / "heads.safetensors"
    save_checkpoint(tmp_path / "best", *made)
    jobs.partial_dir(heads).touch(mode=0o600)  # what a kill leaves
    save_module(heads, ProjectionHead(4))
    for path in (*(tmp_path / "best").iterdir(), heads):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask, path


def test_a_failed_save_keeps_the_old_one(
    made: tuple[SegmentationModel, CheckpointMetadata], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OutputError, match=r"best: cannot be written .*No space left"):
        save_checkpoint(saved, *made)
    monkeypatch.undo()
    assert load_checkpoint(saved)[1].epoch == 7


def test_a_kill_while_replacing_leaves_a_best_one(
    made: tuple[SegmentationModel, CheckpointMetadata], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, metadata = made
    rename = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if Path(target) == saved:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved, model, replace(metadata, epoch=8))
    monkeypatch.undo()
    assert not saved.exists()
    assert load_checkpoint(saved.parent)[1].epoch == 7
    monkeypatch.setattr("safetensors.torch.save_file", lambda *args, **options: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OutputError):
        save_checkpoint(saved, *made)
    monkeypatch.undo()
    assert load_checkpoint(saved)[1].epoch == 7
    save_checkpoint(saved, model, replace(metadata, epoch=9))
    assert load_checkpoint(saved)[1].epoch == 9
    assert not jobs.partial_dir(saved).exists()


def test_missing_checkpoints(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(InputNotFoundError, match="no such run or checkpoint"):
        load_checkpoint(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputNotFoundError, match=r"no checkpoint there \(model.json expected"):
        load_checkpoint(tmp_path / "empty")
    (saved / "model.safetensors").unlink()
    with pytest.raises(InputNotFoundError, match=r"holds model.json but no model.safetensors"):
        load_checkpoint(saved.parent)


def edit(saved: Path, **changes: object) -> None:
    file = saved / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "lightning"}, "a checkpoint of another kind .kind 'lightning' found"),
        ({"kind": None}, "a checkpoint of another kind .no kind found"),
        ({"format_version": 3}, "format_version 3 found, this ctrs .* reads up to 2; install a newer ctrs"),
        ({"format_version": None}, "format_version None found"),
        ({"window": 3}, "not a whole description .*window"),
        ({"architecture": {"backbone": "pvt_v2_b0"}}, "not a whole description .*decoder"),
        ({"classes": []}, "not a whole description .*0 classes"),
        (
            {"architecture": {"backbone": "gone_net", "decoder": "dcfam", "num_classes": 3, "in_channels": 4}},
            "the network can't be built .backbone 'gone_net' is unknown",
        ),
        (
            {"architecture": {"backbone": "pvt_v2_b0", "decoder": "fpn", "num_classes": 3, "in_channels": 4}},
            r"belongs to another network \(\d+ tensors missing, e.g. decoder",
        ),
        (
            {"architecture": {"backbone": "pvt_v2_b1", "decoder": "unetformer", "num_classes": 3, "in_channels": 4}},
            "tensors of another shape|belongs to another network",
        ),
        (
            {"architecture": {"backbone": "pvt_v2_b0", "decoder": "unetformer", "num_classes": 2, "in_channels": 4}},
            "class table has 3 classes, but the network 2",
        ),
    ],
)
def test_descriptions_that_cannot_serve(changes: dict[str, object], message: str, saved: Path) -> None:
    edit(saved, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2]", "{", ""])
def test_other_json_and_broken_json(text: str, saved: Path) -> None:
    (saved / "model.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"another kind|not readable as JSON"):
        load_checkpoint(saved)


@pytest.mark.parametrize("size", [0, 4, 1000, -100])
def test_truncated_weights(size: int, saved: Path) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="broken or incomplete") as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


def test_metadata_of_another_model_are_refused(
    made: tuple[SegmentationModel, CheckpointMetadata], tmp_path: Path
) -> None:
    other = create_model("pvt", "fpn", num_classes=3, in_channels=4)
    with pytest.raises(CheckpointError, match=r"metadata describe .*unetformer.* but the model is .*fpn"):
        save_checkpoint(tmp_path / "best", other, made[1])
    assert not (tmp_path / "best").exists()


def test_metadata_must_agree_with_themselves(made: tuple[SegmentationModel, CheckpointMetadata]) -> None:
    _, metadata = made
    three = Bands(names=("r", "g", "b"), dtype="uint8", low=(0,) * 3, high=(255,) * 3, mean=(1,) * 3, std=(1,) * 3)
    with pytest.raises(CheckpointError, match="3 bands, but the network takes 4"):
        replace(metadata, bands=three)


def test_heads_are_saved_beside_the_model(tmp_path: Path) -> None:
    path = tmp_path / "heads.safetensors"
    heads = torch.nn.ModuleList([ProjectionHead(4), ProjectionHead(8)])
    save_module(path, heads)
    others = torch.nn.ModuleList([ProjectionHead(4), ProjectionHead(8)])
    load_module(path, others)
    assert all(torch.equal(a, b) for a, b in zip(heads.parameters(), others.parameters(), strict=True))
    assert [entry.name for entry in tmp_path.iterdir()] == ["heads.safetensors"]
    with pytest.raises(CheckpointError, match=r"1 tensors of another shape|tensors of another shape"):
        load_module(path, torch.nn.ModuleList([ProjectionHead(5), ProjectionHead(8)]))
    with pytest.raises(OutputError, match="cannot be written"):
        save_module(tmp_path / "no" / "heads.safetensors", heads)
    with pytest.raises(InputNotFoundError, match="no such file"):
        load_module(tmp_path / "gone.safetensors", heads)


def test_all_errors_are_ours() -> None:
    assert issubclass(CheckpointError, CtrsError)


def test_a_single_weight_file_serves_under_any_name(
    made: tuple[SegmentationModel, CheckpointMetadata], saved: Path, tmp_path: Path
) -> None:
    lone = tmp_path / "roofs.safetensors"
    shutil.copy(saved / "model.safetensors", lone)
    loaded, found = load_checkpoint(lone)
    model, _ = made
    images = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images).logits, model.eval()(images).logits)
    whole = read_metadata(saved)
    assert found == whole.for_header()
    assert (found.weights_hash, found.bands, found.epoch) == (whole.weights_hash, whole.bands, 7)
    (saved / "model.json").unlink()
    for path in (saved, saved.parent, saved / "model.safetensors"):
        assert load_checkpoint(path)[1] == found


def test_equal_runs_write_equal_weight_files(
    made: tuple[SegmentationModel, CheckpointMetadata], tmp_path: Path
) -> None:
    model, metadata = made
    for name, seconds in (("a", 1.0), ("b", 2.0)):
        save_checkpoint(tmp_path / name, model, replace(metadata, metrics={"mean_iou": 0.5, "seconds": seconds}))
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert files[0] == files[1]
    assert read_metadata(tmp_path / "b").metrics["seconds"] == 2.0


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("place", [0.05, 0.5, 0.999])
def test_a_flipped_bit_in_the_weights_is_found(place: float, beside: bool, saved: Path) -> None:
    file = saved / "model.safetensors"
    data = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    data[header + int(place * (len(data) - header))] ^= 1
    file.write_bytes(data)
    if not beside:
        (saved / "model.json").unlink()
    with pytest.raises(CheckpointError, match=r"not the weights that .* describes .*their hash differs") as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


def test_a_changed_description_in_the_header_is_found(saved: Path) -> None:
    file = saved / "model.safetensors"
    data = file.read_bytes()
    (saved / "model.json").unlink()
    file.write_bytes(data.replace(b"100.25", b"100.26", 1))
    with pytest.raises(CheckpointError, match=r"broken \(the description in its header was changed\)"):
        read_metadata(saved)


def test_files_of_two_runs_are_told_apart(saved: Path, tmp_path: Path) -> None:
    model, metadata = make()
    with torch.no_grad():
        next(model.parameters()).add_(1)
    save_checkpoint(tmp_path / "other", model, metadata)
    shutil.copy(tmp_path / "other" / "model.safetensors", saved / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"keep model.safetensors and model.json of one run together"):
        load_checkpoint(saved)


def test_checkpoints_of_format_1_are_read(saved: Path, made: tuple[SegmentationModel, CheckpointMetadata]) -> None:
    file = saved / "model.json"
    row = json.loads(file.read_text())
    for key in ("weights_hash", "protocol", "init", "created"):
        del row[key]
    file.write_text(json.dumps(row | {"format_version": 1}))
    save_tensors(saved / "model.safetensors", {name: value.clone() for name, value in made[0].state_dict().items()})
    loaded, metadata = load_checkpoint(saved)
    assert (metadata.format_version, metadata.weights_hash) == (1, None)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in made[0].state_dict().items())
    save_checkpoint(saved, loaded, metadata)
    assert read_metadata(saved).format_version == 2
    file.write_text(json.dumps(row))
    with pytest.raises(CheckpointError, match="hash differs"):
        load_checkpoint(saved)


def test_the_hash_is_that_of_the_file(saved: Path, made: tuple[SegmentationModel, CheckpointMetadata]) -> None:
    file = saved / "model.safetensors"
    stored = read_metadata(saved).weights_hash
    assert stored == hash_weights(file) == hash_tensors(made[0].state_dict())
    strange = {"b": torch.ones(2, 3, dtype=torch.bfloat16), "a": torch.tensor(3), "e": torch.empty(0, 2)}
    save_tensors(file, strange)
    assert hash_weights(file) == hash_tensors(strange) != stored
    assert tensor_sizes(file) == {"a": 1, "b": 6, "e": 0}


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"weights.pth: not a model of ctrs.*--weights"):
        load_checkpoint(tmp_path / "weights.pth")
    for data in (b"", b"\xff" * 16, b"\x10" + b"\0" * 7 + b"{}", b"\x02" + b"\0" * 7 + b"[]"):
        (tmp_path / "x.safetensors").write_bytes(data)
        with pytest.raises(CheckpointError, match=r"x.safetensors: broken or incomplete"):
            read_metadata(tmp_path / "x.safetensors")


def test_nothing_is_unpickled() -> None:
    package = Path(ctrs.__file__).parent
    sources = {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    lines = [(name, line.strip()) for name, text in sources.items() for line in text.splitlines()]
    unsafe = re.compile(
        r"\b(torch|[Ff]abric|strategy|joblib|dill|cloudpickle|shelve)\.(load|save|open|save_checkpoint|load_checkpoint)\("
        r"|allow_pickle=True|weights_only=False|\bread_pickle\(|\bto_pickle\("
        r"|^from (torch|torch\.serialization|joblib|dill|cloudpickle|pickle|shelve) import .*\b(load|save|dump|open)"
    )
    loads = [(name, line) for name, line in lines if unsafe.search(line)]
    assert loads == [("models/weights.py", 'found = torch.load(path, map_location="cpu", weights_only=True)')]
    importing = re.compile(r"^(import|from) (pickle|joblib|dill|cloudpickle|shelve|marshal)\b")
    assert [name for name, line in lines if importing.search(line)] == ["models/weights.py"]  # for its error
    pickles = re.compile(r"\bpickle\.(loads?|dumps?|Unpickler|Pickler)\b")
    calls = [name for name, text in sources.items() if pickles.search(text)]
    assert calls == []
