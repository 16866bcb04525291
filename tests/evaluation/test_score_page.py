"""The page of scores: each number and picture on it is that of the report, for one run or several."""

from __future__ import annotations

import base64
import io
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import Affine

from ctrs.classes import ClassMap, LandClass
from ctrs.config import EvalConfig
from ctrs.errors import UsageError
from ctrs.evaluation.comparison import compare
from ctrs.evaluation.difference_section import difference_section
from ctrs.evaluation.score_intervals import score_intervals
from ctrs.evaluation.score_page import render_score_page, write_score_page
from ctrs.evaluation.score_places import PlaceGallery, cell_edge, count_places, gallery_for
from ctrs.evaluation.score_report import EvaluationReport
from ctrs.evaluation.scoring import SceneMasks, score_scene
from ctrs.raster.bands import Bands
from ctrs.raster.geotiff import Grid
from tests.prepared_data import write_tile

CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="ground", color=(255, 255, 255)),
        LandClass(value=1, name="building", color=(0, 0, 255)),
        LandClass(value=2, name="<tree>", color=(0, 255, 0)),
        LandClass(value=3, name="clutter", color=(255, 0, 0), scored=False),
    )
)
GRID = Grid(crs=CRS.from_epsg(32633), transform=Affine(0.5, 0, 4e5, 0, -0.5, 5.8e6), width=160, height=128)
BANDS = Bands(
    names=("red", "green", "blue"), dtype="uint8", low=(0,) * 3, high=(255,) * 3, mean=(100.0,) * 3, std=(50.0,) * 3
)
CELL = 32
CELLS = [np.s_[row : row + CELL, col : col + CELL] for row in range(0, 128, CELL) for col in range(0, 160, CELL)]


def make_truth(seed):
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 3, (16, 20)), np.ones((8, 8))).astype(np.uint8)
    truth[:CELL, :CELL] = 1
    truth[-8:, -8:], truth[-40:-32, -40:] = 255, 3
    return truth


def spoil(truth, seed, share):
    """Return a mask whose upper left cell is all wrong, and others in part, more so to the right."""
    rng = np.random.default_rng(seed)
    pred = truth.copy()
    wrong = rng.random(truth.shape) < share * np.linspace(0.1, 1, truth.shape[1])
    pred[wrong] = rng.integers(0, 3, truth.shape)[wrong]
    pred[:CELL, :CELL] = 2
    return pred


def reader(mask):
    return lambda window: mask[window.slices].copy()


@pytest.fixture(scope="module")
def scenes():
    return {name: make_truth(number) for number, name in enumerate(("north", "south", "west"))}


def make_report(scenes, name, share, *, options=None, test_openings=None, confidence=True):
    options = options or EvalConfig()
    preds = {scene: spoil(truth, 10 + place, share) for place, (scene, truth) in enumerate(scenes.items())}
    sure = np.full(GRID.shape, 0.75, np.float32)
    scores = tuple(
        score_scene(
            SceneMasks(
                name=scene, grid=GRID, truths={"strict": reader(truth)}, pred=reader(preds[scene]), eroded_here=True,
                confidence=reader(sure) if confidence else None,
            ),
            CLASSES, options, mask=f"masks/{scene}_mask.tif",
        )
        for scene, truth in scenes.items()
    )  # fmt: skip
    matrices = [score.confusions["strict"] for score in scores]
    report = EvaluationReport(
        scenes=scores, classes=CLASSES, split="test", reason="the data have one", checkpoint=Path(f"runs/{name}/best"),
        weights="abc123", data=Path("prepared/town"), test_openings=test_openings,
        intervals=score_intervals(matrices, CLASSES, samples=50, confidence=0.9, seed=0),
    )  # fmt: skip
    return report, preds


def make_gallery(scenes, runs, *, image=None, num_places=2):
    gallery = PlaceGallery(CLASSES, num_places=num_places, cell_px=CELL, bands=BANDS)
    for scene, truth in scenes.items():
        read = {name: reader(preds[scene]) for name, preds in runs.items()}
        counted = {
            name: (pred, count_places(gallery.counts(), truth.shape, reader(truth), pred))
            for name, pred in read.items()
        }
        gallery.add(scene, truth.shape, image=image, truth=reader(truth), runs=counted)
    return gallery


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    pixels = np.random.default_rng(1).integers(30, 220, (3, *GRID.shape)).astype(np.uint8)
    return write_tile(tmp_path_factory.mktemp("image") / "image.tif", pixels)


@pytest.fixture(scope="module")
def one(scenes, image):
    report, preds = make_report(scenes, "alpha", 0.5, test_openings=3)
    gallery = make_gallery(scenes, {"prediction": preds}, image=image)
    return report, preds, gallery, render_score_page({"alpha": report}, gallery)


def text_of(page):
    """Return what a reader sees, tags as blanks."""
    body = page[max(0, page.find("<body>")) :]
    return " ".join(unescape(re.sub("<[^>]+>", " ", body)).split())


def section(page, key):
    return re.search(rf'<section id="{key}".*?</section>', page, re.S).group()


def decode(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGBA"))


def test_every_figure_stands_on_the_page(one):
    report, _, _, page = one
    classes = text_of(section(page, "classes"))
    for entry in report.headline.classes:
        low, high = report.intervals.bounds[entry.name]
        row = [entry.iou, entry.f1, entry.precision, entry.recall]
        boundary = report.outlines.boundary_iou[CLASSES.index(entry.name)]
        shown = f"{row[0]:.3f} {low:.3f} to {high:.3f} {row[1]:.3f} {row[2]:.3f} {row[3]:.3f} {boundary:.3f}"
        assert f"{shown} {entry.truth_px:,} {entry.predicted_px:,}" in classes
    protocols = text_of(section(page, "protocols"))
    assert len(report.protocols) == 6
    for entry in report.protocols:
        shown = f"{entry.mean_iou:.3f} {entry.mean_f1:.3f} {entry.overall_accuracy:.3f} {entry.num_pixels:,}"
        assert shown in protocols
        assert entry.name in protocols
    outlines = text_of(section(page, "outlines"))
    assert " ".join(f"{mean:.3f}" for mean in report.outlines.mean_boundary_f1(report.scored_indices)) in outlines
    score = report.object_scores["building"]
    counts = f"{score.num_true:,} {score.num_predicted:,} {score.num_matched:,}"
    shares = (score.precision, score.recall, score.f1, score.average_precision, score.average_precision_50)
    assert f"{counts} {' '.join(f'{share:.3f}' for share in shares)}" in text_of(section(page, "objects"))
    assert f"{report.area.true_m2[1]:,.0f}" in text_of(section(page, "areas"))
    assert f"{report.calibration.ece:.3f}" in text_of(section(page, "calibration"))
    scene = report.scene_protocols(report.scenes[1])[0]
    assert f"south {scene.mean_iou:.3f} {scene.mean_f1:.3f}" in text_of(section(page, "scenes"))
    matrix = report.confusions["strict"]
    cell = f'title="{matrix.counts[1, 2]:,} of {matrix.support[1]:,} px"'
    assert cell in section(page, "confusion")
    assert "isprs (eroded here) labels" in section(page, "confusion")
    low, high = report.intervals.bounds["mean_iou"]
    assert f"mean IoU {report.mean_iou:.3f} {low:.3f} to {high:.3f}" in text_of(section(page, "headline"))


def test_the_head_says_what_was_scored(one):
    text = text_of(one[3])
    for shown in ("Scores: alpha", "runs/alpha/best", "abc123", "prepared/town", "test (the data have one)",
                  "strict, without clutter", "north, south, west", "opened 3 times by this run"):  # fmt: skip
        assert shown in text


def test_the_page_needs_nothing_else_and_escapes_names(one):
    page = one[3]
    assert not re.search(r"<script|<link|@import|url\((?!#)|(?:src|href)=\"(?!#|data:)", page)
    assert "<tree>" not in page
    assert "&lt;tree&gt;" in page
    assert len(page) < 10e6


def test_the_same_scores_give_the_same_bytes(one, scenes, image, tmp_path):
    report, preds, _, page = one
    again = write_score_page(
        tmp_path / "r.html", {"alpha": report}, make_gallery(scenes, {"prediction": preds}, image=image)
    )
    assert again.read_text() == page


def test_worst_and_best_places_are_those_of_the_masks(one, scenes, image):
    _, preds, gallery, page = one
    # The upper left cell is all wrong in each scene; scenes come in their order.
    assert [(shown.place.scene, shown.place.row_off, shown.place.col_off) for shown in gallery.worst] == [
        ("north", 0, 0), ("south", 0, 0),
    ]  # fmt: skip
    first = gallery.worst[0]
    assert first.errors == {"prediction": CELL * CELL}
    assert first.confused == (1, 2, CELL * CELL)
    np.testing.assert_array_equal(first.panels.truth, scenes["north"][:CELL, :CELL])
    np.testing.assert_array_equal(first.panels.runs[0][1], preds["north"][:CELL, :CELL])
    with rasterio.open(image) as dataset:
        np.testing.assert_array_equal(first.panels.image, dataset.read()[:, :CELL, :CELL])
    worst = section(page, "worst")
    text = text_of(worst).replace("\N{NO-BREAK SPACE}", " ")
    assert "W1 north, rows 0 to 31, columns 0 to 31: 100 % of 1,024 px wrong" in text
    assert "most often building mapped as <tree> (100 % of the errors)" in text
    _, truth, pred, errors = (decode(uri) for uri in re.findall(r'href="(data:[^"]+)"', worst)[:4])
    assert (truth == [0, 0, 255, 255]).all()
    assert (pred == [0, 255, 0, 255]).all()
    assert (errors[..., 3] > 0).all()

    rates = []
    for scene, truth in scenes.items():
        for cell in CELLS[1:]:
            counted = truth[cell] < 3
            rates.append(np.mean((truth[cell] != preds[scene][cell])[counted]))
    expected = sorted(rates)[:2]
    assert [shown.place.error_rate for shown in gallery.best] == pytest.approx(expected)


def test_places_do_not_depend_on_what_was_dropped(scenes):
    _, preds = make_report(scenes, "alpha", 0.5, options=EvalConfig(pixels_only=True))
    many = make_gallery(scenes, {"prediction": preds}, num_places=50)
    few = make_gallery(scenes, {"prediction": preds}, num_places=3)
    assert [shown.place for shown in few.worst] == [shown.place for shown in many.worst[:3]]
    assert [shown.place for shown in few.best] == [shown.place for shown in many.best[:3]]
    kept = {shown.place for shown in (*few.worst, *few.best)}
    assert set(few._shown) == kept  # memory is that of the places shown
    assert {entry.name for entry in few.maps} == {place.scene for place in kept}


def test_runs_stand_side_by_side(scenes, image):
    a, pred_a = make_report(scenes, "alpha", 0.5)
    b, pred_b = make_report(scenes, "beta", 0.2)
    gallery = make_gallery(scenes, {"alpha": pred_a, "beta": pred_b}, image=image)
    comparison = compare([a, b], samples=100, confidence=0.9, seed=0)
    page = render_score_page({"alpha": a, "beta": b}, gallery, differences=difference_section(comparison))
    text = text_of(page)
    assert "Comparison: alpha and beta" in text
    entry = comparison.of("beta")["mean_iou"]
    assert entry.difference > 0.1
    shown = f"{entry.reference:.3f} {entry.value:.3f} +{entry.difference:.3f} +{entry.low:.3f} to +{entry.high:.3f}"
    assert shown in text
    assert "90 % interval" in text
    assert re.search(r"scene truth alpha errors of alpha beta errors of beta", text)
    gains = gains_of(scenes, pred_a, pred_b)
    assert rate(gallery.better[0], "alpha", "beta") == pytest.approx(max(gains))
    assert all(rate(shown, "alpha", "beta") > 0 for shown in gallery.better)
    assert "Places that beta maps better" in text
    assert "Places that beta maps worse" in text
    swapped = make_gallery(scenes, {"beta": pred_b, "alpha": pred_a})
    assert [shown.place for shown in swapped.worse] == [shown.place for shown in gallery.better]
    assert [shown.place for shown in swapped.better] == [shown.place for shown in gallery.worse]
    assert gallery.disputed == []


def test_of_three_runs_the_most_disputed_places_are_shown(scenes):
    preds = {name: make_report(scenes, name, share)[1] for name, share in (("a", 0.5), ("b", 0.2), ("c", 0.35))}
    gallery = make_gallery(scenes, preds)
    pairs = [(0, 1), (0, 2), (1, 2)]
    runs = list(preds.values())
    spreads = np.max([np.abs(gains_of(scenes, runs[first], runs[second])) for first, second in pairs], axis=0)
    disputed = gallery.disputed[0]
    assert disputed.spread / (disputed.place.counted / 3) == pytest.approx(spreads.max())
    assert gallery.better == gallery.worse == []


def gains_of(scenes, first, second):
    """Errors of the first less those of the second, as a share of what counts, for each place."""
    return [
        (int(((first[s] != t) & (t < 3))[cell].sum()) - int(((second[s] != t) & (t < 3))[cell].sum()))
        / int((t < 3)[cell].sum())
        for s, t in scenes.items()
        for cell in [(slice(r, r + CELL), slice(c, c + CELL)) for r in range(0, 128, CELL) for c in range(0, 160, CELL)]
    ]


def rate(shown, first, second):
    return (shown.errors[first] - shown.errors[second]) / (shown.place.counted / len(shown.errors))


def test_what_was_not_scored_has_no_section(scenes):
    report, _ = make_report(scenes, "alpha", 0.5, options=EvalConfig(pixels_only=True))
    page = render_score_page({"alpha": report})
    for key in ("outlines", "objects", "areas", "calibration", "worst", "best", "map", "differences"):
        assert f'id="{key}"' not in page
    assert gallery_for(CLASSES, EvalConfig(pixels_only=True), [(100, 100)]) is None
    assert gallery_for(CLASSES, EvalConfig(num_places=0), [(100, 100)]) is None
    bare, _ = make_report(scenes, "alpha", 0.5, confidence=False)
    assert "without confidences there is none" in text_of(render_score_page({"alpha": bare}))


def test_masks_without_imagery_are_pictured(scenes):
    report, preds = make_report(scenes, "alpha", 0.5)
    page = render_score_page({"alpha": report}, make_gallery(scenes, {"prediction": preds}))
    assert "truth prediction errors" in text_of(page)
    assert "image/jpeg" not in page


def test_runs_of_other_ground_are_refused(scenes):
    a, _ = make_report(scenes, "alpha", 0.5, options=EvalConfig(pixels_only=True))
    fewer = {name: truth for name, truth in scenes.items() if name != "west"}
    b, _ = make_report(fewer, "beta", 0.5, options=EvalConfig(pixels_only=True))
    with pytest.raises(UsageError, match="beta scores other scenes"):
        render_score_page({"alpha": a, "beta": b})
    with pytest.raises(UsageError, match="no runs found"):
        render_score_page({})


def test_cells_shrink_where_scenes_are_few_and_small():
    assert cell_edge([(6000, 6000)], 6) == 512
    assert cell_edge([(1000, 1000)], 6) == 128
    assert cell_edge([(10, 10)], 6) == 64
