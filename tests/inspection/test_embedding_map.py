"""Maps of embeddings: the vectors are the network's, both runs see the same patches, and mistakes are named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from ctrs.classes import ClassMap, LandClass
from ctrs.config import EmbeddingMapConfig
from ctrs.data.dataset import TileDataset
from ctrs.data.tile_store import TileStore
from ctrs.data.transforms import whole_tile_transform
from ctrs.errors import ConfigError, DataError, InputNotFoundError, OutputExistsError, UsageError
from ctrs.inspection import inspect_embeddings
from ctrs.inspection.embedding_map import picture_name
from ctrs.inspection.patch_samples import sample_patches
from ctrs.inspection.patch_vectors import patch_vectors
from ctrs.inspection.run_pairs import find_counterpart, other_settings, training_command
from ctrs.inspection.stage_heads import load_stage_heads, stage_heads
from ctrs.models.checkpoint import load_checkpoint, save_checkpoint
from ctrs.models.segmentation import create_model
from ctrs.tiles.manifest import Manifest
from ctrs.training import train
from ctrs.training.step import create_training_step

QUICK = EmbeddingMapConfig(stages=(0, 1), samples=30, device="cpu")


@pytest.fixture(scope="module")
def ground(tmp_path_factory, write_prepared, tiny_config):
    """Prepared data and two runs, with and without contrast; only to be read."""
    base = tmp_path_factory.mktemp("embeddings")
    data = write_prepared(base / "prepared" / "town", train=4, val=2)
    for name, loss in (("with", "cl"), ("without", "none")):
        train(data, base / "runs" / name, replace(tiny_config, loss=loss, epochs=1))
    return base


@pytest.fixture
def runs(ground, tmp_path):
    shutil.copytree(ground / "runs", tmp_path / "runs")
    return tmp_path / "runs"


def tile_set(ground, run):
    model, metadata = load_checkpoint(run)
    manifest = Manifest.open(ground / "prepared" / "town")
    dataset = TileDataset(TileStore(manifest.split("val")), metadata.bands, whole_tile_transform())
    masks = [dataset[0, index]["mask"] for index in range(len(dataset))]
    return model, metadata, dataset, masks


def test_vectors_are_the_networks_features_at_the_patches(ground):
    model, _, dataset, masks = tile_set(ground, ground / "runs" / "with")
    samples = sample_patches(masks, (4, 8), num_classes=2, samples=9, seed=0)
    found = patch_vectors(model, None, dataset, samples, (0, 1), torch.device("cpu"), lambda *_: None)
    with torch.no_grad():
        maps = [model(dataset[0, index]["image"][None]).features for index in range(len(dataset))]
    for stage in (0, 1):
        cells = samples[stage]
        for place in range(len(cells)):
            tile, row, col = (int(part[place]) for part in (cells.tiles, cells.rows, cells.cols))
            expected = maps[tile][stage][0, :, row, col].numpy()
            np.testing.assert_allclose(found[stage][place], expected, atol=1e-6)
            window = masks[tile][row * cells.stride :, col * cells.stride :][: cells.stride, : cells.stride]
            assert window.unique().tolist() == [cells.classes[place]]


def test_projected_vectors_come_from_the_heads_of_the_run(ground):
    run = ground / "runs" / "with"
    model, metadata, dataset, masks = tile_set(ground, run)
    before = torch.random.get_rng_state()
    heads = load_stage_heads(run, run / "best", model, metadata, (1,))
    assert torch.equal(torch.random.get_rng_state(), before)
    samples = sample_patches(masks, (8,), num_classes=2, samples=9, seed=0)
    plain = patch_vectors(model, None, dataset, samples, (1,), torch.device("cpu"), lambda *_: None)[0]
    projected = patch_vectors(model, heads, dataset, samples, (1,), torch.device("cpu"), lambda *_: None)[0]
    assert projected.shape == (len(plain), 128)
    with torch.no_grad():
        np.testing.assert_allclose(projected, heads[0](torch.from_numpy(plain)).numpy(), atol=1e-5)
    import safetensors.torch

    stored = safetensors.torch.load_file(run / "heads.safetensors").values()
    assert any(torch.equal(heads[0].layers[0].weight, tensor) for tensor in stored)


class Dense(torch.nn.Module):
    """A head whose first part needs whole maps."""

    def __init__(self, channels):
        super().__init__()
        self.dense = torch.nn.BatchNorm2d(channels)
        torch.nn.init.constant_(self.dense.weight, 3)

    def forward(self, rows):
        return rows + 1


def test_heads_with_a_dense_part_see_whole_maps(ground):
    model, _, dataset, masks = tile_set(ground, ground / "runs" / "with")
    samples = sample_patches(masks, (4,), num_classes=2, samples=9, seed=0)
    head = Dense(model.feature_channels[0]).eval()
    plain = patch_vectors(model, None, dataset, samples, (0,), torch.device("cpu"), lambda *_: None)[0]
    found = patch_vectors(model, [head], dataset, samples, (0,), torch.device("cpu"), lambda *_: None)[0]
    np.testing.assert_allclose(found, 3 * plain + 1, atol=1e-3)


def test_both_runs_are_shown_the_same_patches(ground, tmp_path):
    runs = ground / "runs"
    told = []
    report = inspect_embeddings(
        runs / "with", tmp_path / "a.png", QUICK, beside=runs / "without", progress=lambda *step: told.append(step)
    )
    assert [(entry.run, entry.loss, entry.stage, entry.stride) for entry in report.stages] == [
        ("with", "cl", 0, 4), ("with", "cl", 1, 8), ("without", "none", 0, 4), ("without", "none", 1, 8),
    ]  # fmt: skip
    assert report.stages[0].counts == report.stages[2].counts == {"ground": 30, "building": 30}
    assert report.stages[0].separation != report.stages[2].separation
    assert report.split == "val"
    assert report.num_tiles == 2
    for entry in report.stages:
        assert 0 <= entry.separation.purity <= 1
        assert -1 <= entry.separation.silhouette <= 1
    assert json.loads(json.dumps(report.to_json()))["stages"][0]["patches"] == {"ground": 30, "building": 30}
    assert told[0] == (0, 4, "mapping tiles")
    assert told[-1] == (4, 4, "mapping tiles")
    alone = inspect_embeddings(runs / "without", tmp_path / "b.png", QUICK)
    assert alone.stages == report.stages[2:]


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_the_same_seed_gives_the_same_picture(ground, tmp_path, method):
    config = replace(QUICK, method=method)
    first, again = (
        inspect_embeddings(ground / "runs" / "with", tmp_path / name, config).path.read_bytes()
        for name in ("a.png", "b.png")
    )
    assert first == again
    other = inspect_embeddings(ground / "runs" / "with", tmp_path / "c.png", replace(config, seed=1)).path
    assert other.read_bytes() != first


def test_each_choice_has_a_picture_of_its_own():
    choices = [{}, {"projected": True}, {"stages": (2,)}, {"stages": (2, 3)}, {"split": "train"}, {"method": "tsne"}]
    names = [picture_name(EmbeddingMapConfig(**choice)) for choice in choices]
    assert len(set(names)) == len(names)
    assert names[0] == "embeddings_pca.png"


def test_a_finished_picture_is_read_and_another_is_not_replaced(runs):
    first = inspect_embeddings(runs / "with", config=QUICK)
    assert first.path == runs / "with" / "embeddings_pca_stages01.png"
    written = first.path.stat().st_mtime_ns
    assert inspect_embeddings(runs / "with", config=QUICK) == first
    assert first.path.stat().st_mtime_ns == written
    with pytest.raises(OutputExistsError, match="pass --overwrite"):
        inspect_embeddings(runs / "with", config=QUICK, beside=runs / "without")
    inspect_embeddings(runs / "with", config=replace(QUICK, overwrite=True), beside=runs / "without")
    assert first.path.stat().st_mtime_ns != written
    assert not list(runs.glob("with/.*"))


def test_the_test_split_is_never_opened(ground, tmp_path):
    report = inspect_embeddings(ground / "runs" / "with", tmp_path / "a.png", replace(QUICK, split="train", tiles=3))
    assert (report.split, report.num_tiles) == ("train", 3)
    with pytest.raises(ConfigError, match="'test' found, expected train or val; the test split is for eval alone"):
        replace(QUICK, split="test")


def test_projected_needs_heads(runs, tmp_path):
    config = replace(QUICK, projected=True)
    report = inspect_embeddings(runs / "with", tmp_path / "a.png", config)
    assert report.stages != inspect_embeddings(runs / "with", tmp_path / "b.png", QUICK).stages
    with pytest.raises(InputNotFoundError, match=r"heads\.safetensors: not found.*loss none\); leave out --projected"):
        inspect_embeddings(runs / "without", tmp_path / "c.png", config)
    with pytest.raises(InputNotFoundError, match="leave out --projected"):
        inspect_embeddings(runs / "with", tmp_path / "c.png", config, beside=runs / "without")
    with pytest.raises(UsageError, match=r"last: heads\.safetensors belongs to .*best; name"):
        inspect_embeddings(runs / "with" / "last", tmp_path / "c.png", config)


@pytest.mark.parametrize(
    ("loss", "stages"), [("supcon", (0, 1, 2, 3)), ("cms", (0, 1, 2, 3)), ("ccs", (0, 2, 3)), ("pne", ()), ("none", ())]
)
def test_each_term_has_its_heads_by_stage(tiny_config, loss, stages):
    model = create_model("test_convnext", "dcfam", num_classes=2)
    objective = create_training_step(model, replace(tiny_config, loss=loss), num_classes=2).objective
    heads = stage_heads(objective)
    assert tuple(sorted(heads)) == stages
    for stage, head in heads.items():
        rows = torch.zeros(3, model.feature_channels[stage])
        if (dense := getattr(head, "dense", None)) is not None:
            rows = dense.eval()(rows.T[None, :, None])[0, :, 0].T
        assert len(head(rows)) == 3


def test_heads_with_batch_norm_are_shown_and_pne_has_none_to_show(ground, tmp_path, tiny_config):
    data = ground / "prepared" / "town"
    config = replace(QUICK, projected=True, stages=(0, 2))
    train(data, tmp_path / "runs" / "cms", replace(tiny_config, loss="cms", epochs=1))
    report = inspect_embeddings(tmp_path / "runs" / "cms", tmp_path / "a.png", config)
    assert [entry.loss for entry in report.stages] == ["cms", "cms"]
    train(data, tmp_path / "runs" / "pne", replace(tiny_config, loss="pne", epochs=1))
    with pytest.raises(UsageError, match=r"no projection head at stage 0, 2 \(loss pne has heads at none\)"):
        inspect_embeddings(tmp_path / "runs" / "pne", tmp_path / "b.png", config)


def test_mistakes_are_named(runs, tmp_path, prepared):
    (tmp_path / "runs" / "empty").mkdir()
    with pytest.raises(InputNotFoundError, match="empty: no checkpoint there"):
        inspect_embeddings(runs / "empty", tmp_path / "a.png", QUICK)
    with pytest.raises(InputNotFoundError, match="no such run or checkpoint"):
        inspect_embeddings(runs / "absent", tmp_path / "a.png", QUICK)
    loose = shutil.copytree(runs / "with" / "best", tmp_path / "loose")
    with pytest.raises(InputNotFoundError, match=r"loose: the data that it was trained on are not known .* --data"):
        inspect_embeddings(loose, tmp_path / "a.png", QUICK)
    other = ClassMap(
        classes=(LandClass(value=0, name="sea", color=(0, 0, 0)), LandClass(value=1, name="land", color=(9, 9, 9)))
    )
    with pytest.raises(DataError, match=r"classes sea, land found, but .* knows ground, building"):
        inspect_embeddings(loose, tmp_path / "a.png", QUICK, data_dir=prepared("island", classes=other))
    with pytest.raises(DataError, match="no split val found, it has train"):
        inspect_embeddings(loose, tmp_path / "a.png", replace(QUICK, split="val"), data_dir=prepared("one", val=0))
    blank = prepared("blank", labelled=False)
    with pytest.raises(DataError, match="no patch of strides 4, 8 holds one class only in 2 tiles"):
        inspect_embeddings(loose, tmp_path / "a.png", QUICK, data_dir=blank)
    model, metadata = load_checkpoint(loose)
    save_checkpoint(tmp_path / "enlarged", model, replace(metadata, resize_factor=1.024))
    with pytest.raises(UsageError, match=r"enlarged by 1 and .* by 1\.024"):
        inspect_embeddings(runs / "with", tmp_path / "a.png", QUICK, beside=tmp_path / "enlarged")
    assert not (tmp_path / "a.png").exists()
    assert not list(tmp_path.glob(".a.png*"))


def test_the_counterpart_is_the_run_that_differs_least(runs):
    assert find_counterpart(runs / "with") == runs / "without"
    assert find_counterpart(runs / "without") == runs / "with"
    shutil.copytree(runs / "without", runs / "longer")
    config = runs / "longer" / "config.toml"
    config.write_text(config.read_text().replace("epochs = 1", "epochs = 9"))
    assert find_counterpart(runs / "with") == runs / "without"
    shutil.rmtree(runs / "without" / "best")
    shutil.rmtree(runs / "without" / "last")
    assert find_counterpart(runs / "with") == runs / "longer"
    (runs / "broken").mkdir()
    (runs / "broken" / "config.toml").write_text("epochs = ")
    config.write_text(config.read_text().replace('"dcfam"', '"unetformer"'))
    assert find_counterpart(runs / "with") is None


def test_differences_beside_the_contrast_are_named(tiny_config):
    other = replace(tiny_config, loss="none", epochs=7, threads=1, contrast=replace(tiny_config.contrast, top=1.0))
    assert other_settings(tiny_config, other) == ["epochs 2 and 7"]
    assert other_settings(tiny_config, replace(tiny_config, loss="none")) == []


def test_the_command_for_the_missing_run_can_be_typed(runs):
    words = training_command(runs / "with", "none").split()
    assert words[:2] == ["ctrs", "train"]
    assert words[-2:] == ["--loss", "none"]
    assert words[words.index("--config") + 1] == str(runs / "with" / "config.toml")
