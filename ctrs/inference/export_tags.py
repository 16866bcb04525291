"""What an exported network says of itself: the keys that Deepness (QGIS) and GeoDeep read, and those of ctrs.

Deepness reads each value as JSON, GeoDeep most of them. Both cut tiles of ``tiles_size`` pixels of ``resolution``
centimetres. GeoDeep divides integers by the span of their dtype and knows no standardization; Deepness divides all
values by 255, subtracts ``standardization_mean`` and divides by ``standardization_std``. The network standardizes by
itself, so mean and deviation say no more than what is needed for the same input: 0 and 1 for ``uint8``.
"""

from __future__ import annotations

import json
from importlib.metadata import version

import ctrs
from ctrs.inference.exported_network import Output, input_range
from ctrs.inference.provenance import MODEL_TAG, OPTIONS_TAG
from ctrs.model_files import CheckpointMetadata
from ctrs.raster.cog import CLASSES_TAG, JOB_TAG, VERSION_TAG, class_tag

BANDS_TAG = "CTRS_BANDS"
"""Names, dtype and statistics of the bands, as JSON."""


def plugin_tags(metadata: CheckpointMetadata, *, window_px: int) -> dict[str, str]:
    """Return the keys that Deepness and GeoDeep read.

    ``resolution`` is left out where the ground pixel is unknown. Nothing is thresholded and no small segment removed:
    the class of a pixel is the most probable one, as with ``ctrs predict``.
    """
    count = metadata.bands.count
    values: dict[str, object] = {
        "model_type": "Segmentor",
        "class_names": {str(index): name for index, name in enumerate(metadata.classes.names)},
        "tiles_size": window_px,
        "tiles_overlap": round(100 * metadata.overlap),
        "standardization_mean": [0.0] * count,
        "standardization_std": [input_range(metadata.bands.dtype) / 255] * count,
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }
    if metadata.pixel_size_m is not None:
        values["resolution"] = round(100 * metadata.pixel_size_m, 4)
    return {key: json.dumps(value) for key, value in values.items()}


def ctrs_tags(
    metadata: CheckpointMetadata, *, weights_hash: str, job: str, window_px: int, output: Output
) -> dict[str, str]:
    """Return the provenance, under the names that masks have for it."""
    options = {
        "window_px": window_px,
        "overlap": metadata.overlap,
        "resize_factor": metadata.resize_factor,
        "output": output,
        "input_divided_by": input_range(metadata.bands.dtype),
        "pixel_size_m": metadata.pixel_size_m,
        "torch": version("torch"),
    }
    return {
        VERSION_TAG: ctrs.__version__,
        MODEL_TAG: weights_hash,
        CLASSES_TAG: class_tag(metadata.classes),
        BANDS_TAG: json.dumps(metadata.bands.to_json(), allow_nan=False),
        OPTIONS_TAG: json.dumps(options, sort_keys=True),
        JOB_TAG: job,
    }


def misfits(metadata: CheckpointMetadata) -> tuple[str, ...]:
    """Return what Deepness or GeoDeep cannot do with this network; empty where all fits."""
    found = []
    if metadata.bands.count != 3:
        found.append(f"GeoDeep takes three bands, this network {metadata.bands.count}")
    dtype = metadata.bands.dtype
    if dtype.startswith("int"):
        found.append("GeoDeep takes values below 0 for 0")
    elif dtype.startswith("float"):
        found.append(f"GeoDeep scales {dtype} values by each tile's own extremes, so its masks are not those of ctrs")
    if metadata.pixel_size_m is None:
        found.append("the ground pixel is unknown (no CRS in the training data), so no resolution is written")
    if metadata.bands.nodata is not None:
        found.append("pixels of nodata are classified as any other")
    return tuple(found)
