from __future__ import annotations

import pytest
import torch
from timm.layers.norm import LayerNorm2d
from torch import nn

from ctrs.errors import CheckpointError, UsageError
from ctrs.models import BACKBONE_ALIASES, DECODERS, SegmentationModel, create_encoder, create_model, resolve_backbone
from ctrs.models import encoder as encoder_module

QUICK = ["poolformer", "swin", "pvt", "convnext_atto", "resnet10t", "mambaout_femto", "swinv2_cr_tiny_ns_224"]
QUICK += ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"]


def check_shapes(model: SegmentationModel, height: int, width: int) -> None:
    images = torch.randn(2, model.architecture.in_channels, height, width)
    output = model(images)
    padded = (-(-height // 32) * 32, -(-width // 32) * 32)
    assert output.logits.shape == (2, model.architecture.num_classes, height, width)
    assert [tuple(f.shape) for f in output.features] == [
        (2, c, padded[0] // r, padded[1] // r)
        for c, r in zip(model.feature_channels, model.feature_strides, strict=True)
    ]
    assert output.embedding.shape[:2] == (2, model.embedding_channels)
    output.logits.square().mean().backward()
    encoder_gradients = [p.grad for p in model.encoder.parameters()]
    assert sum(g is not None for g in encoder_gradients) >= 0.9 * len(encoder_gradients)
    assert all(g.isfinite().all() for g in encoder_gradients if g is not None)


@pytest.mark.parametrize("backbone", QUICK)
def test_any_input_size_and_four_bands(backbone: str) -> None:
    model = create_model(backbone, "unetformer", num_classes=3, in_channels=4)
    check_shapes(model, 70, 100)


@pytest.mark.parametrize("in_channels", [1, 20])
def test_one_to_twenty_bands(in_channels: int) -> None:
    check_shapes(create_model("pvt", "dcfam", num_classes=2, in_channels=in_channels), 64, 64)


OWN_DECODERS = ("dcfam", "unetformer")
MATRIX = [
    (backbone, decoder)
    for backbone in BACKBONE_ALIASES
    for decoder in DECODERS
    if decoder in OWN_DECODERS or backbone == ("convnext" if decoder.startswith("deeplab") else "swin")
]


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "decoder"), MATRIX)
def test_every_friendly_backbone_and_every_decoder(backbone: str, decoder: str) -> None:
    check_shapes(create_model(backbone, decoder, num_classes=3), 64, 96)


def test_padding_is_cut_off_and_shifts_nothing() -> None:
    torch.manual_seed(0)
    model = create_model("pvt", "segformer", num_classes=3).eval()
    images = torch.randn(1, 3, 50, 70)
    padded = nn.functional.pad(images, (0, 26, 0, 14))
    with torch.no_grad():
        found, expected = model(images), model(padded)
    assert torch.equal(found.logits, expected.logits[..., :50, :70])
    assert all(torch.equal(a, b) for a, b in zip(found.features, expected.features, strict=True))


@pytest.mark.parametrize("num_classes", [2, 3])
@torch.inference_mode()
def test_logits_are_the_heads_output_enlarged_whatever_its_layout(num_classes: int) -> None:
    model = create_model("resnet10t", "unetformer", num_classes=num_classes).eval()
    model.to(memory_format=torch.channels_last)
    output = model(torch.randn(2, 3, 64, 96).to(memory_format=torch.channels_last))
    small = model.head(output.embedding).to(memory_format=torch.channels_last)
    expected = nn.functional.interpolate(small, size=(64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(output.logits, expected, rtol=0, atol=1e-6)


def test_stages_are_normed_for_the_decoder_and_the_heads_alike() -> None:
    torch.manual_seed(0)
    model = create_model("swin", "unetformer", num_classes=3).eval()
    seen = []
    model.decoder.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[0]))
    output = model(torch.randn(1, 3, 64, 64))
    assert all(a is b for a, b in zip(seen, output.features, strict=True))
    for feature in output.features:
        assert feature.mean(1).abs().max() < 1e-4
        assert (feature.var(1, unbiased=False) - 1).abs().max() < 0.1


def test_norms_are_of_the_encoders_kind() -> None:
    poolformer = create_model("poolformer", "unetformer", num_classes=3)
    assert all(isinstance(norm, nn.GroupNorm) and norm.num_groups == 1 for norm in poolformer.stage_norms)
    assert all(isinstance(norm, LayerNorm2d) for norm in create_model("pvt", num_classes=3).stage_norms)


@pytest.mark.parametrize("backbone", ["resnet10t", "hrnet_w18_small"])
def test_the_stride_2_level_is_dropped(backbone: str) -> None:
    encoder, channels = create_encoder(backbone)
    maps = encoder(torch.randn(1, 3, 64, 64))
    assert [64 // m.shape[-1] for m in maps] == [4, 8, 16, 32]
    assert channels == tuple(m.shape[1] for m in maps)


def test_building_is_reproducible_and_probing_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    first = create_model("pvt", num_classes=3).state_dict()
    torch.manual_seed(0)
    again = create_model("pvt", num_classes=3).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_drop_path_reaches_the_encoder() -> None:
    encoder, _ = create_encoder("pvt", drop_path=0.5)
    assert any(getattr(module, "drop_prob", 0.0) == 0.5 for module in encoder.modules())


def test_friendly_names() -> None:
    assert create_model("pvt", num_classes=2).architecture.backbone == "pvt_v2_b0"
    assert resolve_backbone("swin") == "swin_tiny_patch4_window7_224"
    for name in BACKBONE_ALIASES:
        resolve_backbone(name)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("poolfromer", "'poolfromer' is unknown; expected one of poolformer.*did you mean poolformer"),
        ("crossvit_9_240", "strides 12, 17, expected 4, 8, 16 and 32, or one stride only; choose another"),
        ("vit_relpos_small_patch16_224", "accepts only inputs of its native size"),
        ("convmixer_768_32", "can't be cut into patches of 16 px.*choose another, e.g. vit, dinov2 or dinov3"),
        ("tresnet_m", "gives no feature maps .*; choose another"),
        ("maxvit_tiny_tf_224", "accepts only inputs of its native size"),
    ],
)
def test_backbones_that_cannot_serve(backbone: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_model(backbone, num_classes=2)


def test_other_wrong_calls() -> None:
    with pytest.raises(UsageError, match="num_classes must be at least 1, found 0"):
        create_model("pvt", num_classes=0)
    with pytest.raises(UsageError, match="in_channels must be at least 1, found 0"):
        create_model("pvt", num_classes=2, in_channels=0)
    with pytest.raises(UsageError, match="'deeplab' is unknown"):
        create_model("pvt", "deeplab", num_classes=2)
    with pytest.raises(UsageError, match=r"shape \(B, 3, H, W\), found \(1, 4, 32, 32\)"):
        create_model("pvt", num_classes=2)(torch.zeros(1, 4, 32, 32))


def test_imagenet_weights_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    create = timm.create_model

    def offline(name: str, **options: object) -> object:
        if options["pretrained"]:
            raise OSError("no route to host\nmore lines")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        CheckpointError, match=r"pretrained weights of pvt_v2_b0 .*--weights none.*\(no route to host\)$"
    ):
        create_model("pvt", num_classes=2, weights="imagenet")


@pytest.mark.parametrize(
    ("backbone", "decoder"), [("pvt", "dcfam"), ("vit_tiny_patch16_224", "fpn"), ("resnet10t", "deeplabv3plus")]
)
def test_autocast_and_channels_last(backbone: str, decoder: str) -> None:
    model = create_model(backbone, decoder, num_classes=2).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images)
    output.logits.float().mean().backward()
    assert output.logits.isfinite().all()


@pytest.mark.parametrize("decoder", DECODERS)
def test_strides_are_those_of_the_maps(decoder: str) -> None:
    model = create_model("resnet10t", decoder, num_classes=3).eval()
    with torch.no_grad():
        output = model(torch.randn(1, 3, 50, 90))  # padded to 64 x 96
    stride = model.embedding_stride
    assert output.embedding.shape == (1, model.embedding_channels, 64 // stride, 96 // stride)
    assert [tuple(f.shape) for f in output.features] == [
        (1, c, 64 // r, 96 // r) for c, r in zip(model.feature_channels, model.feature_strides, strict=True)
    ]
    assert output.logits.shape == (1, 3, 50, 90)


@pytest.mark.parametrize("backbone", ["resnet10t", "convnext_atto"])
@pytest.mark.parametrize(("decoder", "strides"), [("deeplabv3", (4, 8, 8, 8)), ("deeplabv3plus", (4, 8, 16, 16))])
def test_deeplab_dilates_the_encoder(backbone: str, decoder: str, strides: tuple[int, ...]) -> None:
    model = create_model(backbone, decoder, num_classes=3, in_channels=4)
    assert model.feature_strides == strides
    output = model(torch.randn(1, 4, 70, 100))
    assert [128 // f.shape[-1] for f in output.features] == list(strides)
    output.logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.encoder.parameters())
    # Dilation changes how a stage looks, not what it learns: the weights are those of the plain encoder.
    plain = create_model(backbone, "fpn", num_classes=3, in_channels=4)
    shapes = {name: tensor.shape for name, tensor in plain.encoder.state_dict().items()}
    assert {name: tensor.shape for name, tensor in model.encoder.state_dict().items()} == shapes


@pytest.mark.parametrize("backbone", ["poolformer", "swin", "hrnet_w18_small", "vit_tiny_patch16_224"])
def test_encoders_that_cannot_be_dilated(backbone: str) -> None:
    message = r"can't be dilated to stride 16, as DeepLab's decoders need; choose one that can, e.g. resnet.*upernet"
    with pytest.raises(UsageError, match=message):
        create_model(backbone, "deeplabv3plus", num_classes=3)


def test_dilation_is_checked_on_real_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    build = encoder_module._build

    def ignores_dilation(name: str, in_channels: int, **options: object) -> nn.Module:
        options.pop("output_stride", None)
        return build(name, in_channels, **options)

    encoder_module._plan.cache_clear()  # what an earlier test found out would stand here
    monkeypatch.setattr(encoder_module, "_build", ignores_dilation)
    with pytest.raises(UsageError, match="'resnet10t' can't be dilated to stride 8"):
        create_model("resnet10t", "deeplabv3", num_classes=2)


def test_drop_path_is_refused_where_the_encoder_has_none() -> None:
    with pytest.raises(UsageError, match=r"'hrnet_w18' has no stochastic depth; leave out drop_path, found 0.1"):
        create_model("hrnet", "fpn", num_classes=2, drop_path=0.1)
