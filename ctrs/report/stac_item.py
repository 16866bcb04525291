"""A model as a STAC item with the Machine Learning Model extension, so that catalogues of imagery find it.

Sources: STAC 1.1 (core item, bands), and of its extensions MLM 1.4, file 2.1, classification 2.0 and eo 2.0. An item
needs a place and a time: the place is the ground of the training tiles (null where they have no CRS); the time is open,
as the extension's best practices advise, since a model is of no date.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ctrs.errors import OutputExistsError
from ctrs.jobs import hash_file, write_text
from ctrs.model_files import CheckpointMetadata, weights_name
from ctrs.report.model_card import ModelCard, geometry_bounds

STAC_VERSION = "1.1.0"
EXTENSIONS = (
    "https://stac-extensions.github.io/mlm/v1.4.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
)

_EO_EXTENSION = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"

_TASKS = ["semantic-segmentation", "segmentation"]
_DIMENSIONS = ["batch", "channel", "height", "width"]
_COMMON_NAMES = {
    "coastal": "coastal", "blue": "blue", "green": "green", "yellow": "yellow", "red": "red", "red edge": "rededge",
    "near infrared": "nir", "nir": "nir", "panchromatic": "pan",
}  # fmt: skip
"""Names that STAC has for bands."""
_TEXT = r"[^0-9A-Za-z_-]+"


def stac_item(card: ModelCard) -> dict[str, Any]:
    """Return the item as JSON values; links and assets are relative to the folder of the weight file."""
    own, weights = card.metadata, card.files.weights
    geometry = own.data.get("footprint")
    box = geometry_bounds(geometry)
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [
            *EXTENSIONS,
            *([_EO_EXTENSION] if any(_common_name(name) for name in own.bands.names) else []),
        ],
        "id": _identifier(card),
        "geometry": geometry,
        **({} if box is None else {"bbox": list(box)}),
        "properties": _properties(card),
        "links": [],
        "assets": {
            "weights": {
                "href": f"./{weights.name}",
                "title": "Weights, with the description in the header",
                "type": "application/vnd.safetensors",
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": "safetensors.torch.save_file",
                # The item may describe bands only if an asset names some: so do STAC's own rules.
                "bands": [{"name": name} for name in card.metadata.bands.names],
                "file:size": card.num_bytes,
                "file:checksum": _checksum(weights),
            },
        },
    }
    if card.files.description != weights:
        item["assets"]["description"] = {
            "href": f"./{card.files.description.name}",
            "title": "Description: architecture, classes, bands, training, scores",
            "type": "application/json",
            "roles": ["metadata"],
        }
    return item


def item_path(weights: Path) -> Path:
    """Return where the item of a weight file stands.

    >>> item_path(Path("best/model.safetensors")).as_posix(), item_path(Path("net.v2")).as_posix()
    ('best/model.stac.json', 'net.v2.stac.json')
    """
    return weights.with_name(f"{weights_name(weights)}.stac.json")


def write_stac_item(card: ModelCard, *, overwrite: bool = False) -> Path:
    """Write a model's item beside its weights; one that stands there and is the same is left as it is.

    Raises:
        OutputExistsError: Another file stands there and ``overwrite`` is False.
        OutputError: The file cannot be written.
    """
    path = item_path(card.files.weights)
    text = json.dumps(stac_item(card), indent=2, allow_nan=False) + "\n"
    if path.exists() and not overwrite:
        if path.read_text(encoding="utf-8", errors="replace") == text:
            return path
        raise OutputExistsError(f"{path}: exists and differs; pass --overwrite to replace it")
    write_text(path, text)
    return path


def _properties(card: ModelCard) -> dict[str, Any]:
    own = card.metadata
    config, bands = own.config, own.bands
    pretrained = own.init.get("path") or (None if config.get("weights", "none") == "none" else str(config["weights"]))
    properties: dict[str, Any] = {
        "title": card.name,
        "description": card.summary(),
        "datetime": None,
        "start_datetime": "1900-01-01T00:00:00Z",
        "end_datetime": "9999-12-31T23:59:59Z",
        "bands": [_band(own, number) for number in range(bands.count)],
        "mlm:name": _identifier(card),
        "mlm:architecture": f"{own.architecture.backbone} + {own.architecture.decoder}",
        "mlm:tasks": _TASKS,
        "mlm:framework": "PyTorch",
        "mlm:total_parameters": card.num_parameters,
        "mlm:pretrained": pretrained is not None,
        "mlm:pretrained_source": pretrained,
        "mlm:input": [_input(own)],
        "mlm:output": [_output(own)],
        "ctrs:weights_hash": own.weights_hash,
        "ctrs:split_hash": own.data.get("split_hash"),
        "ctrs:data": own.data.get("name"),
        "ctrs:data_licence": own.data.get("licence"),
        "ctrs:protocol": own.protocol,
        "ctrs:mean_iou": own.metrics.get("val_mean_iou"),
    }
    if own.created is not None:
        properties["created"] = own.created.replace("+00:00", "Z")
    version = re.match(r"\d+\.\d+\.\d+", own.versions.get("torch", ""))
    if version is not None:
        properties["mlm:framework_version"] = version[0]
    if own.pixel_size_m is not None:
        properties["gsd"] = own.pixel_size_m
    settings = {name: value for name, value in config.items() if isinstance(value, str | int | float)}
    if settings:
        properties["mlm:hyperparameters"] = settings
    return properties


def _band(own: CheckpointMetadata, number: int) -> dict[str, Any]:
    bands = own.bands
    name = bands.names[number]
    band: dict[str, Any] = {
        "name": name,
        "data_type": bands.dtype,
        "statistics": {"mean": bands.mean[number], "stddev": bands.std[number]},
    }
    if bands.nodata is not None:
        band["nodata"] = bands.nodata
    if common := _common_name(name):
        band["eo:common_name"] = common
    return band


def _common_name(name: str) -> str | None:
    return _COMMON_NAMES.get(name.casefold())


def _input(own: CheckpointMetadata) -> dict[str, Any]:
    bands = own.bands
    side = round(own.window_px * own.resize_factor)
    return {
        "name": "window of a scene",
        "bands": list(bands.names),
        "input": {"shape": [-1, bands.count, side, side], "dim_order": _DIMENSIONS, "data_type": "float32"},
        "description": (
            f"{bands.dtype} values, clipped to low {list(bands.low)} and high {list(bands.high)} of each band, then "
            "standardized; any size of at least 32 px works"
        ),
        "value_scaling": [
            {"type": "z-score", "mean": mean, "stddev": std} for mean, std in zip(bands.mean, bands.std, strict=True)
        ],
        "resize_type": None if own.resize_factor == 1 else "interpolation-linear",
        "pre_processing_function": None,
    }


def _output(own: CheckpointMetadata) -> dict[str, Any]:
    side = round(own.window_px * own.resize_factor)
    return {
        "name": "logits of each class",
        "tasks": _TASKS,
        "result": {
            "shape": [-1, own.classes.num_classes, side, side],
            "dim_order": _DIMENSIONS,
            "data_type": "float32",
        },
        "classification:classes": [
            {
                "value": index,
                "name": re.sub(_TEXT, "-", entry.name).strip("-") or f"class-{index}",
                "title": entry.name,
                "description": entry.name if entry.scored else f"{entry.name}, left out of headline scores",
                "color_hint": "".join(f"{part:02X}" for part in entry.color),
            }
            for index, entry in enumerate(own.classes.learnt)
        ],
        "post_processing_function": None,
    }


def _identifier(card: ModelCard) -> str:
    """Return a name that MLM allows: letters, digits, dots, dashes, begun by a letter."""
    text = re.sub(r"[^0-9A-Za-z_.-]+", "-", card.name).strip("-_.")
    text = text if text[:1].isalpha() else f"model-{text}"
    return text.rstrip("-") if len(text) > 2 else f"model-{text}"


def _checksum(path: Path) -> str:
    """Return the SHA-256 of a file as a multihash in hexadecimal."""
    return "1220" + hash_file(path)
