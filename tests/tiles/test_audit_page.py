"""The report as a page: what the audit says stands in it, word for word and number for number."""

from __future__ import annotations

import base64
import io
import math
import re
import time
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from affine import Affine
from PIL import Image
from rasterio.crs import CRS

from ctrs import __version__
from ctrs.classes import IGNORE_INDEX, ClassMap, LandClass
from ctrs.errors import OutputError
from ctrs.raster.geotiff import Grid
from ctrs.raster.windows import PixelWindow, sliding_windows
from ctrs.tiles.audit import Audit, SceneAudit, Shift, TileFootprint, TileSample
from ctrs.tiles.audit_page import render_page, write_page
from ctrs.tiles.facts import Preview, SceneFacts
from ctrs.tiles.findings import Finding

NASTY = """<b>&"x'</section>"""
CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="ground", color=(255, 255, 255)),
        LandClass(value=1, name="building & <roof>", color=(0, 0, 255)),
        LandClass(value=2, name="clutter", color=(255, 0, 0), scored=False),
        LandClass(value=9, name="void", color=(0, 0, 0), ignored=True),
    )
)
UTM = CRS.from_epsg(32633)


def blocks(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 3, (height // 8 + 1, width // 8 + 1)).astype(np.uint8)
    mask = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    mask[:3] = IGNORE_INDEX
    return mask


def paint(mask, num_bands=3, dtype="uint8", gain=1.0):
    values = np.array([200, 100, 30])[np.minimum(mask, 2)] * gain
    return np.stack([values + 5 * band for band in range(num_bands)]).astype(dtype)


def scene(name="a", *, split="train", crs=UTM, at=(0.0, 0.0), size=400, num_bands=3, dtype="uint8", gain=1.0, **more):
    mask = blocks(64, 64)
    valid = np.ones(mask.shape, bool)
    valid[:, :4] = False
    counts = {
        "num_px": size * size,
        "valid_px": 150_000,
        "label_counts": (90_123, 50_456, 4_789),
        "ignored_px": 4_632,
        "tiled_counts": (90_000, 50_456, 4_789),
        "left_out_counts": (123, 0, 0),
        "coverage": (123, 149_000, 877),
        "low_px": (0,) * num_bands,
        "high_px": (1_500, *(0,) * (num_bands - 1)),
    }
    facts = SceneFacts(
        **counts | more.pop("facts", {}),
        preview=Preview(step=7, pixels=paint(mask, num_bands, dtype, gain), valid=valid, mask=mask),
    )
    transform = Affine(0.5, 0, 366000 + at[0], 0, -0.5, 5808000 + at[1]) if crs else Affine.identity()
    fields = {
        "name": name, "split": split, "source_image": f"/data/{name}.tif", "source_label": f"/data/{name}_label.tif",
        "grid": Grid(crs=crs, transform=transform, width=size, height=size), "num_tiles": 16,
        "pixel_size_m": 0.5 if crs else None, "shift": Shift(cols=0.3, rows=0.0, score=8.0),
    }  # fmt: skip
    return SceneAudit(facts=facts, **fields | more)


def tiles_of(one, split=None, tile_px=100):
    split = split or one.split
    windows = sliding_windows(one.grid.height, one.grid.width, tile_px, tile_px)
    return tuple(TileFootprint(scene=one.name, split=split, window=window) for window in windows)


def sample(name="a_0_0", *, split="train", height=48, width=64, num_bands=3, dtype="uint8"):
    mask = blocks(height, width, seed=3)
    valid = np.ones(mask.shape, bool)
    return TileSample(name=name, split=split, pixels=paint(mask, num_bands, dtype), valid=valid, mask=mask)


def audit(*scenes, **more):
    fields = {
        "name": "town", "source": "/data/town", "preset": "potsdam", "classes": CLASSES,
        "band_names": ("red", "green", "blue"), "dtype": "uint8", "findings": (), "scenes": scenes,
        "class_px": {"train": (700, 200, 100), "val": (50, 0, 50)},
        "tiles": tuple(tile for one in scenes for tile in tiles_of(one)), "samples": (), "tile_px": 100,
        "stride_px": 80, "written": True,
    }  # fmt: skip
    return Audit(**fields | more)


class Page:
    """A page, read strictly."""

    def __init__(self, found):
        self.text = render_page(found)
        self.root = ElementTree.fromstring(self.text)
        self.sections = {section.get("id"): section for section in self.root.iter("section")}

    def rows(self, section, table=0):
        found = list(self.sections[section].iter("table"))[table]
        return [
            ["".join(cell.itertext()).replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in found.iter("tr")
        ]

    def words(self, section):
        return " ".join("".join(self.sections[section].itertext()).split())

    def maps(self):
        return list(self.sections["map"].iter("svg"))

    @property
    def verdict(self):
        return self.root.find("body/header/p")


def decode(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(";base64,")[1], validate=True)))


def test_the_verdict_comes_first():
    fault = Finding(level="fault", check="alignment", message="label lies elsewhere", scene="a")
    warning = Finding(level="warning", check="radiometry", message="dark")
    page = Page(audit(scene(), findings=(warning, fault)))
    assert page.verdict.get("class") == "verdict fault"
    assert page.verdict.text.startswith("1 fault, 1 warning: each label pixel is accounted for; tiles were written.")
    unread = Finding(level="fault", check="files", message="cut short", scene="b")
    page = Page(audit(scene(), findings=(fault, unread)))
    assert "2 faults, 0 warnings: 1 scene could not be read; of the others, each label pixel" in page.verdict.text
    warned = Page(audit(scene(), findings=(warning,), written=False)).verdict
    assert warned.get("class") == "verdict warning"
    assert "0 faults, 1 warning" in warned.text
    assert "nothing was written" in warned.text
    fine = Page(audit(scene())).verdict
    assert fine.get("class") == "verdict good"
    assert fine.text.startswith("0 faults, 0 warnings")


def test_the_head_says_what_was_looked_at():
    page = Page(audit(scene()))
    facts = page.root.find("body/header/dl")
    found = {term.text: value.text for term, value in zip(facts.iter("dt"), facts.iter("dd"), strict=True)}
    assert found == {
        "Source": "/data/town",
        "Preset": "potsdam",
        "Scenes": "1",
        "Tiles": "16 tiles of 100 px, 80 px apart",
        "Classes": "ground, building & <roof>, clutter (not scored); ignored: void",
        "Bands": "red, green, blue (uint8)",
        "Made by": f"ctrs {__version__}",
    }
    assert page.root.find("head/title").text == "Data report: town"


def test_sections_stand_in_order():
    page = Page(audit(scene()))
    expected = ["findings", "classes", "coverage", "splits", "map", "tiles", "scenes", "radiometry", "previews"]
    assert list(page.sections) == expected
    assert [link.get("href") for link in page.root.find("body").iter("a")] == [f"#{key}" for key in expected]


def test_faults_come_first_among_the_findings():
    found = (
        Finding(level="note", check="colours", message="n"),
        Finding(level="warning", check="splits", message="w"),
        Finding(level="fault", check="files", message=NASTY, scene=NASTY),
    )
    rows = Page(audit(scene(), findings=found)).rows("findings")
    assert rows[1:] == [["fault", "files", NASTY, NASTY], ["warning", "splits", "", "w"], ["note", "colours", "", "n"]]


def test_class_counts_before_and_after():
    page = Page(audit(scene("a"), scene("b")))
    assert page.rows("classes")[1:] == [
        [" ground", "180,246", "62.00 %", "180,000", "246", "= equal"],
        [" building & <roof>", "100,912", "34.71 %", "100,912", "0", "= equal"],
        [" clutter", "9,578", "3.29 %", "9,578", "0", "= equal"],
        ["all classes", "290,736", "100 %", "290,490", "246", "= equal"],
    ]
    assert [row[1] for row in page.rows("classes", 1)[1:]] == ["90,123", "50,456", "4,789", "145,368"]
    assert "9,264 px are ignored or unknown (3.09 % of 300,000 px with imagery)" in page.words("classes")
    assert "20,000 px hold no imagery (6.25 % of 320,000 px)" in page.words("classes")


def test_a_lost_pixel_is_a_fault_even_without_a_finding():
    lost = scene("lost", facts={"left_out_counts": (122, 0, 0)})
    page = Page(audit(scene("whole"), lost))
    assert page.verdict.get("class") == "verdict fault"
    assert "class counts before and after differ" in page.verdict.text
    assert page.rows("classes")[1][-1] == "≠ −1 px"
    captions = [caption.text for caption in page.sections["classes"].iter("caption")]
    assert captions == ["All scenes (2)", "lost", "whole"]


def test_losses_that_cancel_out_over_scenes_are_seen():
    more = scene("more", facts={"left_out_counts": (124, 0, 0)})
    less = scene("less", facts={"left_out_counts": (122, 0, 0)})
    page = Page(audit(more, less))
    assert page.verdict.get("class") == "verdict fault"
    assert [page.rows("classes", table)[1][-1] for table in (0, 1, 2)] == ["= equal", "≠ +1 px", "≠ −1 px"]


def test_unknown_colours_with_counts_and_places():
    odd = {"unknown": {"(12, 34, 56)": 1_077, "(1, 2, 3)": 5}, "first_unknown": (1_005, 6), "num_changed": 42}
    page = Page(audit(scene("a"), scene("b", facts=odd), scene("c", facts={"unknown": {"(1, 2, 3)": 4}})))
    assert page.rows("classes", 1)[1:] == [
        ["(12, 34, 56)", "1,077", "b (first at row 1,005, column 6)"],
        ["(1, 2, 3)", "9", "b (first at row 1,005, column 6), c"],
    ]
    assert "42 px had a colour near one of the legend" in page.words("classes")


def test_coverage_of_scenes_with_different_overlap():
    page = Page(audit(scene("a"), scene("b", facts={"coverage": (0, 10, 0, 5)})))
    assert page.rows("coverage")[1:] == [
        ["0", "123", "0.08 %"], ["1", "149,010", "99.33 %"], ["2", "877", "0.58 %"], ["3", "5", "< 0.01 %"],
    ]  # fmt: skip
    assert page.rows("coverage", 1)[1:] == [["a", "123", "0.08 %"]]


def test_splits():
    one, two = scene("a"), scene("b")
    out = TileFootprint(scene="b", split=None, window=PixelWindow(col_off=0, row_off=0, width=9, height=9))
    tiles = (*tiles_of(one), *tiles_of(two, "val")[:4], out)
    page = Page(audit(one, two, tiles=tiles))
    assert page.rows("splits")[1:] == [["train", "1", "16", "80.00 %"], ["val", "1", "4", "20.00 %"]]
    assert page.rows("splits", 1)[1:] == [
        [" ground", "700", "70.00 %", "50", "50.00 %"],
        [" building & <roof>", "200", "20.00 %", "0", "0 %"],
        [" clutter", "100", "10.00 %", "50", "50.00 %"],
        ["all classes", "1,000", "", "100", ""],
    ]
    bars = [rect for rect in page.sections["splits"].iter("rect") if rect.get("fill")]
    assert [(rect.get("fill"), float(rect.get("width"))) for rect in bars] == [
        ("#ffffff", 504), ("#0000ff", 144), ("#ff0000", 72), ("#ffffff", 360), ("#ff0000", 360),
    ]  # fmt: skip
    assert "1 tile left out" in page.words("splits")


def test_scenes_near_each_other_stand_on_one_map():
    scenes = (scene("a"), scene("b", at=(200.0, 0.0)), scene("far", at=(90_000.0, 0.0)), scene("none", crs=None))
    page = Page(audit(*scenes))
    captions = [caption.text for caption in page.sections["map"].iter("figcaption")]
    assert captions == ["a, b: 32 train", "far: 16 train", "none: 16 train"]
    assert "2 maps, one for each place, in EPSG:32633" in page.words("map")
    assert "1 scene without a place on the ground: it is drawn in its own pixels" in page.words("map")
    bars = [[text.text for text in drawn.iter("text")][-1] for drawn in page.maps()]
    assert bars == ["100 m", "50 m", "100 px"]


def test_maps_put_scenes_of_several_crs_together():
    other = scene("b", crs=CRS.from_epsg(3857))
    here = scene("a")
    x, y = 1_446_000.0, 6_872_000.0  # near a's place, 13 degrees east and 52.4 degrees north
    grid = replace(other.grid, transform=Affine(0.5, 0, x, 0, -0.5, y))
    page = Page(audit(here, replace(other, grid=grid)))
    assert "in EPSG:4326" in page.words("map")
    found = page.maps()
    assert all("NaN" not in (path.get("d") or "") for drawn in found for path in drawn.iter("path"))
    assert len(found) == 2
    # A scene of 200 m on the ground is as wide as it is high, though degrees of longitude are shorter.
    tiles, outline = (path for path in found[0].iter("path") if path.get("transform"))
    xs, ys = edges(outline.get("d"))
    assert np.ptp(xs) == pytest.approx(np.ptp(ys), rel=0.05)
    assert [np.ptp(side) for side in edges(tiles.get("d"))] == [np.ptp(xs), np.ptp(ys)]


def edges(path):
    """Return all coordinates on a path."""
    x = y = 0
    xs, ys = [], []
    for command, numbers in re.findall(r"([Mlhv])([-\d ]*)", path):
        values = [int(number) for number in numbers.split()]
        if command == "M":
            x, y = values
        else:
            dx, dy = values if command == "l" else (values[0], 0) if command == "h" else (0, values[0])
            x, y = x + dx, y + dy
        xs.append(x)
        ys.append(y)
    return xs, ys


def test_a_scene_whose_crs_cannot_hold_it_is_drawn_in_its_own_pixels():
    odd = scene("odd", crs=CRS.from_epsg(4326))  # metres taken for degrees
    page = Page(audit(scene("a"), odd))
    captions = [caption.text for caption in page.sections["map"].iter("figcaption")]
    assert sorted(captions) == ["a: 16 train", "odd: 16 train"]


def test_tiles_that_were_left_out_are_hatched():
    one = scene("a")
    page = Page(audit(one, tiles=(*tiles_of(one)[1:], replace(tiles_of(one)[0], split=None))))
    (drawn,) = page.maps()
    layers = [path for path in drawn.iter("path") if path.get("transform") and path.get("class") is None]
    assert [layer.find("title").text for layer in layers] == ["left out", "train"]
    assert layers[0].get("fill").startswith("url(#")
    legend = ["".join(entry.itertext()).strip() for entry in page.sections["map"].iter("li")]
    assert legend == ["train", "left out"]
    assert "a: 15 train, 1 left out" in page.words("map")


@pytest.mark.parametrize(("crs", "num_tiles"), [(UTM, 40_000), (None, 6_400)])
def test_many_tiles_make_a_small_page_quickly(crs, num_tiles):
    size = 256 * math.isqrt(num_tiles)
    one = scene("a", size=size, crs=crs)
    tiles = tuple(
        replace(
            tile, split="val" if tile.window.col_off > size - 9_000 else None if tile.window.row_off == 0 else "train"
        )
        for tile in tiles_of(one, tile_px=256)
    )
    assert len(tiles) == num_tiles
    started = time.perf_counter()
    page = Page(audit(one, tiles=tiles))
    assert time.perf_counter() - started < 10
    assert len(page.text) < 200_000
    counts = [sum(tile.split == split for tile in tiles) for split in ("train", "val", None)]
    assert "a: {:,} train, {:,} val, {:,} left out".format(*counts) in page.words("map")


def test_merged_tiles_cover_what_the_tiles_cover():
    rng = np.random.default_rng(0)
    windows = [
        PixelWindow(col_off=int(col) * 50, row_off=int(row) * 50, width=100, height=100)
        for row, col in rng.integers(0, 99, (3_500, 2))
    ]
    splits = rng.choice(["train", "val"], len(windows))
    tiles = tuple(TileFootprint(scene="a", split=str(s), window=w) for s, w in zip(splits, windows, strict=True))
    (drawn,) = Page(audit(scene("a", size=5_000), tiles=tiles)).maps()
    layers = [path for path in drawn.iter("path") if path.get("transform") and path.get("class") is None]
    scale = 6480 / 5_000  # tenths of a pixel of a map that is 660 px wide, with margins of 6 px
    for layer in layers:
        split = layer.find("title").text
        expected, found = np.zeros((2, 100, 100), bool)
        for tile in tiles:
            if tile.split == split:
                rows, cols = tile.window.slices
                expected[rows.start // 50 : rows.stop // 50, cols.start // 50 : cols.stop // 50] = True
        for ring in layer.get("d").split("z")[:-1]:
            xs, ys = (np.rint((np.array(side) - 60) / scale / 50).astype(int) for side in edges(ring))
            found[ys.min() : ys.max(), xs.min() : xs.max()] = True
        np.testing.assert_array_equal(found, expected)
        assert layer.get("d").count("M") < sum(splits == split) * 0.9
        assert layer.get("stroke") == "none"


def test_the_contact_sheet_shows_each_tile_and_its_mask():
    found = (sample("a_0_0"), sample(NASTY, split="val", height=64, width=20))
    page = Page(audit(scene(), samples=found))
    figures = list(page.sections["tiles"].iter("figure"))
    assert ["".join(entry.find("figcaption").itertext()) for entry in figures] == ["a_0_0, train", f"{NASTY}, val"]
    for entry, tile in zip(figures, found, strict=True):
        picture, overlay = (decode(image.get("href")) for image in entry.iter("image"))
        assert picture.size == overlay.size == tile.mask.shape[::-1]
        shown = np.asarray(picture.convert("RGB")).astype(int)
        assert np.abs(shown - np.moveaxis(tile.pixels, 0, -1)).max() <= (0 if picture.format == "PNG" else 40)
        colours = np.asarray(overlay.convert("RGBA"))
        learnt = tile.mask != IGNORE_INDEX
        np.testing.assert_array_equal(colours[learnt][:, :3], np.array(CLASSES.colors)[tile.mask[learnt]])
        assert (colours[~learnt][:, 3] == 0).all()
        assert (colours[learnt][:, 3] > 0).all()
    legend = [" ".join(entry.itertext()).strip() for entry in page.sections["tiles"].find("ul")]
    assert legend == ["ground", "building & <roof>", "clutter"]


def test_pictures_have_ids_of_their_own():
    page = Page(audit(scene("a"), scene("b"), samples=(sample(), sample("x"))))
    keys = [tag.get("id") for tag in page.root.iter() if tag.get("id")]
    assert len(keys) == len(set(keys))
    for use in page.root.iter("use"):
        assert use.get("href").removeprefix("#") in keys


def test_each_picture_says_what_it_shows():
    page = Page(audit(scene(), samples=(sample(),)))
    for drawn in page.root.iter("svg"):
        assert drawn.get("role") == "img"
        assert drawn.get("aria-label")
        assert drawn.find("title").text == drawn.get("aria-label")


def test_the_table_of_scenes():
    bad = scene("7_10", known_bad=True, shift=Shift(cols=3.24, rows=-0.5, score=9.0))
    vague = scene("b", split="train+val", crs=None, shift=Shift(cols=9.0, rows=9.0, score=4.0))
    page = Page(audit(bad, vague, scene("c", shift=None)))
    levels = ["0 %", "1.00 %"]
    assert page.rows("scenes")[1:] == [
        ["7_10 known bad", "train", "400 × 400", "EPSG:32633", "0.5", "16", "93.75 %", "+3.2, −0.5", "9.0", *levels],
        ["b", "train+val", "400 × 400", "none", "–", "16", "93.75 %", "+9.0, +9.0", "4.0", *levels],
        ["c", "train", "400 × 400", "EPSG:32633", "0.5", "16", "93.75 %", "–", "–", *levels],
    ]
    marked = [tag.text for tag in page.sections["scenes"].iter("span") if tag.get("class") == "level warning"]
    assert marked == ["known bad", "+3.2, −0.5"]
    assert page.rows("scenes", 1)[1] == ["7_10", "/data/7_10.tif", "/data/7_10_label.tif"]


@pytest.mark.parametrize(
    ("dtype", "bands", "gain"),
    [
        ("uint16", ("blue", "green", "red", "nir"), 40.0), ("int16", ("height",), 10.0), ("float32", ("a", "b"), 0.001),
        ("uint8", tuple(f"b{number}" for number in range(1, 21)), 1.0),
    ],
)  # fmt: skip
def test_bands_of_any_kind_are_shown(dtype, bands, gain):
    num = len(bands)
    one = scene("a", num_bands=num, dtype=dtype, gain=gain)
    if dtype == "float32":
        one.facts.preview.pixels[:, 10, 10] = np.nan
    found = (sample(num_bands=num, dtype=dtype),)
    page = Page(audit(one, band_names=bands, dtype=dtype, samples=found))
    assert "NaN" not in page.text.split("</style>")[1].split("base64")[0]
    lines = [path for path in page.sections["radiometry"].iter("path") if path.get("class") != "behind"]
    assert [path.find("title").text for path in lines] == list(bands)
    assert all("nan" not in path.get("d") for path in lines)
    picture = decode(next(page.sections["previews"].iter("image")).get("href")).convert("RGB")
    seen = np.asarray(picture)[5:, 6:]
    assert np.ptp(seen) > 100, "a picture without contrast shows nothing"


def test_red_is_shown_as_red():
    one = scene("a", num_bands=4, dtype="uint16")
    one.facts.preview.pixels[2] = np.linspace(0, 9000, 64).astype(np.uint16)  # red, third in the file
    page = Page(audit(one, band_names=("blue", "green", "red", "nir"), dtype="uint16"))
    picture = np.asarray(decode(next(page.sections["previews"].iter("image")).get("href")).convert("RGB")).astype(int)
    assert picture[30, -1, 0] > picture[30, 6, 0] + 150


def test_pixels_without_imagery_are_grey():
    page = Page(audit(scene("a")))
    picture = np.asarray(decode(next(page.sections["previews"].iter("image")).get("href")).convert("RGB")).astype(int)
    assert np.abs(picture[:, :3] - 208).max() <= 8


def test_histograms_show_which_scene_is_brighter():
    dark, bright = scene("dark", gain=0.3), scene("bright", gain=1.2)
    found = (Finding(level="warning", check="radiometry", message="brighter", scene="bright"),)
    page = Page(audit(dark, bright, findings=found))
    peaks = []
    for drawn in page.sections["radiometry"].iter("svg"):
        path = next(path for path in drawn.iter("path") if path.get("class") != "behind").get("d")
        points = np.array(re.findall(r"([\d.]+) ([\d.]+)", path), float)
        peaks.append(points[points[:, 1] < points[:, 1].max(), 0].max())
    assert peaks[0] < 60 < 180 < peaks[1]
    captions = ["".join(entry.itertext()) for entry in page.sections["radiometry"].iter("figcaption")]
    assert captions == ["dark, train", "bright, train see findings"]


@pytest.mark.parametrize(("dtype", "num_values"), [("uint8", 256), ("uint16", 100), ("int16", 150)])
def test_histograms_of_whole_numbers_are_no_combs(dtype, num_values):
    one = scene("a", dtype=dtype)
    spread = np.arange(64 * 64) % num_values  # each value as often as any other
    one.facts.preview.pixels[:] = spread.reshape(64, 64)
    one.facts.preview.valid[:] = True
    page = Page(audit(one, dtype=dtype))
    path = next(path for path in page.sections["radiometry"].iter("path") if path.get("class") != "behind").get("d")
    heights = np.array([84 - float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", path)])
    width = -(-num_values // 64)
    full = heights[: num_values // width]
    assert np.ptp(full) <= 4, "as high as each other, but for a value that occurs once more"
    assert (heights[num_values // width + 1 :] == 0).all()


def test_forty_scenes_stay_below_three_megabytes():
    rng = np.random.default_rng(0)

    def noisy(pixels):
        return rng.integers(0, 256, pixels.shape).astype(np.uint8)

    mask = blocks(256, 256)
    scenes = []
    for number in range(40):
        one = scene(f"s{number}", at=(200.0 * number, 0.0))
        preview = Preview(step=20, pixels=noisy(np.zeros((3, 256, 256))), valid=mask < 9, mask=mask)
        scenes.append(replace(one, facts=replace(one.facts, preview=preview)))
    samples = tuple(
        replace(sample(f"t{number}"), pixels=noisy(np.zeros((3, 256, 256))), mask=mask, valid=mask < 9)
        for number in range(12)
    )
    page = Page(audit(*scenes, samples=samples))
    # Noise is the worst that a picture can hold.
    assert len(page.text) < 3_000_000
    assert len(list(page.sections["previews"].iter("figure"))) == 40


def test_very_many_scenes_are_cut_short_and_say_so():
    scenes = tuple(scene(f"s{number}", crs=None) for number in range(700))
    found = (Finding(level="warning", check="radiometry", message="odd", scene="s699"),)
    page = Page(audit(*scenes, findings=found))
    assert len(page.text) < 3_000_000
    assert page.rows("scenes")[1][0] == "s699"
    assert "And 200 more scenes." in page.words("scenes")
    assert "And 640 more scenes." in page.words("radiometry")
    assert len(page.maps()) == 60


def test_a_source_of_which_nothing_can_be_read():
    fault = Finding(level="fault", check="files", message="cut short")
    page = Page(audit(findings=(fault,), class_px={}, band_names=(), tile_px=0, stride_px=0, preset=None))
    assert page.verdict.get("class") == "verdict fault"
    assert "no scene could be read" in page.verdict.text
    assert page.rows("findings")[1][-1] == "cut short"


def test_names_never_become_markup():
    one = scene(NASTY)
    odd = audit(one, name=NASTY, source=NASTY, preset=NASTY, samples=(sample(NASTY),), band_names=(NASTY, "g", "b"))
    page = Page(odd)
    assert "<b>" not in page.text
    assert page.root.find("body/header/h1").text == f"Data report: {NASTY}"
    assert page.rows("scenes")[1][0] == NASTY
    assert list(page.sections) == list(Page(audit(scene())).sections)


def test_the_same_audit_gives_the_same_bytes(tmp_path):
    found = audit(scene("a"), scene("b", crs=None), samples=(sample(),))
    first = write_page(tmp_path / "one.html", found)
    second = write_page(tmp_path / "two.html", found)
    assert first == tmp_path / "one.html"
    assert first.read_bytes() == second.read_bytes() == render_page(found).encode()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["one.html", "two.html"]


def test_nothing_from_elsewhere_is_needed():
    page = Page(audit(scene("a"), samples=(sample(),)))
    body = page.text.split("</style>")[1]
    for reference in re.findall(r'(?:href|src)="([^"]*)"', body):
        assert reference.startswith(("#", "data:image/png;base64,", "data:image/jpeg;base64,"))
    assert "http" not in page.text


def test_a_page_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(OutputError, match=r"missing/report\.html: cannot be written"):
        write_page(tmp_path / "missing" / "report.html", audit(scene()))


def test_odd_scenes_can_be_shown():
    thin = scene("thin")
    mask = np.full((200, 1), IGNORE_INDEX, np.uint8)
    preview = Preview(step=1, pixels=paint(mask), valid=np.zeros(mask.shape, bool), mask=mask)
    empty = {"valid_px": 0, "label_counts": (0,) * 3, "tiled_counts": (0,) * 3, "left_out_counts": (0,) * 3}
    facts = replace(thin.facts, preview=preview, coverage=(), ignored_px=0, **empty)
    thin = replace(thin, facts=facts, grid=replace(thin.grid, width=1, height=200), num_tiles=0)
    page = Page(audit(thin, tiles=(), class_px={"train": (0, 0, 0)}))
    assert page.rows("scenes")[1][2:3] == ["1 × 200"]
    assert page.rows("classes")[1] == [" ground", "0", "–", "0", "0", "= equal"]
    assert decode(next(page.sections["previews"].iter("image")).get("href")).size == (1, 200)
    assert "thin: no tiles" in page.words("map")
    assert "nan" not in "".join(path.get("d") for path in page.root.iter("path"))
