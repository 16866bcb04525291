"""The tables of docs/models.md, made by building and running what they list.

``python tests/models/test_table.py`` writes them anew; the tests compare them with the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ctrs.errors import UsageError
from ctrs.models import BACKBONE_ALIASES, DECODERS, SegmentationModel, create_encoder, create_model, resolve_backbone

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
COMMAND = "python tests/models/test_table.py"
NUM_CLASSES = 6
STAGES = (4, 8, 16, 32)

CONFIGURATIONS = {
    "PF+CT": ("poolformer", "dcfam"),
    "DS+CT": ("swin", "dcfam"),
    "UF+CT": ("swin", "unetformer"),
}
"""The three of the Contrastive Transformer paper."""

REFUSED = {
    "hiera_tiny_224": (
        "windows laid out for one input size; `hiera` is SAM 2's, which takes any",
        "native size",
    ),
    "maxvit_tiny_tf_224": ("its windows fit into multiples of 224 px only", "native size"),
    "coatnet_0_rw_224": ("attention biases of one input size", "native size"),
    "efficientformerv2_s0": ("attention biases of one input size", "native size"),
    "beit_base_patch16_224": ("attention biases of one input size", "native size"),
    "gcvit_xxtiny": ("windows laid out for one input size", "native size"),
    "pit_ti_224": ("no stage at stride 4", "strides 8, 16, 32"),
    "levit_128s": ("no stage at strides 4 and 8", "strides 16, 32, 64"),
}
"""Models that can't serve: the reason, and what the error must say."""


@dataclass(frozen=True)
class Cell:
    """What became of a backbone with a decoder: millions of parameters of decoder and head, or the refusal."""

    millions: float | None
    refusal: str = ""


def count(*modules: nn.Module) -> float:
    return sum(p.numel() for module in modules for p in module.parameters()) / 1e6


@cache
def encoder_of(backbone: str, in_channels: int, output_stride: int) -> tuple[nn.Module, tuple[int, ...]] | UsageError:
    try:
        encoder, channels = create_encoder(backbone, in_channels=in_channels, output_stride=output_stride)
    except UsageError as error:
        return error
    seen: dict[torch.Size, list[torch.Tensor]] = {}
    forward = encoder.forward

    def remembered(images: torch.Tensor) -> list[torch.Tensor]:
        if images.shape not in seen:
            seen[images.shape] = forward(images)
        return seen[images.shape]

    encoder.forward = remembered  # type: ignore[method-assign]
    return encoder, channels


def cached_encoder(backbone: str, *, in_channels: int, output_stride: int, **_: object) -> object:
    found = encoder_of(backbone, in_channels, output_stride)
    if isinstance(found, UsageError):
        raise found
    return found


@contextmanager
def shapes_only(make_encoder: Callable[..., object] = cached_encoder) -> Iterator[None]:
    """Build and run without numbers; each encoder is built and run once for all decoders.

    The meta device has no autocast.
    """
    with (
        torch.device("meta"),
        torch.no_grad(),
        patch("torch.autocast", lambda *_, **__: nullcontext()),
        patch("ctrs.models.segmentation.create_encoder", make_encoder),
    ):
        yield


def run(model: SegmentationModel, height: int = 50, width: int = 90) -> None:
    """Send an image through that is neither square nor a multiple of anything, and check each shape."""
    output = model.eval()(torch.empty(1, 3, height, width))
    padded = (-(-height // 32) * 32, -(-width // 32) * 32)
    assert output.logits.shape == (1, NUM_CLASSES, height, width)
    assert [tuple(f.shape) for f in output.features] == [
        (1, c, padded[0] // r, padded[1] // r)
        for c, r in zip(model.feature_channels, model.feature_strides, strict=True)
    ]
    r = model.embedding_stride
    assert output.embedding.shape == (1, model.embedding_channels, padded[0] // r, padded[1] // r)


def assess(backbone: str, decoder: str) -> Cell:
    with shapes_only():
        try:
            model = create_model(backbone, decoder, num_classes=NUM_CLASSES)
        except UsageError as error:
            return Cell(None, str(error))
        run(model)
        return Cell(count(model.decoder, model.head))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def backbone_row(name: str) -> list[str]:
    with shapes_only():
        model = create_model(name, "unetformer", num_classes=NUM_CLASSES)
        dilates = not isinstance(encoder_of(name, 3, 16), UsageError)
    assert model.feature_strides == STAGES
    return [
        f"`{name}`",
        f"`{resolve_backbone(name)}`",
        "pyramid" if hasattr(model.encoder, "pyramid") else "its own",
        ", ".join(map(str, model.feature_strides)),
        ", ".join(map(str, model.feature_channels)),
        "yes" if dilates else "no",
        f"{count(model.encoder):.1f}",
    ]


def decoder_row(name: str) -> list[str]:
    with shapes_only():
        model = create_model("resnet", name, num_classes=NUM_CLASSES)
        run(model)
    return [
        f"`{name}`",
        ", ".join(map(str, model.feature_strides)),
        str(model.embedding_stride),
        "of the first stage" if name == "dcfam" else str(model.embedding_channels),
    ]


def matrix_row(backbone: str) -> list[str]:
    cells = [assess(backbone, decoder) for decoder in DECODERS]
    for cell in cells:
        assert cell.millions is not None or "can't be dilated" in cell.refusal, cell.refusal
    return [f"`{backbone}`", *("–" if cell.millions is None else f"{cell.millions:.1f}" for cell in cells)]


def refused_row(name: str) -> list[str]:
    reason, message = REFUSED[name]
    with pytest.raises(UsageError, match=re.escape(message)):
        create_encoder(name)
    return [f"`{name}`", reason]


def configuration_row(name: str) -> list[str]:
    backbone, decoder = CONFIGURATIONS[name]
    with shapes_only(create_encoder):  # its operations are counted
        model = create_model(backbone, decoder, num_classes=NUM_CLASSES).eval()
        counter = FlopCounterMode(display=False)
        with counter:
            model(torch.empty(1, 3, 512, 512))
    total = count(model)
    return [
        name,
        f"`{backbone}`",
        f"`{decoder}`",
        f"{count(model.encoder):.1f}",
        f"{count(model.decoder, model.head):.1f}",
        f"{total:.1f}",
        f"{counter.get_total_flops() / 1e9:.0f}",
    ]


TABLES: dict[str, tuple[Sequence[str], Callable[[str], list[str]], Sequence[str]]] = {
    "configurations": (
        ["in the paper", "backbone", "decoder", "encoder, M", "decoder, M", "network, M", "GFLOP at 512 px"],
        configuration_row,
        list(CONFIGURATIONS),
    ),
    "backbones": (
        ["`--backbone`", "timm model", "stages", "strides", "channels", "DeepLab", "M"],
        backbone_row,
        list(BACKBONE_ALIASES),
    ),
    "decoders": (["`--decoder`", "strides of the stages", "output stride", "channels"], decoder_row, DECODERS),
    "matrix": (["", *(f"`{name}`" for name in DECODERS)], matrix_row, list(BACKBONE_ALIASES)),
    "refused": (["timm model", "why not"], refused_row, list(REFUSED)),
}


def block(name: str) -> str:
    """Return what stands on the page between the markers of a table."""
    return split(name)[1]


def split(name: str) -> tuple[str, str, str]:
    """Return the page before, between and after the markers of a table."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: written by {COMMAND} -->\n\n", f"\n\n<!-- end of {name} -->"
    assert text.count(begin) == text.count(end) == 1, f"docs/models.md has no markers for {name}"
    start, stop = text.index(begin) + len(begin), text.index(end)
    return text[:start], text[start:stop], text[stop:]


def render(name: str) -> str:
    header, row, keys = TABLES[name]
    return table(header, [row(key) for key in keys])


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_the_page_says_what_runs(name: str) -> None:
    assert block(name) == render(name), f"docs/models.md is out of date; run {COMMAND}"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("configurations", "PF+CT"),
        ("backbones", "poolformer"),
        ("backbones", "vit"),
        ("decoders", "deeplabv3plus"),
        ("matrix", "poolformer"),
        ("refused", "maxvit_tiny_tf_224"),
    ],
)
def test_rows_of_the_page(name: str, key: str) -> None:
    header, row, keys = TABLES[name]
    lines = block(name).splitlines()
    assert lines[0] == table(header, []).splitlines()[0]
    assert len(lines) == 2 + len(keys)
    assert lines[2 + list(keys).index(key)] == table(header, [row(key)]).splitlines()[2], f"run {COMMAND}"


def write() -> None:
    for name in TABLES:
        before, _, after = split(name)
        PAGE.write_text(before + render(name) + after, encoding="utf-8")


if __name__ == "__main__":
    write()
