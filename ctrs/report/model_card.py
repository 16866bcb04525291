"""The card of a model: what it is for, what it learnt from, how good it is, where its limits are, how it is used.

All of it is read from the model's files and the evaluations beside it; nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrs.model_files import (
    WEIGHTS_FILE,
    CheckpointFiles,
    CheckpointMetadata,
    describe,
    find_checkpoint,
    tensor_sizes,
    weights_name,
)
from ctrs.report.evaluations import Evaluation, read_evaluations

CARD_FILE = "model_card.md"

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_MARK = "–"
"""In place of a number that does not exist."""

_SETTINGS = (
    "backbone", "decoder", "loss", "recipe", "weights", "epochs", "batch_size", "accumulate", "optimizer",
    "learning_rate", "schedule", "weight_decay", "warmup_epochs", "encoder_rate", "layer_decay", "frozen_stages", "ema",
    "patience", "crop", "sampling", "label_smoothing", "precision", "deterministic", "fold", "seed",
)  # fmt: skip
"""Of the training's configuration; all the others stand in ``model.json``."""
_NEUTRAL = {"accumulate": 1, "encoder_rate": 1.0, "frozen_stages": 0, "warmup_epochs": 0}
"""Values that change nothing, which are left out."""


@dataclass(frozen=True, kw_only=True)
class CardTable:
    """A table of the card: the first column holds names; ``left`` says which others hold text."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: tuple[int, ...] = (0,)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """All that is known of a model.

    Args:
        files: Where it stands.
        metadata: Its description.
        num_parameters: Weights and biases.
        num_bytes: Size of the weight file.
        evaluations: Scores of these weights on whole scenes, as ``ctrs eval`` left them in the run's folder.
    """

    files: CheckpointFiles
    metadata: CheckpointMetadata
    num_parameters: int
    num_bytes: int
    evaluations: tuple[Evaluation, ...] = ()

    @property
    def home(self) -> Path:
        """The run's folder, or the checkpoint's own where it belongs to no run."""
        return self.files.home

    @property
    def name(self) -> str:
        """Name of the run, or of the file or folder where it belongs to none."""
        weights = self.files.weights
        return self.home.absolute().name if weights.name == WEIGHTS_FILE else weights_name(weights)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: the description, and what was counted or found beside it."""
        return {
            "name": self.name,
            "weights": str(self.files.weights),
            "num_parameters": self.num_parameters,
            "num_bytes": self.num_bytes,
            **self.metadata.to_json(),
            "evaluations": [entry.to_json() for entry in self.evaluations],
        }

    def tables(self) -> tuple[CardTable, ...]:
        """Return the card as tables: the model, its classes, bands, training and scores."""
        return (
            CardTable(title=self.name, header=("model", ""), rows=tuple(self._facts()), left=(0, 1)),
            self._classes(),
            self._bands(),
            CardTable(title="training", header=("setting", "value"), rows=tuple(self._settings()), left=(0, 1)),
            *self._scores(),
        )

    def markdown(self) -> str:
        """Return the card as a Markdown page."""
        model = self._model_argument()
        sections = [
            f"# {self.name}",
            self.summary(),
            "## Model",
            _markdown_table(("", ""), self._facts()),
            "## Classes",
            _markdown_table(self._classes().header, self._classes().rows),
            "## Bands",
            _markdown_table(self._bands().header, self._bands().rows),
            "Values are clipped to the range from low to high, from which the mean is subtracted, and divided by the "
            "standard deviation; `ctrs predict` does that.",
            "## Training",
            _markdown_table(("setting", "value"), self._settings()),
            "## Scores",
            *(f"{table.title}:\n\n{_markdown_table(table.header, table.rows)}" for table in self._scores()),
            "## Limits",
            "\n".join(f"- {line}" for line in self._limits()),
            "## How to use it",
            f"```bash\nctrs predict SCENE.tif --model {model}\nctrs vectorize SCENE_mask.tif\n"
            f"ctrs eval {model} --data PREPARED\nctrs train PREPARED --init {model}\n```",
            "```python\nfrom pathlib import Path\n\nfrom ctrs.inference import Predictor\n\n"
            f'predictor = Predictor.from_checkpoint(Path("{model}"))\n'
            'predictor.predict_raster(Path("SCENE.tif"), Path("SCENE_mask.tif"))\n```',
        ]
        return "\n\n".join(sections) + "\n"

    def summary(self) -> str:
        """Say what the model is, in two sentences."""
        own = self.metadata
        ground = f" with ground pixels of {_length(own.pixel_size_m)}" if own.pixel_size_m else ""
        data = own.data.get("name")
        return (
            f"A network ({own.architecture.backbone} + {own.architecture.decoder}, {self.num_parameters / 1e6:.1f} M "
            f"parameters) that tells {own.classes.num_classes} classes ({', '.join(own.classes.names)}) apart in "
            f"imagery of {own.bands.count} {own.bands.dtype} bands ({', '.join(own.bands.names)}){ground}"
            f"{f', trained on {data}' if data else ''}. It gives each pixel a class."
        )

    def _model_argument(self) -> str:
        return self.home.as_posix() if self.home != self.files.folder else self.files.weights.as_posix()

    def _facts(self) -> list[tuple[str, str]]:
        own = self.metadata
        rows = [
            ("architecture", f"{own.architecture.backbone} + {own.architecture.decoder}"),
            ("parameters", f"{self.num_parameters:,}"),
            ("weights", f"{self.files.weights} ({_size(self.num_bytes)})"),
            ("weights hash", own.weights_hash or "none (written by an older ctrs)"),
            ("epoch", f"{own.epoch} of {own.config.get('epochs', _MARK)}"),
            ("began from", _origin(own)),
            ("ground pixel", _length(own.pixel_size_m) if own.pixel_size_m else "unknown (data without CRS)"),
            ("window", f"{own.window_px} px, overlap {own.overlap:.0%}"),
        ]
        if own.resize_factor != 1:
            rows.append(("resized by", f"{own.resize_factor:g}"))
        data = own.data
        if data:
            tiles = ", ".join(f"{split} {count}" for split, count in (data.get("num_tiles") or {}).items())
            rows += [
                ("data", str(data.get("name"))),
                ("tiles", tiles or _MARK),
                ("split hash", str(data.get("split_hash") or _MARK)),
                ("ground", _bounds(data.get("footprint"))),
            ]
        rows.append(("licence of the data", str(data.get("licence") or "not given")))
        rows.append(("saved", own.created or "unknown"))
        rows.append(("versions", ", ".join(f"{name} {number}" for name, number in own.versions.items())))
        return rows

    def _classes(self) -> CardTable:
        rows = [
            (
                _MARK if index == 255 else str(index),
                entry.name,
                f"#{entry.color[0]:02x}{entry.color[1]:02x}{entry.color[2]:02x}",
                str(entry.value),
                "ignored" if entry.ignored else "yes" if entry.scored else "no",
            )
            for index, entry in zip(self.metadata.classes.row_indices, self.metadata.classes.classes, strict=True)
        ]
        header = ("mask value", "class", "colour", "value in the labels", "scored")
        return CardTable(title="classes", header=header, rows=tuple(rows), left=(1, 2, 4))

    def _bands(self) -> CardTable:
        bands = self.metadata.bands
        rows = [
            (str(number), name, bands.dtype, *(f"{value:g}" for value in values))
            for number, (name, *values) in enumerate(
                zip(bands.names, bands.low, bands.high, bands.mean, bands.std, strict=True), 1
            )
        ]
        header = ("band", "name", "dtype", "low", "high", "mean", "std")
        return CardTable(title="bands", header=header, rows=tuple(rows), left=(1, 2))

    def _settings(self) -> list[tuple[str, str]]:
        config = self.metadata.config
        given = [name for name in _SETTINGS if config.get(name) not in (None, "none", False, _NEUTRAL.get(name))]
        rows = [(name, _plain(config[name])) for name in given]
        terms = config.get("segmentation")
        if isinstance(terms, Mapping) and terms.get("terms"):
            rows.append(("segmentation loss", _plain(terms["terms"])))
        augment = config.get("augment")
        if isinstance(augment, Mapping):
            used = [
                name if value is True else f"{name} {_plain(value)}"
                for name, value in augment.items()
                if value not in (0, False, [1.0, 1.0])
            ]
            rows.append(("augmentation", ", ".join(used) or "none"))
        return rows

    def _scores(self) -> list[CardTable]:
        tables = [table for entry in self.evaluations for table in _evaluation_tables(entry)]
        return [*tables, *self._validation()]

    def _validation(self) -> list[CardTable]:
        """Return the scores of the epoch that was kept, as training counted them."""
        own = self.metadata
        scores = [
            (name, own.metrics.get(f"val_{key}".replace(" ", "_")))
            for name, key in (
                *((name, f"iou {name}") for name in own.classes.names),
                ("mean", "mean_iou"),
            )
        ]
        if all(value is None for _, value in scores):
            return []
        title = f"{own.protocol or 'validation tiles'}, epoch {own.epoch}"
        accuracy = own.metrics.get("val_overall_accuracy")
        if accuracy is not None:
            title += f", overall accuracy {_score(accuracy)}"
        rows = tuple((name, _score(value)) for name, value in scores)
        return [CardTable(title=title, header=("class", "IoU"), rows=rows)]

    def _limits(self) -> list[str]:
        own = self.metadata
        lines = [
            f"It knows {', '.join(own.classes.names)}, and calls all else one of these.",
            f"It takes {own.bands.dtype} values of {', '.join(own.bands.names)}, in this order; others are refused.",
        ]
        if own.pixel_size_m:
            lines.append(
                f"It learnt from ground pixels of {_length(own.pixel_size_m)}; bring imagery of other resolution to "
                "about that (`gdalwarp -tr`) before predicting."
            )
        bounds = _bounds(own.data.get("footprint"))
        where = f" ({bounds})" if bounds != _MARK else ""
        lines.append(f"It has seen only the ground that it was trained on{where}; elsewhere it may be worse.")
        unscored = [entry.name for entry in own.classes.learnt if not entry.scored]
        if unscored:
            lines.append(f"Headline scores leave out {' and '.join(unscored)}.")
        if self._validation():
            lines.append("The validation tiles chose the epoch that was kept, so their scores are too good.")
        if not any(entry.split == "test" for entry in self.evaluations):
            lines.append("No scores of test scenes stand beside it.")
        for entry in self.evaluations:
            if entry.test_openings is not None and entry.test_openings > 1:
                lines.append(
                    f"The run opened its test split {entry.test_openings} times; figures of a test that was opened "
                    "often are no longer honest."
                )
        if not own.data.get("licence"):
            lines.append("The licence of its data was not given: ask before you pass it on.")
        return lines


def read_card(path: Path) -> ModelCard:
    """Read all that the files of a model say, without its weights and without torch.

    Args:
        path: A run folder (its best checkpoint is taken), a checkpoint folder, or a weight file.

    Raises:
        InputNotFoundError: There is no checkpoint.
        CheckpointError: It is of another kind, broken, or newer than this ctrs.
    """
    files = find_checkpoint(path)
    metadata = describe(files)
    sizes = tensor_sizes(files.weights)
    return ModelCard(
        files=files,
        metadata=metadata,
        num_parameters=sum(size for name, size in sizes.items() if name.rpartition(".")[2] not in _BUFFERS),
        num_bytes=files.weights.stat().st_size,
        evaluations=read_evaluations(files.home, files),
    )


def _evaluation_tables(entry: Evaluation) -> list[CardTable]:
    head = entry.protocols[0]
    what = f"{entry.split} split of {entry.data}" if entry.split else f"against {entry.data}"
    means = (head.mean_iou, head.mean_f1, head.mean_precision, head.mean_recall)
    rows = [(row.name, *map(_score, (row.iou, row.f1, row.precision, row.recall))) for row in head.classes]
    return [
        CardTable(
            title=f"{what}, whole scenes, {head.name}, overall accuracy {_score(head.overall_accuracy)}",
            header=("class", "IoU", "F1", "precision", "recall"),
            rows=(*rows, ("mean", *map(_score, means))),
        ),
        CardTable(
            title=f"{what}, every protocol",
            header=("protocol", "mean IoU", "mean F1", "overall accuracy"),
            rows=tuple(
                (row.name, *map(_score, (row.mean_iou, row.mean_f1, row.overall_accuracy))) for row in entry.protocols
            ),
        ),
    ]


def _origin(own: CheckpointMetadata) -> str:
    if own.init:
        known = str(own.init.get("weights_hash") or "unknown")[:12]
        return f"{own.init.get('path')} (weights {known}, trained on {own.init.get('data')})"
    weights = own.config.get("weights", "none")
    return "random weights" if weights == "none" else f"{weights} weights of the encoder"


def _bounds(geometry: Any) -> str:
    """Return west, south, east and north of a GeoJSON geometry in words."""
    box = geometry_bounds(geometry)
    if box is None:
        return _MARK
    west, south, east, north = (f"{value:.5f}".rstrip("0").rstrip(".") for value in box)
    return f"longitude {west} to {east}, latitude {south} to {north}"


def geometry_bounds(geometry: Any) -> tuple[float, float, float, float] | None:
    """Return west, south, east and north of a GeoJSON polygon or several; None for none.

    >>> geometry_bounds({"type": "Polygon", "coordinates": [[[1, 2], [3, 2], [3, 5], [1, 2]]]})
    (1, 2, 3, 5)
    """
    if not isinstance(geometry, Mapping):
        return None
    corners = list(_corners(geometry["coordinates"]))
    xs, ys = [corner[0] for corner in corners], [corner[1] for corner in corners]
    return min(xs), min(ys), max(xs), max(ys)


def _corners(value: Sequence[Any]) -> Iterable[Sequence[float]]:
    if value and isinstance(value[0], int | float):
        yield value
    else:
        for item in value:
            yield from _corners(item)


def _score(value: float | None) -> str:
    return _MARK if value is None or math.isnan(value) else f"{value:.3f}"


def _length(metres: float) -> str:
    return f"{metres * 100:.3g} cm" if metres < 1 else f"{metres:.3g} m"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " to ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
