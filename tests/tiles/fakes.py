"""Small data sets in the layouts in which the public ones are downloaded: names, dtypes, CRS, label coding, lists.

``python tests/tiles/fakes.py OUT [NAME ...]`` writes them to ``OUT/NAME``, to be tried as a new user would.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

IGNORED = 255
"""What prepared masks hold where a pixel is neither learnt nor scored."""

SIZE_PX = 96
CHIP_PX = 512

ISPRS = ((255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0), (0, 0, 0))
UAVID = (
    (0, 0, 0), (128, 0, 0), (128, 64, 128), (0, 128, 0), (128, 128, 0), (64, 0, 128), (192, 0, 192), (64, 64, 0),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FakeScene:
    """A scene that was written.

    Args:
        split: Its official split.
        image: Pixels (C, H, W).
        mask: What a prepared mask of the whole scene must hold.
        eroded: The same with eroded class borders.
        dsm: Heights (H, W).
        variants: Pixels (C, H, W) of each kind of images, by name; empty where there is one kind.
        labelled: Its label was written.
        known_bad: Its labels are known to be wrong.
        chips: Split of each chip by row and column; empty where the scene is in one split.
    """

    split: str
    image: np.ndarray
    mask: np.ndarray
    eroded: np.ndarray | None = None
    dsm: np.ndarray | None = None
    variants: Mapping[str, np.ndarray] = field(default_factory=dict)
    labelled: bool = True
    known_bad: bool = False
    chips: Mapping[tuple[int, int], str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fake:
    """A data set that was written.

    Args:
        root: The folder.
        preset: Name of the preset that must be recognised.
        scenes: By the names that prepare gives them.
        classes: Names of the classes that are learnt.
        bands: Names of the bands.
        crs: CRS of the scenes, None if they have none.
        pixel_size_m: Ground pixel, None if it is not known.
    """

    root: Path
    preset: str
    scenes: Mapping[str, FakeScene]
    classes: tuple[str, ...]
    bands: tuple[str, ...] = ("red", "green", "blue")
    crs: str | None = None
    pixel_size_m: float | None = None


def blocks(num: int, seed: int, *, size: tuple[int, int] = (SIZE_PX, SIZE_PX)) -> np.ndarray:
    """Class indices (H, W) in blocks of a city plan: each class is there."""
    rng = np.random.default_rng(seed)
    step = max(8, min(size) // 12)
    shape = (-(-size[0] // step), -(-size[1] // step))
    coarse = rng.permutation(np.resize(np.arange(num), shape[0] * shape[1])).reshape(shape)
    return coarse.repeat(step, 0).repeat(step, 1)[: size[0], : size[1]].astype(np.uint8)


def picture(classes: np.ndarray, seed: int, *, bands: int = 3, dtype: str = "uint8") -> np.ndarray:
    """Pixels (C, H, W) in which each class has its own brightness, with noise."""
    rng = np.random.default_rng([seed, bands])
    low, high, noise = (30, 220, 12) if dtype == "uint8" else (200, 1800, 60)
    tones = np.random.default_rng(bands).integers(low + 3 * noise, high - 3 * noise, (bands, 256))
    return (tones[:, classes] + rng.normal(0, noise, (bands, *classes.shape)).clip(-35, 35)).round().astype(dtype)


def erode(mask: np.ndarray, ignored: int = IGNORED) -> np.ndarray:
    """Class indices without the pixels at class borders."""
    border = np.zeros(mask.shape, bool)
    for axis in (0, 1):
        differs = np.diff(mask.astype(int), axis=axis) != 0
        first = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        second = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
        border[first] |= differs
        border[second] |= differs
    return np.where(border, np.uint8(ignored), mask)


def write(path: Path, pixels: np.ndarray, *, transform: Affine | None = None, **profile: Any) -> Path:
    """Write a raster of (H, W) or (C, H, W); the ending of the name gives the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = pixels if pixels.ndim == 3 else pixels[None]
    driver = {".png": "PNG", ".jpg": "JPEG"}.get(path.suffix, "GTiff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver=driver, width=bands.shape[2], height=bands.shape[1], count=len(bands),
            dtype=bands.dtype.name, transform=transform, **profile,
        ) as dataset:  # fmt: skip
            dataset.write(bands)
    path.with_name(f"{path.name}.aux.xml").unlink(missing_ok=True)
    return path


def write_world_file(path: Path, transform: Affine) -> None:
    """Write the .tfw of a raster, whose last two numbers are the centre of the first pixel."""
    a, e = transform.a, transform.e
    numbers = (a, 0.0, 0.0, e, transform.c + a / 2, transform.f + e / 2)
    path.with_suffix(".tfw").write_text("".join(f"{number:.10f}\n" for number in numbers))


def painted(colors: Sequence[tuple[int, int, int]], indices: np.ndarray) -> np.ndarray:
    return np.array(colors, np.uint8)[indices].transpose(2, 0, 1)


ISPRS_CLASSES = ("impervious surface", "building", "low vegetation", "tree", "car", "clutter")


def potsdam(root: Path) -> Fake:
    """Unzipped folders; TIFFs without CRS but with world files, a label with 252 for 255, heights with padded ids.

    Labels of the training scenes are there twice, and there are files that nobody asks for. GDAL calls the infrared of
    RGBIR alpha; it is 0 in places, as water is.
    """
    scenes: dict[str, FakeScene] = {}
    kinds = {"RGB": (0, 1, 2), "IRRG": (3, 0, 1), "RGBIR": (0, 1, 2, 3)}
    for seed, (name, split) in enumerate({"2_10": "train", "7_10": "train", "2_13": "test"}.items()):
        row, col = (int(part) for part in name.split("_"))
        mask = blocks(6, seed)
        eroded = erode(mask)
        image = picture(mask, seed, bands=4)
        dsm = (40 + 3.0 * mask + np.random.default_rng(seed).normal(0, 0.1, mask.shape)).astype(np.float32)
        transform = Affine(0.05, 0, 366000 + col * 0.05 * SIZE_PX, 0, -0.05, 5808000 - row * 0.05 * SIZE_PX)
        image[3, 20:40, 50:80] = 0
        for number, (kind, bands) in enumerate(kinds.items(), 2):
            path = write(root / f"{number}_Ortho_{kind}" / f"top_potsdam_{name}_{kind}.tif", image[list(bands)])
            write_world_file(path, transform)
        path = write(root / "1_DSM" / f"dsm_potsdam_{row:02d}_{col:02d}.tif", dsm)
        write_world_file(path, transform)
        label = painted(ISPRS, mask)
        if name == "2_10":
            label[:, :8, :8] = np.where(label[:, :8, :8] == 255, 252, label[:, :8, :8])
        write(root / "5_Labels_all" / f"top_potsdam_{name}_label.tif", label)
        cut = painted(ISPRS, np.where(eroded == IGNORED, 6, eroded))
        write(root / "5_Labels_all_noBoundary" / f"top_potsdam_{name}_label_noBoundary.tif", cut)
        if split == "train":  # the same again, as they were given out during the contest
            write(root / "5_Labels_for_participants" / f"top_potsdam_{name}_label.tif", label)
            folder = "5_Labels_for_participants_no_Boundary"
            write(root / folder / f"top_potsdam_{name}_label_noBoundary.tif", cut)
        grey = (dsm - dsm.min()).round().astype(np.uint8)
        name = f"dsm_potsdam_{row:02d}_{col:02d}_normalized_lastools.jpg"
        write(root / "1_DSM_normalisation" / name, grey)
        scenes[f"potsdam_{row}_{col}"] = FakeScene(
            split=split, image=image[:3], mask=mask, eroded=eroded, dsm=dsm, known_bad=(row, col) == (7, 10),
            variants={kind: image[list(bands)] for kind, bands in kinds.items()},
        )  # fmt: skip
    return Fake(root=root, preset="potsdam", scenes=scenes, classes=ISPRS_CLASSES, crs="EPSG:32633", pixel_size_m=0.05)


def potsdam_zipped(root: Path) -> Fake:
    """One archive of archives, as downloaded; some hold a folder, some hold the files alone."""
    return _zip_potsdam(root, nested=True)


def potsdam_archives(root: Path) -> Fake:
    """A folder with the archives that the download holds."""
    return _zip_potsdam(root, nested=False)


def _zip_potsdam(root: Path, *, nested: bool) -> Fake:
    unzipped = root.with_name(f"{root.name}_unzipped")
    fake = potsdam(unzipped)
    root.mkdir(parents=True, exist_ok=True)
    with_folder = {"2_Ortho_RGB", "4_Ortho_RGBIR", "1_DSM"}
    (root / "assess_classification_reference_implementation.tgz").write_bytes(b"\x1f\x8b")
    for folder in sorted(unzipped.iterdir()):
        prefix = f"{folder.name}/" if folder.name in with_folder else ""
        _zip(root / f"{folder.name}.zip", {f"{prefix}{path.name}": path for path in sorted(folder.iterdir())})
    if nested:
        parts = sorted(root.iterdir())
        _zip(root / "Potsdam.zip", {f"Potsdam/{path.name}": path for path in parts})
        for path in parts:
            path.unlink()
    shutil.rmtree(unzipped)
    return replace(fake, root=root)


def vaihingen(root: Path) -> Fake:
    """Unzipped: the image archive with labels of training scenes, and the two archives of complete labels beside it."""
    images = root / "ISPRS_semantic_labeling_Vaihingen"
    complete = root / "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE"
    cut_complete = root / "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE"
    scenes: dict[str, FakeScene] = {}
    for seed, (area, split) in enumerate({1: "train", 3: "train", 2: "test"}.items()):
        mask = blocks(6, 10 + seed)
        eroded = erode(mask)
        image = picture(mask, 10 + seed)
        dsm = (260 + 2.0 * mask).astype(np.float32)
        transform = Affine(0.09, 0, 496000 + 100 * area, 0, -0.09, 5420000)
        name = f"top_mosaic_09cm_area{area}"
        write_world_file(write(images / "top" / f"{name}.tif", image), transform)
        write_world_file(write(images / "dsm" / f"dsm_09cm_matching_area{area}.tif", dsm), transform)
        label = painted(ISPRS, mask)
        cut = painted(ISPRS, np.where(eroded == IGNORED, 6, eroded))
        if split == "train":
            write(images / "gts_for_participants" / f"{name}.tif", label)
            write(images / "gts_eroded_for_participants" / f"{name}_noBoundary.tif", cut)
        write(complete / f"{name}.tif", label)
        write(cut_complete / f"{name}_noBoundary.tif", cut)
        scenes[f"vaihingen_{area}"] = FakeScene(split=split, image=image, mask=mask, eroded=eroded, dsm=dsm)
    return Fake(
        root=root, preset="vaihingen", scenes=scenes, classes=ISPRS_CLASSES,
        bands=("near infrared", "red", "green"), crs="EPSG:32632", pixel_size_m=0.09,
    )  # fmt: skip


def vaihingen_zipped(root: Path) -> Fake:
    """The three archives as downloaded, which hold no folder of their own names."""
    return _zipped(vaihingen, root, own_folder=False)


def loveda(root: Path) -> Fake:
    """PNG without georeference, values 1 to 7, 0 where nothing is labelled; Urban and Rural count from 0 each."""
    classes = ("background", "building", "road", "water", "barren", "forest", "agriculture")
    scenes: dict[str, FakeScene] = {}
    for seed, (split, area, number) in enumerate(
        (("Train", "Rural", 0), ("Train", "Urban", 1366), ("Val", "Urban", 3514), ("Test", "Rural", 4191))
    ):
        values = blocks(8, 20 + seed)
        image = picture(values, 20 + seed)
        write(root / split / area / "images_png" / f"{number}.png", image)
        if split != "Test":
            write(root / split / area / "masks_png" / f"{number}.png", values)
        mask = np.where(values == 0, np.uint8(IGNORED), values - np.uint8(1))
        scenes[f"loveda_{area}_{number}"] = FakeScene(
            split=split.lower(), image=image, mask=mask, labelled=split != "Test"
        )
    return Fake(root=root, preset="loveda", scenes=scenes, classes=classes)


def loveda_zipped(root: Path) -> Fake:
    """The three archives as downloaded: Train.zip holds Train/."""
    return _zipped(loveda, root)


def uavid(root: Path) -> Fake:
    """Frames of video sequences, colours for classes; nothing is labelled in the test sequences."""
    classes = ("clutter", "building", "road", "tree", "low vegetation", "moving car", "static car", "human")
    base = root / "uavid_v1.5_official_release_image"
    scenes: dict[str, FakeScene] = {}
    for seed, (split, sequence, frame) in enumerate(
        (
            ("train", "seq1", "000000"),
            ("train", "seq1", "000100"),
            ("val", "seq16", "000000"),
            ("test", "seq21", "000000"),
        )
    ):
        mask = blocks(8, 30 + seed)
        image = picture(mask, 30 + seed)
        write(base / f"uavid_{split}" / sequence / "Images" / f"{frame}.png", image)
        if split != "test":
            write(base / f"uavid_{split}" / sequence / "Labels" / f"{frame}.png", painted(UAVID, mask))
        scenes[f"uavid_{sequence}_{int(frame)}"] = FakeScene(
            split=split, image=image, mask=mask, labelled=split != "test"
        )
    return Fake(root=root, preset="uavid", scenes=scenes, classes=classes)


def inria(root: Path) -> Fake:
    """0 and 255; the first five images of a city validate, the labels of other cities are not published."""
    base = root / "AerialImageDataset"
    scenes: dict[str, FakeScene] = {}
    for seed, (folder, name, split) in enumerate(
        (
            ("train", "austin1", "val"),
            ("train", "austin7", "train"),
            ("train", "tyrol-w12", "train"),
            ("test", "sfo1", "test"),
        )
    ):
        mask = blocks(2, 40 + seed)
        image = picture(mask, 40 + seed)
        where = {"transform": Affine(0.3, 0, 600000 + 1000 * seed, 0, -0.3, 3300000), "crs": "EPSG:32614"}
        write(base / folder / "images" / f"{name}.tif", image, **where)
        if folder == "train":
            write(base / folder / "gt" / f"{name}.tif", mask * np.uint8(255), **where)
        scenes[f"inria_{name}"] = FakeScene(split=split, image=image, mask=mask, labelled=folder == "train")
    return Fake(
        root=root, preset="inria", scenes=scenes, classes=("background", "building"), crs="EPSG:32614",
        pixel_size_m=0.3,
    )  # fmt: skip


def massachusetts(root: Path) -> Fake:
    """Folders tiff/ and png/ with the same images; buildings are red in the TIFF labels, white in the PNG ones."""
    fake = _massachusetts(root / "tiff", "{split}", "{split}_labels", "tiff", "tif", val="val", red=True)
    _massachusetts(root / "png", "{split}", "{split}_labels", "png", "png", val="val", red=False)
    return replace(fake, root=root)


def massachusetts_png(root: Path) -> Fake:
    """The PNG half alone, which has no georeference."""
    return _massachusetts(root, "{split}", "{split}_labels", "png", "png", val="val", red=False)


def massachusetts_original(root: Path) -> Fake:
    """The layout of the first release: sat/ and map/ in each split, valid/ for val/."""
    return _massachusetts(root / "mass_buildings", "{split}/sat", "{split}/map", "tiff", "tif", val="valid", red=True)


def _massachusetts(
    root: Path, images: str, labels: str, image_type: str, label_type: str, *, val: str, red: bool
) -> Fake:
    scenes: dict[str, FakeScene] = {}
    for seed, (name, split) in enumerate(
        {"22678915_15": "train", "22678930_15": "train", "22978870_15": "val", "22828930_15": "test"}.items()
    ):
        mask = blocks(2, 50 + seed)
        image = picture(mask, 50 + seed)
        folder = val if split == "val" else split
        where: dict[str, Any] = {"transform": Affine(1, 0, 230000 + 1500 * seed, 0, -1, 900000), "crs": "EPSG:26986"}
        if image_type == "png":
            where = {}
        write(root / images.format(split=folder) / f"{name}.{image_type}", image, **where)
        color = (255, 0, 0) if red else (255, 255, 255)
        label_where = where if label_type == "tif" else {}
        write(
            root / labels.format(split=folder) / f"{name}.{label_type}",
            painted(((0, 0, 0), color), mask),
            **label_where,
        )
        scenes[f"massachusetts_{name}"] = FakeScene(split=split, image=image, mask=mask)
    georeferenced = image_type == "tiff"
    return Fake(
        root=root, preset="massachusetts", scenes=scenes, classes=("background", "building"),
        crs="EPSG:26986" if georeferenced else None, pixel_size_m=1.0 if georeferenced else None,
    )  # fmt: skip


WORLDVIEW = ("coastal", "blue", "green", "yellow", "red", "red edge", "near infrared 1", "near infrared 2")


def spacenet(root: Path) -> Fake:
    """SpaceNet 2 in its first release: 16 bits, a GeoJSON for each chip, one of them empty, a test without labels."""
    return _spacenet(
        root,
        image="AOI_2_Vegas_Train/RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_{chip}.tif",
        label="AOI_2_Vegas_Train/geojson/buildings/buildings_AOI_2_Vegas_{chip}.geojson",
        test="AOI_2_Vegas_Test_public/RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_{chip}.tif",
    )


def spacenet_renamed(root: Path) -> Fake:
    """SpaceNet 2 in its second release, eight bands."""
    return _spacenet(
        root,
        image="SN2_buildings/train/AOI_2_Vegas/PS-MS/SN2_buildings_train_AOI_2_Vegas_PS-MS_{chip}.tif",
        label="SN2_buildings/train/AOI_2_Vegas/geojson_buildings/"
        "SN2_buildings_train_AOI_2_Vegas_geojson_buildings_{chip}.geojson",
        test="SN2_buildings/test/AOI_2_Vegas_Test_public/MUL-PanSharpen/MUL-PanSharpen_AOI_2_Vegas_{chip}.tif",
        bands=WORLDVIEW,
    )


def _spacenet(
    root: Path, *, image: str, label: str, test: str, bands: tuple[str, ...] = ("red", "green", "blue")
) -> Fake:
    scenes: dict[str, FakeScene] = {}
    for seed, (chip, split) in enumerate({"img1": "train", "img5": "train", "img12": "train", "img3": "test"}.items()):
        mask = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
        step = 2.7e-6
        left, top = -115.3 + seed * 0.01, 36.2
        features = []
        for number, (row, col) in enumerate(((10, 12), (40, 50), (70, 20)) if chip != "img5" else ()):
            height, width = 10 + number, 14 + 2 * seed
            mask[row : row + height, col : col + width] = 1
            west, north = left + col * step, top - row * step
            east, south = left + (col + width) * step, top - (row + height) * step
            ring = [[west, north], [east, north], [east, south], [west, south], [west, north]]
            features.append(
                {
                    "type": "Feature",
                    "properties": {"OBJECTID": number, "partialDec": 1.0},
                    "geometry": {"type": "Polygon", "coordinates": [ring]},
                }
            )
        pixels = picture(mask, 60 + seed, bands=len(bands), dtype="uint16")
        transform = Affine(step, 0, left, 0, -step, top)
        write(
            root / (test if split == "test" else image).format(chip=chip), pixels, transform=transform, crs="EPSG:4326"
        )
        if split != "test":
            path = root / label.format(chip=chip)
            path.parent.mkdir(parents=True, exist_ok=True)
            crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
            path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
        scenes[f"spacenet_AOI_2_Vegas_{chip}"] = FakeScene(
            split=split, image=pixels, mask=mask, labelled=split != "test"
        )
    return Fake(
        root=root, preset="spacenet", scenes=scenes, classes=("background", "building"), bands=bands,
        crs="EPSG:4326", pixel_size_m=0.27,
    )  # fmt: skip


def openearthmap(root: Path) -> Fake:
    """Folders of regions, lists of file names, an image of xBD that is not there, a region with an underscore."""
    classes = (
        "bareland", "rangeland", "developed space", "road", "tree", "water", "agriculture land", "building",
    )  # fmt: skip
    base = root / "OpenEarthMap_wo_xBD"
    listed: dict[str, list[str]] = {"train": ["joplin_3.tif"], "val": [], "test": []}
    scenes: dict[str, FakeScene] = {}
    for seed, (region, number, split) in enumerate(
        (("aachen", 1, "train"), ("aachen", 11, "val"), ("buenos_aires", 2, "train"), ("tyrolw", 7, "test"))
    ):
        values = blocks(9, 70 + seed)
        image = picture(values, 70 + seed)
        where = {"transform": Affine(0.3, 0, 300000 + 1000 * seed, 0, -0.3, 5600000), "crs": "EPSG:32632"}
        name = f"{region}_{number}"
        write(base / region / "images" / f"{name}.tif", image, **where)
        if split != "test":
            write(base / region / "labels" / f"{name}.tif", values, **where)
        listed[split].append(f"{name}.tif")
        mask = np.where(values == 0, np.uint8(IGNORED), values - np.uint8(1))
        scenes[f"openearthmap_{name}"] = FakeScene(split=split, image=image, mask=mask, labelled=split != "test")
    write(base / "joplin" / "labels" / "joplin_3.tif", blocks(9, 79))
    for split, names in listed.items():
        (base / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return Fake(root=root, preset="openearthmap", scenes=scenes, classes=classes, crs="EPSG:32632", pixel_size_m=0.3)


def openearthmap_zipped(root: Path) -> Fake:
    """One archive, with the lists in it."""
    return _zipped(openearthmap, root)


def landcover_ai(root: Path) -> Fake:
    """Orthophotos whose sides are no multiples of 512, and lists of chips numbered with the remainders at the right."""
    classes = ("background", "building", "woodland", "water", "road")
    listed: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    scenes: dict[str, FakeScene] = {}
    of_chips = {
        "M-33-20-D-c-4-2": ("train", "val", "train", "test"),
        "N-34-140-A-b-3-2": ("test", "train", "train", "val"),
    }
    for seed, (name, splits) in enumerate(of_chips.items()):
        height, width = 2 * CHIP_PX + 40, 2 * CHIP_PX + 70
        mask = blocks(5, 80 + seed, size=(height, width))
        image = picture(mask, 80 + seed)
        where = {"transform": Affine(0.25, 0, 450000 + 2000 * seed, 0, -0.25, 500000), "crs": "EPSG:2180"}
        write(root / "images" / f"{name}.tif", image, compress="deflate", **where)
        write(root / "masks" / f"{name}.tif", mask, compress="deflate", **where)
        chips = {divmod(number, 2): split for number, split in enumerate(splits)}
        per_row = -(-width // CHIP_PX)
        for (row, col), split in chips.items():
            listed[split].append(f"{name}_{row * per_row + col}")
        scenes[f"landcover_ai_{name}"] = FakeScene(split="train", image=image, mask=mask, chips=chips)
    for split, names in listed.items():
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    (root / "split.py").write_text("# cuts the chips\n")
    return Fake(root=root, preset="landcover_ai", scenes=scenes, classes=classes, crs="EPSG:2180", pixel_size_m=0.25)


def _zipped(write_folders: Callable[[Path], Fake], root: Path, *, own_folder: bool = True) -> Fake:
    """Write a fake and put each of its folders into an archive."""
    unzipped = root.with_name(f"{root.name}_unzipped")
    fake = write_folders(unzipped)
    root.mkdir(parents=True, exist_ok=True)
    for folder in sorted(unzipped.iterdir()):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        base = unzipped if own_folder else folder
        _zip(root / f"{folder.name}.zip", {path.relative_to(base).as_posix(): path for path in files})
    shutil.rmtree(unzipped)
    return replace(fake, root=root)


def _zip(path: Path, files: Mapping[str, Path]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, file in files.items():
            archive.write(file, member)


FAKES: dict[str, Callable[[Path], Fake]] = {
    function.__name__: function
    for function in (
        potsdam, potsdam_zipped, potsdam_archives, vaihingen, vaihingen_zipped, loveda, loveda_zipped, uavid, inria,
        massachusetts, massachusetts_png, massachusetts_original, spacenet, spacenet_renamed, openearthmap,
        openearthmap_zipped, landcover_ai,
    )
}  # fmt: skip
"""Writers of all fakes by name; those that are named as a preset are the layout that most people have."""


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        sys.stderr.write("usage: python tests/tiles/fakes.py OUT [NAME ...]\n")
        return 2
    for name in arguments[1:] or FAKES:
        fake = FAKES[name](Path(arguments[0]) / name)
        sys.stdout.write(f"{fake.root}: {len(fake.scenes)} scenes of {fake.preset}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
