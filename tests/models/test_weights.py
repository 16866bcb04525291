from __future__ import annotations

import logging
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
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


def inflated(weight: Tensor, bands: int) -> Tensor:
    """The rule of timm: one band sums the three, more repeat them and share their strength."""
    if bands == 1:
        return weight.sum(1, keepdim=True)
    return torch.stack([weight[:, i % 3] for i in range(bands)], 1) * (3 / bands)


FIRST_LAYERS = {
    "poolformer_s12": ("stem.conv.weight", "stem.conv.weight"),
    "swin_tiny_patch4_window7_224": ("patch_embed.proj.weight", "patch_embed.proj.weight"),
    "convnext_atto": ("stem.0.weight", "stem_0.weight"),
    "resnet10t": ("conv1.0.weight", "conv1.0.weight"),
    "resnet18": ("conv1.weight", "conv1.weight"),
    "hrnet_w18_small": ("conv1.weight", "conv1.weight"),
    "pvt_v2_b0": ("patch_embed.proj.weight", "patch_embed.proj.weight"),
    "caformer_s18": ("stem.conv.weight", "stem.conv.weight"),
    "vit_tiny_patch16_224": ("patch_embed.proj.weight", "trunk.model.patch_embed.proj.weight"),
}


LARGE = ("swin_tiny_patch4_window7_224", "caformer_s18", "hrnet_w18_small")


@pytest.mark.parametrize(
    "backbone", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in FIRST_LAYERS]
)
def test_first_layer_is_inflated_for_one_to_twenty_bands(backbone: str, tmp_path: Path) -> None:
    theirs, ours = FIRST_LAYERS[backbone]
    state = timm_weights(backbone)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(state, path)
    for bands in (1, 3, 4, 20):
        encoder, _ = create_encoder(backbone, in_channels=bands, weights=str(path))
        loaded = encoder.state_dict()
        torch.testing.assert_close(loaded[ours], inflated(state[theirs], bands) if bands != 3 else state[theirs])
        with torch.no_grad():
            maps = encoder.eval()(torch.randn(1, bands, 32, 64))
        assert len(maps) == 4
        assert all(m.isfinite().all() for m in maps)


def same_image_in_bands(bands: int) -> Tensor:
    """Bands that repeat three colours; the network must see what it saw of the three."""
    colors = torch.randn(1, 3, 64, 64)
    if bands == 1:
        return colors[:, :1]
    return torch.stack([colors[:, i % 3] for i in range(bands)], 1)


@pytest.mark.parametrize("bands", [6, 9])
def test_repeated_bands_give_what_three_gave(bands: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(timm_weights("pvt_v2_b0"), path)
    images = same_image_in_bands(bands)
    with torch.no_grad():
        three, _ = create_encoder("pvt", weights=str(path))
        many, _ = create_encoder("pvt", in_channels=bands, weights=str(path))
        for a, b in zip(three.eval()(images[:, :3]), many.eval()(images), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_patches_of_14_px_are_resampled_to_16(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = timm_weights("vit_small_patch14_dinov2")
    state["pos_embed"] = torch.zeros_like(state["pos_embed"])
    grid = torch.linspace(-1, 1, 37)
    state["pos_embed"][0, 1:, 0] = grid.repeat(37)  # rises along columns
    state["pos_embed"][0, 1:, 1] = grid.repeat_interleave(37)  # rises along rows
    path = tmp_path / "dinov2.pth"
    torch.save(state | {"mask_token": torch.zeros(1, 384)}, path)  # as its authors publish it
    caplog.set_level(logging.INFO, "ctrs")
    encoder, _ = create_encoder("dinov2", in_channels=4, weights=str(path))
    loaded = {name.removeprefix("trunk.model."): value for name, value in encoder.state_dict().items()}
    trunk = [name for name in encoder.state_dict() if name.startswith("trunk.")]
    (record,) = [entry for entry in caplog.records if entry.name == "ctrs.models.weights"]
    assert f"loaded {len(trunk)} of" in record.getMessage()
    assert record.levelno == logging.INFO  # no file of others holds the pyramid

    place = loaded["pos_embed"][0, 1:].view(32, 32, -1)
    torch.testing.assert_close(place[..., 0], place[:1, :, 0].expand(32, 32), rtol=0, atol=1e-4)
    torch.testing.assert_close(place[..., 1], place[:, :1, 1].expand(32, 32), rtol=0, atol=1e-4)
    assert (place[0, 1:, 0] > place[0, :-1, 0]).all()
    assert place[0, 0, 0].item() == pytest.approx(-1, abs=0.05)

    # A patch enlarged from 14 to 16 px has the embedding that it had.
    patch = torch.randn(5, 3, 14, 14)
    larger = torch.nn.functional.interpolate(patch, (16, 16), mode="bicubic", antialias=True)
    before = torch.einsum("bcij,ocij->bo", patch, state["patch_embed.proj.weight"])
    three, _ = create_encoder("dinov2", weights=str(path))
    kernel = three.state_dict()["trunk.model.patch_embed.proj.weight"]
    torch.testing.assert_close(torch.einsum("bcij,ocij->bo", larger, kernel), before, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(loaded["patch_embed.proj.weight"], inflated(kernel, 4))


@pytest.mark.parametrize("backbone", ["vit_small_patch14_dinov2", "vit_small_patch16_dinov3"])
def test_pretrained_weights_come_the_same_way_from_timm_and_from_a_file(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(timm_weights(backbone), path)
    create = timm.create_model

    def local(name: str, *, pretrained: bool, **options: object) -> object:
        overlay = {"file": str(path), "num_classes": 0}
        return create(name, pretrained=pretrained, pretrained_cfg_overlay=overlay, **options)

    by_file, _ = create_encoder(backbone, in_channels=5, weights=str(path))
    monkeypatch.setattr(timm, "create_model", local)
    by_timm, _ = create_encoder(backbone, in_channels=5, weights="imagenet")
    expected = {name: t for name, t in by_timm.state_dict().items() if name.startswith("trunk.")}
    found = by_file.state_dict()
    assert expected
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=lambda text, name=name: f"{name}: {text}")


def test_names_of_dinov3_are_translated_without_printing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = timm_weights("vit_small_patch16_dinov3")
    theirs = {
        name.replace("reg_token", "storage_tokens").replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma"): t
        for name, t in state.items()
    }
    theirs |= {f"blocks.{i}.attn.qkv.bias": torch.zeros(3 * 384) for i in range(12)}
    theirs |= {"rope_embed.periods": torch.ones(16), "mask_token": torch.zeros(1, 384)}
    path = tmp_path / "dinov3.pth"
    torch.save(theirs, path)
    encoder, _ = create_encoder("dinov3", weights=str(path))
    loaded = encoder.state_dict()
    assert all(torch.equal(loaded[f"trunk.model.{name}"], tensor) for name, tensor in state.items())
    assert capsys.readouterr().out == ""


def test_names_of_deit3_are_translated(tmp_path: Path) -> None:
    state = timm_weights("deit3_small_patch16_224")
    state |= {name: torch.rand_like(t) for name, t in state.items() if name.endswith(".gamma")}  # else all are equal
    theirs = {name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): t for name, t in state.items()}
    path = tmp_path / "deit3.pth"
    torch.save({"model": theirs}, path)
    encoder, _ = create_encoder("deit3_small_patch16_224", weights=str(path))
    loaded = encoder.state_dict()
    assert torch.equal(loaded["trunk.model.blocks.3.ls1.gamma"], state["blocks.3.ls1.gamma"])
    assert torch.equal(loaded["trunk.model.norm.weight"], state["norm.weight"])


@pytest.mark.parametrize("backbone", ["pvt", "vit_tiny_patch16_224"])
def test_encoder_of_a_checkpoint_of_ours(backbone: str, tmp_path: Path) -> None:
    model = create_model(backbone, num_classes=4)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    other = create_model(backbone, "unetformer", num_classes=2, weights=str(path))
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
