"""What a mask was made from: identities of network, scene and grid, and the job behind an existing mask."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import rasterio
import torch
from torch import nn

from ctrs.errors import RasterError
from ctrs.jobs import describe_file
from ctrs.raster.cog import read_job_tag
from ctrs.raster.geotiff import Grid, crs_name

MODEL_TAG = "CTRS_MODEL"
SOURCE_TAG = "CTRS_SOURCE"
OPTIONS_TAG = "CTRS_OPTIONS"


def hash_weights(model: nn.Module) -> str:
    """Return a hash of a network's kind and of all its tensors; the same wherever it lives."""
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def describe_inputs(dataset: rasterio.DatasetReader) -> list[dict[str, Any]]:
    """Identify the files of a scene that determine its pixels: sidecars with statistics and overviews do not."""
    files = [name for name in dataset.files if not name.endswith((".aux.xml", ".ovr"))]
    return [describe_file(name) for name in files or [dataset.name]]


def describe_grid(grid: Grid) -> dict[str, Any]:
    """Return the grid in JSON values."""
    control = grid.ground_control
    return {
        "crs": grid.crs.to_wkt() if grid.crs is not None else None,
        "transform": list(grid.transform)[:6],
        "size": [grid.width, grid.height],
        "ground_control": [crs_name(control.crs), control.points] if control is not None else None,
    }


def existing_job(dst: Path) -> str | None:
    """Return the fingerprint in an existing output; None where it is no mask of ctrs."""
    if not dst.is_file():
        return None
    try:
        return read_job_tag(dst)
    except RasterError:
        return None
