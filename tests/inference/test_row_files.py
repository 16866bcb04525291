"""What stands beside a mask: its values, and the same bytes however often the work was stopped."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rio_cogeo import cog_validate

from ctrs.classes import IGNORE_INDEX, ClassMap, LandClass
from ctrs.config import PredictConfig
from ctrs.errors import OutputError, OutputExistsError, RasterError
from ctrs.inference import row_files, scenes_in
from ctrs.inference.products import Products
from ctrs.inference.row_files import RowFiles, StagedFiles, is_finished
from ctrs.inference.rows import FinishedRows
from ctrs.jobs import partial_dir, partial_work
from ctrs.raster.confidence import check_confidence, confidence_path, read_confidence
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.raster.probabilities import check_probabilities, probabilities_path, read_probabilities
from ctrs.raster.row_bands import RowBands
from ctrs.raster.windows import PixelWindow

SURE = PredictConfig(confidence="probability")


def scene_of(write_scene, height=700, width=150):
    pixels = np.random.default_rng(2).integers(1, 256, (3, height, width)).astype(np.uint8)
    pixels[:, 40:90, :60] = 0
    return pixels, write_scene(pixels, nodata=0)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(path):
    with open_raster(path) as dataset:
        return read_confidence(dataset, PixelWindow(col_off=0, row_off=0, width=dataset.width, height=dataset.height))


def test_it_is_the_softmax_of_the_blended_mean_logits(edges, write_scene, tmp_path):
    pixels, scene = scene_of(write_scene)
    mask = edges.predict_raster(scene, tmp_path / "a_mask.tif", SURE)
    beside = tmp_path / "a_confidence.tif"
    assert beside == confidence_path(mask)
    valid = (pixels != 0).any(axis=0)
    logits = edges.array_logits(pixels, valid).astype(np.float64)
    with np.errstate(invalid="ignore"):
        share = np.exp(logits - logits.max(axis=0))
        expected = (share / share.sum(axis=0)).max(axis=0)
    found = read(beside)
    np.testing.assert_allclose(found[valid], expected[valid], atol=1 / 65535)
    assert len(np.unique(found[valid])) > 1000, "the network is always as sure: the test shows little"
    assert (found[~valid] == 0).all()
    with open_raster(beside) as dataset, open_raster(mask) as other:
        assert Grid.of(dataset) == Grid.of(other)
        assert (dataset.dtypes[0], dataset.nodata) == ("uint16", 0)
        assert dataset.scales[0] * 65535 == pytest.approx(1)
        assert dataset.tags()["CTRS_JOB"] == other.tags()["CTRS_JOB"]
        np.testing.assert_array_equal(other.read(1) == IGNORE_INDEX, ~valid)
        check_confidence(dataset)
        with pytest.raises(RasterError, match="expected the confidence that ctrs predict --confidence writes"):
            check_confidence(other)
    assert cog_validate(beside, strict=True) == (True, [], [])


def test_the_mask_is_the_same_bit_for_bit(edges, write_scene, tmp_path):
    _, scene = scene_of(write_scene)
    plain = edges.predict_raster(scene, tmp_path / "plain_mask.tif")
    sure = edges.predict_raster(scene, tmp_path / "sure_mask.tif", SURE)
    assert digest(plain) == digest(sure)
    assert not confidence_path(plain).exists()
    # Asked for later, it is made, and the mask stays as it was without --overwrite.
    edges.predict_raster(scene, plain, SURE)
    assert digest(plain) == digest(sure)
    assert digest(confidence_path(plain)) == digest(confidence_path(sure))
    before = confidence_path(plain).stat().st_mtime_ns
    edges.predict_raster(scene, plain, SURE)
    assert confidence_path(plain).stat().st_mtime_ns == before
    assert scenes_in([tmp_path]) == [scene]


def test_a_confidence_of_another_job_is_not_replaced(edges, write_scene, tmp_path):
    _, scene = scene_of(write_scene, height=80)
    out = edges.predict_raster(scene, tmp_path / "a_mask.tif", SURE)
    out.unlink()
    other = PredictConfig(confidence="probability", blend="constant")
    with pytest.raises(OutputExistsError, match=r"a_confidence\.tif: exists and is the result of other inputs"):
        edges.predict_raster(scene, out, other)
    assert not partial_dir(out).exists()
    edges.predict_raster(scene, out, PredictConfig(confidence="probability", blend="constant", overwrite=True))
    with rasterio.open(confidence_path(out)) as first, rasterio.open(out) as second:
        assert first.tags()["CTRS_JOB"] == second.tags()["CTRS_JOB"]


HEIGHT, WIDTH = 330, 90
GRID = Grid(crs=CRS.from_epsg(32633), transform=Affine(0.2, 0, 5e5, 0, -0.2, 5.4e6), width=WIDTH, height=HEIGHT)
CLASSES = ClassMap(
    classes=tuple(LandClass(value=i, name=name, color=(i, 9, 9)) for i, name in enumerate(("road", "tree", "water")))
)
EVERYTHING = PredictConfig(confidence="margin", probabilities="uint8")
BLOCKS = {"whole rows": [slice(0, WIDTH)], "blocks": [slice(0, 32), slice(32, 50), slice(50, WIDTH)]}


def whole_rows(products):
    """What the network has to say of the scene."""
    rng = np.random.default_rng(0)
    valid = rng.random((HEIGHT, WIDTH)) < 0.8
    mask = rng.integers(0, 3, (HEIGHT, WIDTH)).astype(np.uint8)
    sure = rng.random((HEIGHT, WIDTH)).astype(np.float32) if products.confidence else None
    if sure is not None and products.confidence == "margin":
        sure *= np.float32(0.5)
    probabilities = None
    if products.probabilities:
        probabilities = rng.random((len(products.probability_names), HEIGHT, WIDTH)).astype(np.float32)
        as_bytes = products.probabilities == "uint8"
        probabilities = np.rint(probabilities * 254).astype(np.uint8) if as_bytes else probabilities.astype(np.float16)
    return FinishedRows(
        row_off=0,
        valid=valid,
        mask=np.where(valid, mask, IGNORE_INDEX).astype(np.uint8),
        confidence=sure,
        probabilities=probabilities,
    )


def part(rows, top, below, columns):
    def cut(array):
        return None if array is None else array[..., top:below, columns].copy()

    return FinishedRows(
        row_off=top,
        valid=cut(rows.valid),
        mask=cut(rows.mask),
        confidence=cut(rows.confidence),
        probabilities=cut(rows.probabilities),
    )


def write(out, config=EVERYTHING, columns=BLOCKS["whole rows"], *, step=23, early=40, **options):
    """Do what is left of the work, beginning a little above the first row that is missing."""
    products = Products.for_config(CLASSES, config)
    rows = whole_rows(products)
    with partial_work(out, "job") as work:
        files = RowFiles(work.folder, products, columns)
        for block, place in enumerate(columns):
            for top in range(max(0, files.num_rows(block) - early), HEIGHT, step):
                files.append(part(rows, top, min(top + step, HEIGHT), place), block)
            files.flush()
        files.write(work, GRID, {"CTRS_JOB": "job"}, **options).publish(work, "job")
    return rows


def published(out):
    return {path.name: path.read_bytes() for path in out.parent.iterdir() if path.is_file()}


@pytest.mark.parametrize("columns", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("number_format", ["uint8", "float16"])
def test_all_products_come_back(tmp_path, monkeypatch, number_format, columns):
    monkeypatch.setattr(row_files, "MIN_ROWS", 50)
    out = tmp_path / "a_mask.tif"
    config = PredictConfig(confidence="entropy", probabilities=number_format, classes=("water", "road"))
    rows = write(out, config, columns)
    assert sorted(published(out)) == ["a_confidence.tif", "a_mask.tif", "a_mask.tif.aux.xml", "a_probabilities.tif"]
    window = PixelWindow(col_off=0, row_off=0, width=WIDTH, height=HEIGHT)
    with open_raster(out) as dataset:
        assert Grid.of(dataset) == GRID
        np.testing.assert_array_equal(dataset.read(1), rows.mask)
    with open_raster(confidence_path(out)) as dataset:
        assert Grid.of(dataset) == GRID
        check_confidence(dataset, "entropy")
        with pytest.raises(RasterError, match=r"confidence by entropy found, expected probability; write it with"):
            check_confidence(dataset)
        found = read_confidence(dataset, window)
        np.testing.assert_allclose(found, np.where(rows.valid, rows.confidence, 0), atol=1.01 / 65535)
    with open_raster(probabilities_path(out)) as dataset:
        assert Grid.of(dataset) == GRID
        assert check_probabilities(dataset) == ("water", "road")
        found = read_probabilities(dataset, window)
        np.testing.assert_array_equal(np.isnan(found).all(axis=0), ~rows.valid)
        expected = rows.probabilities / 254 if number_format == "uint8" else rows.probabilities.astype(np.float64)
        np.testing.assert_allclose(found[:, rows.valid], expected[:, rows.valid], atol=1e-7)
        assert (dataset.nodata == 255) if number_format == "uint8" else np.isnan(dataset.nodata)
    for path in (out, confidence_path(out), probabilities_path(out)):
        assert cog_validate(path, strict=True) == (True, [], [])


@pytest.mark.parametrize("columns", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_stopped_between_any_two_files_it_ends_with_the_same_bytes(tmp_path, monkeypatch, when, columns):
    monkeypatch.setattr(row_files, "MIN_ROWS", 100)
    whole = tmp_path / "whole" / "a_mask.tif"
    write(whole)
    append, calls = RowBands.append, []

    def stop(self, rows):
        calls.append(1)
        if when == "after":
            append(self, rows)
        if len(calls) % 4 == 0:
            raise KeyboardInterrupt
        if when == "before":
            append(self, rows)

    monkeypatch.setattr(RowBands, "append", stop)
    out = tmp_path / "stopped" / "a_mask.tif"
    stops = 0
    while True:
        try:
            write(out, columns=columns)
        except KeyboardInterrupt:
            stops += 1
            assert published(out) == {}
        else:
            break
    assert stops >= 2
    assert published(out) == published(whole)
    assert not partial_dir(out).exists()


@pytest.mark.parametrize(
    "first",
    [PredictConfig(), PredictConfig(confidence="probability", probabilities="uint8"), EVERYTHING],
    ids=["mask", "other confidence", "all"],
)
def test_work_begun_with_other_products_is_made_whole(tmp_path, monkeypatch, first):
    monkeypatch.setattr(row_files, "MIN_ROWS", 100)
    whole = tmp_path / "whole" / "a_mask.tif"
    write(whole)
    out = tmp_path / "stopped" / "a_mask.tif"
    monkeypatch.setattr(StagedFiles, "publish", lambda *_args, **_options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(out, first)
    monkeypatch.undo()
    write(out)
    assert published(out) == published(whole)


def test_other_blocks_of_columns_are_not_mixed(tmp_path, monkeypatch):
    whole = tmp_path / "whole" / "a_mask.tif"
    write(whole)
    out = tmp_path / "stopped" / "a_mask.tif"
    publish = StagedFiles.publish
    for columns in BLOCKS.values():
        monkeypatch.setattr(StagedFiles, "publish", lambda *_args, **_options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write(out, columns=columns)
    monkeypatch.setattr(StagedFiles, "publish", publish)
    write(out, columns=[slice(0, 32), slice(32, WIDTH)])
    assert published(out) == published(whole)


@pytest.mark.parametrize("stage", ["write_class_cog", "write_confidence_cog", "write_probabilities_cog"])
def test_nothing_is_published_before_all_is_written(tmp_path, monkeypatch, stage):
    def fail(*_args, **_options):
        raise OutputError("disk full")

    monkeypatch.setattr(row_files, stage, fail)
    out = tmp_path / "a_mask.tif"
    with pytest.raises(OutputError, match="disk full"):
        write(out)
    assert published(out) == {}
    monkeypatch.undo()
    write(out)  # nothing is predicted again
    assert len(published(out)) == 4


def test_the_mask_comes_last(tmp_path, monkeypatch):
    replace, moved = Path.replace, []

    def note(self, target):
        if Path(target).parent == tmp_path:
            moved.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", note)
    write(tmp_path / "a_mask.tif")
    assert moved == ["a_probabilities.tif", "a_confidence.tif", "a_mask.tif.aux.xml", "a_mask.tif"]


def test_finished_means_that_all_is_there_that_is_wanted(tmp_path):
    def finished(config, **options):
        return is_finished(out, "job", Products.for_config(CLASSES, config), **{"overwrite": False, **options})

    out = tmp_path / "a_mask.tif"
    plain, sure = PredictConfig(), PredictConfig(confidence="margin")
    assert not finished(plain)
    write(out, sure)
    assert finished(plain)
    assert finished(sure)
    assert not finished(EVERYTHING)
    write(out)
    assert finished(EVERYTHING)
    assert not finished(EVERYTHING, overwrite=True)
    with pytest.raises(OutputExistsError, match=r"a_confidence\.tif: exists and is the result of other"):
        finished(PredictConfig(confidence="entropy"))
    for other in (PredictConfig(probabilities="float16"), PredictConfig(probabilities="uint8", classes=("tree",))):
        with pytest.raises(OutputExistsError, match=r"a_probabilities\.tif: exists and is the result of other"):
            finished(other)


def test_rows_are_not_left_out(tmp_path):
    products = Products.for_config(CLASSES, PredictConfig())
    files = RowFiles(tmp_path, products, BLOCKS["whole rows"])
    with pytest.raises(ValueError, match="rows from 5 on found, expected from 0 on"):
        files.append(part(whole_rows(products), 5, 9, slice(0, WIDTH)))


def test_creation_options_reach_all_files(tmp_path):
    out = tmp_path / "a_mask.tif"
    write(out, creation_options=(("COMPRESS", "LZW"), ("BLOCKSIZE", "128")))
    for path in (out, confidence_path(out), probabilities_path(out)):
        with rasterio.open(path) as dataset:
            assert dataset.compression.name == "lzw"
            assert dataset.block_shapes[0] == (128, 128)
            assert dataset.overviews(1)
