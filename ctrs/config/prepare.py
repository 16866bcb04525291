"""What ``ctrs prepare`` can be told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ctrs.config.choices import LabelKind, SplitBy, require, require_seed

MAX_BANDS = 20
"""Most bands of a tile."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How scenes and labels become tiles.

    Lengths come in pixels (``_px``) or ground metres (``_m``); at most one of the two is given.

    Args:
        preset: Name of a preset, or a path to one; None recognises the layout.
        variant: Name of the kind of images to take where a preset knows several (``IRRG``), upper or lower case; None:
            the first that is there.
        images: Glob patterns, paths or URLs of images, below the source where they are relative; empty: by layout.
        labels: Glob patterns, paths or URLs of label rasters or vector files; empty: by layout.
        mosaic: All images are parts of one scene, and all raster labels parts of its label.
        extra: Names of further files of a preset that become bands (``dsm``).
        bidx: Bands to take, from 1, in this order; an alpha band named here is data. Empty: all that are not alpha, or
            all where a preset names them all.
        src_crs: CRS of images that name none.
        classes: Class table: TOML with ``[[class]]``, a JSON palette, or a colour table as text (QGIS, GDAL); None
            takes ``classes.toml`` of the source, then the preset's.
        label_kind: How label files are read; ``auto`` decides by file type and content.
        class_field: Field of vector labels that holds the class; None: each polygon is ``building``.
        priority_field: Field of vector labels by which they are painted: higher numbers lie on top. None: file order.
        paint_order: Names of classes in the order of painting: later ones lie on top; others lie below them.
        label_buffer_m: Half width of lines and radius of points, in ground metres.
        label_buffer_field: Field that holds it for each feature, in ground metres.
        nearest_color: Read each colour of a label as the nearest of the legend (anti-aliased and lossy labels).
        max_unknown: Largest share of a label's pixels outside the class table that is ignored instead of refused.
        crs: CRS of the tiles, such as ``EPSG:32633``; None: that of each image.
        gsd_m: Ground pixel of the tiles; None: that of each image.
        aoi: Vector file with the area of interest; ground outside it is nodata.
        tile_px: Edge of a tile in pixels; None takes the preset's (ISPRS 500, else 512).
        tile_m: Edge of a tile in ground metres.
        stride_px: Step between tiles in pixels; None: tiles lie side by side.
        stride_m: Step between tiles in ground metres.
        min_valid: Least share of valid pixels of a tile; 0 keeps each tile with a valid pixel.
        skip_known_bad: Leave out scenes whose labels are known to be wrong.
        split: ``auto``: the official split or the folders' where there is one; ``place``: by place alone.
        val: Patterns of scenes that form the validation split, ``@FILE`` for a list; empty: cut by place.
        test: Patterns of scenes that form the test split, ``@FILE`` for a list; empty: the preset's or source's own.
        val_fraction: Share of the training tiles that goes to validation when it is cut by place.
        test_fraction: Share of the tiles that goes to the test split with ``split = "place"``.
        block_px: Edge of the blocks of ground that are dealt out by place; None: one tile.
        block_m: The same in ground metres.
        split_buffer_px: Tiles nearer than this to ground of another split are left out of training.
        split_buffer_m: The same in ground metres.
        licence: Licence or terms of use of the data, in a few words; None: the preset's, where it names one.
        folds: Number of folds by place that the training and validation tiles are dealt into; 0: none.
        seed: Seed of the choice of places.
        workers: Threads; None: one for each core.
        overwrite: Replace a different result, discard unfinished work.
    """

    preset: str | None = None
    variant: str | None = None
    images: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    mosaic: bool = False
    extra: tuple[str, ...] = ()
    bidx: tuple[int, ...] = ()
    src_crs: str | None = None
    classes: Path | None = None
    label_kind: LabelKind = "auto"
    class_field: str | None = None
    priority_field: str | None = None
    paint_order: tuple[str, ...] = ()
    label_buffer_m: float | None = None
    label_buffer_field: str | None = None
    nearest_color: bool = False
    max_unknown: float = 0.0
    crs: str | None = None
    gsd_m: float | None = None
    aoi: Path | None = None
    tile_px: int | None = None
    tile_m: float | None = None
    stride_px: int | None = None
    stride_m: float | None = None
    min_valid: float = 0.0
    skip_known_bad: bool = False
    split: SplitBy = "auto"
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    val_fraction: float = 0.15
    test_fraction: float = 0.0
    block_px: int | None = None
    block_m: float | None = None
    split_buffer_px: int | None = None
    split_buffer_m: float | None = None
    licence: str | None = None
    folds: int = 0
    seed: int = 0
    workers: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.tile_px is not None:
            require(32 <= self.tile_px <= 8192, "tile_px", self.tile_px, "32 to 8192")
        if self.stride_px is not None:
            require(self.stride_px >= 1, "stride_px", self.stride_px, "1 or more")
        for key in ("tile_m", "stride_m", "gsd_m", "block_m", "label_buffer_m"):
            value = getattr(self, key)
            require(value is None or (math.isfinite(value) and value > 0), key, value, "a length above 0")
        for key in ("split_buffer_px", "split_buffer_m"):
            value = getattr(self, key)
            require(value is None or (math.isfinite(value) and value >= 0), key, value, "a length of 0 or more")
        if self.block_px is not None:
            require(self.block_px >= 1, "block_px", self.block_px, "1 or more")
        for name in ("tile", "stride", "block", "split_buffer"):
            both = getattr(self, f"{name}_px") is not None and getattr(self, f"{name}_m") is not None
            require(not both, f"{name}_m", getattr(self, f"{name}_m"), f"either {name}_px or {name}_m, not both")
        for name, unit in (("stride_px", "px"), ("stride_m", "m")):
            stride, tile = getattr(self, name), getattr(self, f"tile_{unit}")
            fits = stride is None or tile is None or stride <= tile
            require(
                fits, name, stride, f"at most the edge of a tile, tile_{unit} = {tile}: longer steps leave ground out"
            )
        require(0 <= self.min_valid <= 1, "min_valid", self.min_valid, "0 to 1")
        require(0 <= self.max_unknown <= 1, "max_unknown", self.max_unknown, "0 to 1")
        require(0 <= self.val_fraction <= 0.5, "val_fraction", self.val_fraction, "0 to 0.5")
        require(0 <= self.test_fraction <= 0.5, "test_fraction", self.test_fraction, "0 to 0.5")
        require(
            self.test_fraction == 0 or self.split == "place",
            "test_fraction",
            self.test_fraction,
            '0 unless split = "place"',
        )
        require(self.folds == 0 or 2 <= self.folds <= 20, "folds", self.folds, "0 or 2 to 20")
        require(self.licence is None or bool(self.licence.strip()), "licence", self.licence, "some text")
        require_seed(self.seed)
        bands = all(number >= 1 for number in self.bidx) and len(set(self.bidx)) == len(self.bidx) <= MAX_BANDS
        require(bands, "bidx", self.bidx, f"up to {MAX_BANDS} different band numbers from 1")
        if self.workers is not None:
            require(self.workers >= 1, "workers", self.workers, "1 or more")
