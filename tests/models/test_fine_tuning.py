from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from ctrs.classes import ClassMap, LandClass
from ctrs.errors import CheckpointError, InputNotFoundError
from ctrs.model_files import CheckpointMetadata, read_metadata
from ctrs.models import SegmentationModel, create_model, save_checkpoint
from ctrs.models.fine_tuning import load_matching
from ctrs.raster.bands import Bands

RGB = ("red", "green", "blue")


def bands_of(*names: str) -> Bands:
    count = len(names)
    return Bands(
        names=names, dtype="uint8", low=(0,) * count, high=(255,) * count, mean=(100,) * count, std=(50,) * count
    )


def classes_of(*names: str) -> ClassMap:
    return ClassMap(
        classes=tuple(LandClass(value=place, name=name, color=(place, 0, 0)) for place, name in enumerate(names))
    )


def network(num_classes: int, in_channels: int, decoder: str = "dcfam", backbone: str = "test_convnext", seed: int = 0):
    torch.manual_seed(seed)
    return create_model(backbone, decoder, num_classes=num_classes, in_channels=in_channels)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SegmentationModel]:
    folder = tmp_path_factory.mktemp("run") / "best"
    model = network(3, 3)
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))  # moves the running statistics
    metadata = CheckpointMetadata(
        architecture=model.architecture,
        classes=classes_of("ground", "building", "tree"),
        bands=bands_of(*RGB),
        window_px=64,
        overlap=0.25,
        data={"name": "town"},
        epoch=4,
    )
    save_checkpoint(folder, model, metadata)
    return folder, model.eval()


def test_the_same_classes_and_bands_give_the_same_logits(source) -> None:
    folder, model = source
    other = network(3, 3, seed=1)
    transfer = load_matching(other, folder, bands_of(*RGB), classes_of("ground", "building", "tree"))
    images = torch.randn(1, 3, 50, 70)
    with torch.no_grad():
        assert torch.equal(other.eval()(images).logits, model(images).logits)
    assert (transfer.adapted, transfer.fresh, transfer.unused) == ((), (), ())
    assert transfer.weights_hash == read_metadata(folder).weights_hash
    assert transfer.origin()["data"] == "town"
    assert transfer.describe() == [f"{folder / 'model.safetensors'}: {len(transfer.loaded)} of "
                                   f"{len(transfer.loaded)} tensors taken as they are"]  # fmt: skip


def test_classes_and_bands_in_another_order_are_only_put_in_order(source) -> None:
    folder, model = source
    other = network(3, 3, seed=1)
    transfer = load_matching(other, folder, bands_of("blue", "red", "green"), classes_of("tree", "Ground", "building"))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(images).logits[:, [2, 0, 1]]
        found = other.eval()(images[:, [2, 0, 1]]).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert transfer.adapted == ("encoder.stem_0.weight", "head.weight")
    assert (transfer.new_classes, transfer.new_bands, transfer.fresh) == ((), (), ())


def test_rows_of_known_classes_are_copied_and_new_ones_stay_fresh(source, caplog: pytest.LogCaptureFixture) -> None:
    folder, model = source
    other = network(4, 3, seed=1)
    drawn = other.head.weight.detach().clone()
    with caplog.at_level(logging.INFO):
        transfer = load_matching(other, folder, bands_of(*RGB), classes_of("car", "building", "water", "ground"))
    rows, known = other.head.weight, model.head.weight
    assert torch.equal(rows[1], known[1])
    assert torch.equal(rows[3], known[0])
    assert torch.equal(rows[0], drawn[0])
    assert torch.equal(rows[2], drawn[2])
    assert transfer.adapted == ("head.weight",)
    assert "classes known: building, ground; new: car, water" in caplog.text


def test_no_class_in_common_leaves_the_head_as_drawn(source) -> None:
    folder, _ = source
    other = network(3, 3, seed=1)
    drawn = other.head.weight.detach().clone()
    transfer = load_matching(other, folder, bands_of(*RGB), classes_of("a", "b", "c"))
    assert torch.equal(other.head.weight, drawn)
    assert (transfer.fresh, transfer.unused) == (("head.weight",), ("head.weight",))
    assert any("drawn anew: 1 tensor (head.weight)" in line for line in transfer.describe())


def test_a_new_band_gets_the_mean_and_the_sum_keeps_its_size(source) -> None:
    folder, model = source
    other = network(3, 4, seed=1)
    transfer = load_matching(
        other, folder, bands_of("near infrared", *RGB), classes_of("ground", "building", "tree")
    )  # fmt: skip
    old, new = model.encoder.stem_0.weight, other.encoder.stem_0.weight
    torch.testing.assert_close(new[:, 1:], old * 0.75)
    torch.testing.assert_close(new[:, 0], old.mean(1) * 0.75)
    torch.testing.assert_close(new.sum(1), old.sum(1))
    assert (transfer.known_bands, transfer.new_bands) == (RGB, ("near infrared",))
    assert transfer.origin()["new_bands"] == ["near infrared"]


def test_bands_without_known_names_are_taken_in_their_order(source, caplog: pytest.LogCaptureFixture) -> None:
    folder, model = source
    other = network(3, 3, seed=1)
    with caplog.at_level(logging.INFO):
        load_matching(other, folder, bands_of("band 1", "band 2", "band 3"), classes_of("ground", "building", "tree"))
    assert torch.equal(other.encoder.stem_0.weight, model.encoder.stem_0.weight)
    assert "bands red, green, blue are taken for band 1, band 2, band 3" in caplog.text


def test_another_decoder_takes_the_encoder_only(source, caplog: pytest.LogCaptureFixture) -> None:
    folder, model = source
    other = network(3, 3, decoder="fpn", seed=1)
    drawn = {name: value.clone() for name, value in other.state_dict().items()}
    transfer = load_matching(other, folder, bands_of(*RGB), classes_of("ground", "building", "tree"))
    own, known = other.state_dict(), model.state_dict()
    for name in own:
        encoder = name.startswith(("encoder.", "stage_norms."))
        assert torch.equal(own[name], known[name] if encoder else drawn[name]), name
    assert "has the decoder dcfam, this run fpn: only the encoder is taken" in caplog.text
    assert transfer.known_classes == ()


def test_what_cannot_serve_is_refused(source, tmp_path: Path) -> None:
    folder, model = source
    classes = classes_of("ground", "building", "tree")
    with pytest.raises(CheckpointError, match=r"has the backbone test_convnext, but this run trains pvt_v2_b0"):
        load_matching(network(3, 3, backbone="pvt"), folder, bands_of(*RGB), classes)
    with pytest.raises(InputNotFoundError, match="no such run or checkpoint"):
        load_matching(model, tmp_path / "gone", bands_of(*RGB), classes)
    foreign = tmp_path / "resnet.pth"
    foreign.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"not a model of ctrs; .*--weights"):
        load_matching(model, foreign, bands_of(*RGB), classes)
    import safetensors.torch

    safetensors.torch.save_file({"conv1.weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match=r"holds weights but no description of a ctrs model.*--weights"):
        load_matching(model, tmp_path / "foreign.safetensors", bands_of(*RGB), classes)


def test_the_random_numbers_stay(source) -> None:
    folder, _ = source
    other = network(4, 3)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_matching(other, folder, bands_of(*RGB), classes_of("a", "b", "c", "building"))
    assert torch.equal(torch.rand(2), expected)
