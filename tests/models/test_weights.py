from __future__ import annotations

import logging
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor

from ctrs.errors import CheckpointError, InputNotFoundError
from ctrs.models import create_encoder, create_model
from ctrs.models.weights import read_weights


def timm_weights(name: str) -> dict[str, Tensor]:
    torch.manual_seed(7)
    model = timm.create_model(name, pretrained=False)
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("backbone", ["pvt_v2_b0", "poolformer_s12", "resnet10t", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("form", ["safetensors", "pth"])
def test_weights_of_timms_whole_model_load(
    backbone: str, form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = timm_weights(backbone)
    path = tmp_path / f"weights.{form}"
    if form == "pth":
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, path)
    else:
        safetensors.torch.save_file(state, path)
    caplog.set_level(logging.INFO, "ctrs")
    encoder, _ = create_encoder(backbone, weights=str(path))
    loaded = encoder.state_dict()
    assert f"loaded {len(loaded)} of {len(loaded)} tensors" in caplog.text
    joined = {key.replace(".", "_", 1): value for key, value in state.items()} | state
    assert all(torch.equal(value, joined[key]) for key, value in loaded.items())


def test_first_layer_is_inflated_for_more_bands(tmp_path: Path) -> None:
    state = timm_weights("pvt_v2_b0")
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(state, path)
    encoder, _ = create_encoder("pvt", in_channels=5, weights=str(path))
    name = "patch_embed.proj.weight"
    assert torch.equal(encoder.state_dict()[name], adapt_input_conv(5, state[name]))
    torch.testing.assert_close(encoder.state_dict()[name][:, :3], state[name] * 3 / 5)


def test_encoder_of_a_checkpoint_of_ours(tmp_path: Path) -> None:
    model = create_model("pvt", num_classes=4)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    other = create_model("pvt", "unetformer", num_classes=2, weights=str(path))
    assert all(torch.equal(v, other.encoder.state_dict()[k]) for k, v in model.encoder.state_dict().items())


def test_names_of_the_original_authors_are_translated_by_timm(tmp_path: Path) -> None:
    # The original ConvNeXt: downsample_layers.0 is the stem, stages.S.B.dwconv a block's convolution.
    target = timm.create_model("convnext_atto", features_only=True, pretrained=False).state_dict()
    theirs = {
        "downsample_layers.0.0.weight": torch.full(target["stem_0.weight"].shape, 0.5),
        "stages.0.0.dwconv.weight": torch.full(target["stages_0.blocks.0.conv_dw.weight"].shape, 0.25),
    }
    path = tmp_path / "convnext.pth"
    torch.save({"model": theirs}, path)
    encoder, _ = create_encoder("convnext_atto", weights=str(path))
    state = encoder.state_dict()
    assert (state["stem_0.weight"] == 0.5).all()
    assert (state["stages_0.blocks.0.conv_dw.weight"] == 0.25).all()


def test_what_fits_is_loaded_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = timm_weights("pvt_v2_b0")
    name = next(iter(state))
    path = tmp_path / "part.safetensors"
    safetensors.torch.save_file({name: state[name], "stages.0.downsample.norm.weight": torch.zeros(3)}, path)
    encoder, _ = create_encoder("pvt", weights=str(path))
    assert torch.equal(encoder.state_dict()[name], state[name])
    (record,) = [entry for entry in caplog.records if entry.name == "ctrs.models.weights"]
    assert record.levelno == logging.WARNING
    assert "loaded 1 of" in record.getMessage()


def test_nothing_fits(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"layer": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"none of its 1 tensors fits pvt_v2_b0.*'layer', expected e.g."):
        create_encoder("pvt", weights=str(path))


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth", "text.pth"])
def test_broken_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "text.pth":
        path.write_text("no weights")
    elif name == "cut.pth":
        torch.save({"a": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:500])
    else:
        safetensors.torch.save_file({"a": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="no readable weights") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_pickles_are_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"model": Path("x")}, path)
    with pytest.raises(CheckpointError, match="no readable weights"):
        read_weights(path)


def test_files_without_tensors_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "empty.pth"
    torch.save({"epoch": 3}, path)
    with pytest.raises(CheckpointError, match="holds no named tensors"):
        read_weights(path)
    with pytest.raises(InputNotFoundError, match="no such file; expected imagenet, none, or"):
        create_encoder("pvt", weights="imagnet")
