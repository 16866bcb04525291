from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
import timm
import torch
from torch import nn

from ctrs.errors import UsageError
from ctrs.models.encoder import BACKBONE_ALIASES, create_encoder, resolve_backbone
from ctrs.models.encoder_depth import encoder_depth, stage_modules


def on_meta(backbone: str) -> nn.Module:
    with torch.device("meta"):
        return create_encoder(backbone)[0]


def some(backbones: Iterable[str]) -> list[Any]:
    """All of them; the quick tests take two."""
    quick = ("resnet", "swin")
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in sorted(backbones)]


def names_of(encoder: nn.Module, modules: tuple[nn.Module, ...]) -> set[str]:
    """Names of the parameters that belong to these modules."""
    names = {id(parameter): name for name, parameter in encoder.named_parameters()}
    return {names[id(parameter)] for module in modules for parameter in module.parameters(recurse=False)}


def test_blocks_of_a_small_network_by_hand() -> None:
    """test_convnext has 1, 2, 4 and 2 blocks; a downsampling goes with the block that follows it."""
    depth = encoder_depth(on_meta("test_convnext"), "test_convnext")
    assert depth.num_blocks == 1 + 1 + 2 + 4 + 2
    found = {
        name: depth.block[name] for name in depth.block if name.endswith((".conv_dw.weight", "downsample.0.weight"))
    }
    assert found == {
        "stages_0.blocks.0.conv_dw.weight": 1,
        "stages_1.downsample.0.weight": 2,
        "stages_1.blocks.0.conv_dw.weight": 2,
        "stages_1.blocks.1.conv_dw.weight": 3,
        "stages_2.downsample.0.weight": 4,
        "stages_2.blocks.0.conv_dw.weight": 4,
        "stages_2.blocks.1.conv_dw.weight": 5,
        "stages_2.blocks.2.conv_dw.weight": 6,
        "stages_2.blocks.3.conv_dw.weight": 7,
        "stages_3.downsample.0.weight": 8,
        "stages_3.blocks.0.conv_dw.weight": 8,
        "stages_3.blocks.1.conv_dw.weight": 9,
    }
    assert {block for name, block in depth.block.items() if name.startswith("stem")} == {0}
    assert depth.undecayed == frozenset()


def test_metaformers_which_timm_cannot_take_apart_go_by_the_same_rule() -> None:
    encoder = on_meta("poolformer")
    depth = encoder_depth(encoder, "poolformer_s12")
    assert depth.num_blocks == 1 + 2 + 2 + 6 + 2
    assert depth.block["stem.conv.weight"] == 0
    assert depth.block["stages_1.downsample.conv.weight"] == depth.block["stages_1.blocks.0.mlp.fc1.weight"] == 3
    assert depth.block["stages_3.blocks.1.mlp.fc1.weight"] == 12


def test_position_embeddings_have_no_decay_and_the_pyramid_is_no_block() -> None:
    depth = encoder_depth(on_meta("test_vit"), "test_vit")
    assert depth.num_blocks == 1 + 6
    assert {"trunk.model.pos_embed", "trunk.model.cls_token"} <= depth.undecayed
    assert depth.block["trunk.model.pos_embed"] == 0
    assert {depth.block[name] for name in depth.block if name.startswith("pyramid.")} == {7}


@pytest.mark.parametrize("backbone", some(BACKBONE_ALIASES))
def test_every_backbone_has_blocks_from_the_stem_on(backbone: str) -> None:
    encoder = on_meta(backbone)
    depth = encoder_depth(encoder, resolve_backbone(backbone))
    assert set(depth.block) == {name for name, _ in encoder.named_parameters()}
    trunk = {block for name, block in depth.block.items() if not name.startswith("pyramid.")}
    assert trunk >= set(range(depth.num_blocks))  # what timm sorts behind the blocks may be there too


def test_finding_blocks_draws_no_random_numbers() -> None:
    encoder, before = on_meta("test_convnext"), torch.get_rng_state()
    encoder_depth(encoder, "test_convnext")
    assert torch.equal(torch.get_rng_state(), before)


def test_blocks_that_cannot_be_told_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

    monkeypatch.setattr(timm, "create_model", lambda *_args, **_options: Whole())
    with pytest.raises(UsageError, match="the blocks of backbone 'whole' can't be told apart; use encoder_rate"):
        encoder_depth(Whole(), "whole")


def test_stages_of_a_small_network() -> None:
    encoder = on_meta("test_convnext")
    everything = {name for name, _ in encoder.named_parameters()}
    for count in range(5):
        kept = tuple(f"stages_{stage}." for stage in range(count))
        expected = {name for name in everything if name.startswith(("stem", *kept))} if count else set()
        assert names_of(encoder, stage_modules(encoder, "test_convnext", count)) == expected


def test_a_stage_of_a_plain_transformer_is_a_quarter_of_its_blocks() -> None:
    encoder = on_meta("vit")
    found = names_of(encoder, stage_modules(encoder, "vit", 1))
    blocks = {int(name.split(".")[3]) for name in found if ".blocks." in name}
    assert blocks == {0, 1, 2}
    assert {"trunk.model.pos_embed", "trunk.model.patch_embed.proj.weight"} <= found
    everything = names_of(encoder, stage_modules(encoder, "vit", 4))
    assert everything == {name for name, _ in encoder.named_parameters() if name.startswith("trunk.")}


@pytest.mark.parametrize("backbone", some(set(BACKBONE_ALIASES) - {"hrnet", "twins"}))
def test_stages_of_every_backbone_grow(backbone: str) -> None:
    encoder = on_meta(backbone)
    found = [names_of(encoder, stage_modules(encoder, backbone, count)) for count in range(5)]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(found))


@pytest.mark.parametrize("backbone", ["hrnet", "twins"])
def test_stages_that_do_not_stand_one_behind_the_other_are_refused(backbone: str) -> None:
    encoder = on_meta(backbone)
    with pytest.raises(UsageError, match=f"frozen_stages = 2 found, .*{backbone}.* expected 0 or 4 for all of it"):
        stage_modules(encoder, backbone, 2)
    whole = stage_modules(encoder, backbone, 4)
    assert names_of(encoder, whole) == {name for name, _ in encoder.named_parameters()}
