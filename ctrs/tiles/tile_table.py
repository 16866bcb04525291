"""The table of tiles: one row for each, with its footprint, as GeoParquet that QGIS and geopandas open."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrs.classes import ClassMap
from ctrs.config import SplitName
from ctrs.errors import DataError
from ctrs.raster.geotiff import Grid
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.footprints import common_crs, tile_footprints


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A file cut from a scene.

    Args:
        scene: Name of the scene.
        split: Split it belongs to.
        window: Its place in the scene.
        image: Path of the image tile.
        mask: Path of the mask: class indices, 255 where nodata or ignored.
        mask_eroded: Path of the mask whose class borders are ignored (ISPRS), None where the source has none.
        valid_fraction: Share of the pixels that hold imagery.
        class_counts: Pixels of the mask by class index.
        hash: Of the image's pixels; equal for copies of the same ground.
        fold: Fold that it validates in, where folds were made; None for test tiles.
        near_folds: Other folds whose ground it overlaps or lies too near to: it does not train when they validate.
    """

    scene: str
    split: SplitName
    window: PixelWindow
    image: Path
    mask: Path
    mask_eroded: Path | None = None
    valid_fraction: float
    class_counts: tuple[int, ...]
    hash: str = ""
    fold: int | None = None
    near_folds: tuple[int, ...] = ()


def write_tile_table(
    path: Path, tiles: Sequence[Tile], grids: Mapping[str, Grid], classes: ClassMap, *, root: Path
) -> None:
    """Write tiles with their footprints as GeoParquet.

    Args:
        path: The file.
        tiles: Tiles.
        grids: Grid of each scene.
        classes: Class table.
        root: Folder that paths in the table are relative to.
    """
    import geopandas
    import pandas
    import pyarrow
    import pyarrow.parquet

    crs = common_crs(grid.crs for grid in grids.values())
    columns: dict[str, Any] = {
        "scene": [tile.scene for tile in tiles],
        "split": [tile.split for tile in tiles],
        **{key: [getattr(tile.window, key) for tile in tiles] for key in ("row_off", "col_off", "width", "height")},
        "image": [_relative(tile.image, root) for tile in tiles],
        "mask": [_relative(tile.mask, root) for tile in tiles],
        "mask_eroded": [tile.mask_eroded and _relative(tile.mask_eroded, root) for tile in tiles],
        "valid_fraction": [tile.valid_fraction for tile in tiles],
        "hash": [tile.hash for tile in tiles],
        "fold": pandas.array([tile.fold for tile in tiles], dtype="Int32"),
        "near_folds": [list(tile.near_folds) for tile in tiles],
        **{f"count_{name}": [tile.class_counts[index] for tile in tiles] for index, name in enumerate(classes.names)},
    }
    footprints = tile_footprints([(grids[tile.scene], tile.window) for tile in tiles], crs)
    frame = geopandas.GeoDataFrame(columns, geometry=footprints, crs=None if crs is None else crs.to_wkt())
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    table = pyarrow.parquet.read_table(buffer)
    # The type of lists that are all empty cannot be guessed, and one that no reader knows would be written.
    kind = pyarrow.list_(pyarrow.int32())
    near_folds = pyarrow.array(columns["near_folds"], kind)
    table = table.set_column(table.schema.get_field_index("near_folds"), pyarrow.field("near_folds", kind), near_folds)
    pyarrow.parquet.write_table(table, path)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def read_tile_table(path: Path, classes: ClassMap) -> tuple[Tile, ...]:
    """Read what ``write_tile_table`` wrote; paths in it are relative to its folder.

    Raises:
        DataError: It is not such a table.
    """
    import pyarrow
    import pyarrow.parquet

    counts = [f"count_{name}" for name in classes.names]
    columns = [
        "scene", "split", "row_off", "col_off", "width", "height", "image", "mask", "mask_eroded", "valid_fraction",
        "hash", "fold", "near_folds", *counts,
    ]  # fmt: skip
    try:
        rows = pyarrow.parquet.read_table(path, columns=columns).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{path}: not readable as a manifest ({str(error).splitlines()[0]}); "
            "run `ctrs prepare` again with --overwrite"
        ) from error
    root = path.parent.absolute()
    try:
        return tuple(
            Tile(
                scene=row["scene"],
                split=row["split"],
                window=PixelWindow(
                    col_off=row["col_off"], row_off=row["row_off"], width=row["width"], height=row["height"]
                ),
                image=root / row["image"],
                mask=root / row["mask"],
                mask_eroded=root / row["mask_eroded"] if row["mask_eroded"] else None,
                valid_fraction=row["valid_fraction"],
                class_counts=tuple(row[column] for column in counts),
                hash=row["hash"],
                fold=row["fold"],
                near_folds=tuple(row["near_folds"]),
            )
            for row in rows
        )
    except KeyError as error:
        raise DataError(f"{path}: column {error} is missing; run `ctrs prepare` again with --overwrite") from error
