"""What is wrong with a call, as far as the call alone tells: said before anything is read or looked for."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ctrs.classes import ClassMap
from ctrs.config import PrepareConfig
from ctrs.errors import InputNotFoundError, RasterError, UsageError
from ctrs.raster.geotiff import check_bands, open_raster
from ctrs.raster.names import is_virtual, split_layer
from ctrs.tiles.class_tables import read_class_table
from ctrs.tiles.layout import Layout
from ctrs.tiles.painting import painting_ranks
from ctrs.tiles.target_grid import parse_crs


def check_call(config: PrepareConfig) -> None:
    """Refuse options that no source can satisfy.

    Raises:
        UsageError: A text names no CRS, or options for splits exclude each other.
        InputNotFoundError: There is no such area of interest.
    """
    for option, text in (("--crs", config.crs), ("--src-crs", config.src_crs)):
        if text is not None:
            parse_crs(text, option)
    if config.aoi is not None:
        file, _ = split_layer(config.aoi)
        if not is_virtual(file) and not file.exists():
            raise InputNotFoundError(f"--aoi: {config.aoi}: not found; name a vector file with the area of interest")
    if config.split == "place" and (config.val or config.test):
        option = "--val" if config.val else "--test"
        raise UsageError(
            f"--split place deals all ground out by place, and {option} names scenes; leave out one of the two"
        )
    if config.folds and config.val:
        raise UsageError(
            "--folds validates on each part of the training ground in turn, and --val names scenes for that; leave out "
            "one of the two"
        )


def check_against(layout: Layout, config: PrepareConfig) -> None:
    """Refuse options that the files found show to be wrong at a glance: class names and band numbers.

    Raises:
        ConfigError: The order of painting names a class that the class table does not hold.
        RasterError: The first image has no such band.
    """
    classes: ClassMap | None = None if layout.preset is None else layout.preset.classes
    if config.paint_order and layout.class_file is not None:
        classes = read_class_table(layout.class_file)
    if config.paint_order and classes is not None:
        painting_ranks(classes, config.paint_order)
    if config.bidx and layout.scenes:
        _check_bidx(layout.scenes[0].image, config)


def _check_bidx(path: Path, config: PrepareConfig) -> None:
    with ExitStack() as stack:
        try:
            dataset = stack.enter_context(open_raster(path))
        except RasterError:
            return  # told with the faults of all files
        check_bands(dataset, config.bidx)
