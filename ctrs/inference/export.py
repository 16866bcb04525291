"""A trained network in a form that other programs run: ONNX, or an archive of torch.export.

What was written is loaded back and compared with the network before it gets its name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax

import ctrs
from ctrs.config import PredictConfig
from ctrs.errors import CtrsError, ExportError, OutputError, UsageError
from ctrs.inference.export_tags import ctrs_tags, misfits, plugin_tags
from ctrs.inference.exported_network import ExportedNetwork, Output, as_input, expected_logits, trial_pixels
from ctrs.inference.onnx_file import OPSET, first_line, read_onnx_tags, require_onnx, run_onnx, write_onnx
from ctrs.inference.program_file import capture, fuses_attention, read_program_tags, run_program, write_program
from ctrs.jobs import check_existing, fingerprint, partial_work
from ctrs.model_files import WEIGHTS_FILE, CheckpointFiles, CheckpointMetadata, describe, find_checkpoint, hash_weights
from ctrs.models import SegmentationModel, load_checkpoint
from ctrs.progress import Progress, no_progress
from ctrs.raster.cog import JOB_TAG

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Greatest difference allowed: of a probability, and of a logit as a share of the greatest logit's magnitude."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written.

    Args:
        path: The file.
        window_px: Edge of the windows that it takes.
        difference: Between the network and what the file computes, measured on two windows: the greatest of a
            probability, or of a logit as a share of the greatest logit's magnitude. None where the file was there
            already, as the result of the same job.
        misfits: What Deepness or GeoDeep cannot do with it.
    """

    path: Path
    window_px: int
    difference: float | None
    misfits: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "path": str(self.path),
            "window_px": self.window_px,
            "difference": self.difference,
            "misfits": list(self.misfits),
        }


@dataclass(frozen=True, kw_only=True)
class _Format:
    """How one kind of file is written and judged."""

    suffix: str
    version: int
    write: Callable[[torch.export.ExportedProgram, Path, str, dict[str, str]], None]
    run: Callable[[Path, list[Array]], tuple[Array, Array | None]]
    """Returns the output and, where it can tell, the logits."""
    read_tags: Callable[[Path], dict[str, str]]


_ONNX = _Format(
    suffix=".onnx",
    version=OPSET,
    write=lambda program, path, output, tags: write_onnx(program, path, output=output, tags=tags),
    run=run_onnx,
    read_tags=read_onnx_tags,
)
_PT2 = _Format(
    suffix=".pt2",
    version=1,
    write=lambda program, path, _, tags: write_program(program, path, tags=tags),
    run=lambda path, batches: (run_program(path, batches), None),
    read_tags=read_program_tags,
)


class _Steps:
    """Progress of an export: each step is a phase of its own.

    Args:
        progress: Told of it.
        target: The file.
    """

    def __init__(self, progress: Progress, target: Path) -> None:
        self._progress, self._target = progress, target

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Tell that a step begins, and that it is done."""
        what = f"{self._target.name}: {name}"
        self._progress(0, 1, what)
        yield
        self._progress(1, 1, what)


def export_onnx(
    checkpoint: Path,
    out: Path | None = None,
    *,
    window_px: int | None = None,
    output: Output = "probabilities",
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Export:
    """Write a network as ONNX file that the QGIS plugin Deepness, GeoDeep and onnxruntime run.

    Input ``image``: float32 (batch, C, S, S), raw values divided by ``input_range`` of their dtype (``uint8``: 255).
    The network scales, standardizes and resizes by itself. Output: float32 (batch, K, S, S).

    Args:
        checkpoint: A run folder (its best checkpoint), a checkpoint folder, or a weight file.
        out: The file; unless given, NAME.onnx in the run's folder, or beside a weight file that stands alone.
        window_px: Edge S of a window in scene pixels; the checkpoint's unless given.
        output: ``probabilities``, which those programs expect, or ``logits``.
        overwrite: Replace a different file.
        progress: Told of each step, a phase of its own: reading, capturing, writing, running, comparing.

    Raises:
        UsageError: A package that this takes is missing, or an argument is wrong.
        InputNotFoundError: There is no checkpoint.
        CheckpointError: It is of another kind, broken or incomplete.
        ExportError: The network cannot be exported, or what was written computes something else.
        OutputExistsError: A different file stands there.
        OutputError: It cannot be written.
    """
    require_onnx()
    return _export(_ONNX, checkpoint, out, window_px=window_px, output=output, overwrite=overwrite, progress=progress)


def export_program(
    checkpoint: Path,
    out: Path | None = None,
    *,
    window_px: int | None = None,
    output: Output = "probabilities",
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Export:
    """Write a network as archive of torch.export (.pt2), which torch loads without ctrs.

    Input, output, arguments and errors are those of `export_onnx`, but no package is needed. The metadata stand in the
    extra file ``metadata.json``.
    """
    return _export(_PT2, checkpoint, out, window_px=window_px, output=output, overwrite=overwrite, progress=progress)


def export_path(files: CheckpointFiles, suffix: str) -> Path:
    """Return where the export of a checkpoint goes unless told otherwise.

    >>> alone = Path("maps/roofs.safetensors")
    >>> export_path(CheckpointFiles(weights=alone, description=alone), ".onnx").as_posix()
    'maps/roofs.onnx'
    """
    weights = files.weights
    if weights.name != WEIGHTS_FILE:
        return weights.with_name(f"{weights.name.removesuffix('.safetensors')}{suffix}")
    return files.home / f"{files.home.absolute().name}{suffix}"


def _export(
    form: _Format,
    checkpoint: Path,
    out: Path | None,
    *,
    window_px: int | None,
    output: Output,
    overwrite: bool,
    progress: Progress,
) -> Export:
    files = find_checkpoint(checkpoint)
    metadata = describe(files)
    window = PredictConfig(window_px=window_px).window_px or metadata.window_px
    target = out or export_path(files, form.suffix)
    if target.is_dir():
        raise UsageError(f"{target}: is a folder; name a file with -o")
    if target.suffix != form.suffix:
        raise UsageError(f"{target}: {target.suffix or 'no ending'} found, expected {form.suffix}; choose with -o")
    weights_hash = metadata.weights_hash or hash_weights(files.weights)
    job = fingerprint(
        {
            "step": "export",
            "format": [form.suffix, form.version],
            "model": weights_hash,
            "tags": plugin_tags(metadata, window_px=window),
            "bands": metadata.bands.to_json(),
            "classes": metadata.classes.to_json(),
            "resize_factor": metadata.resize_factor,
            "output": output,
            "versions": [ctrs.__version__, torch.__version__],
        }
    )
    result = Export(path=target, window_px=window, difference=None, misfits=misfits(metadata) if form is _ONNX else ())
    found = form.read_tags(target).get(JOB_TAG) if target.is_file() else None
    if check_existing(target, found, job, overwrite=overwrite):
        log.info("%s: exists and is the result of the same job; nothing to do", target)
        return result
    steps = _Steps(progress, target)
    with steps.step("reading the model"):
        model, metadata = load_checkpoint(checkpoint)
    tags = {
        **plugin_tags(metadata, window_px=window),
        **ctrs_tags(metadata, weights_hash=weights_hash, job=job, window_px=window, output=output),
    }
    with partial_work(target, job, overwrite=overwrite) as work:
        staged = work.folder / f"export{form.suffix}"
        try:
            difference = _write(form, staged, model, metadata, window_px=window, output=output, tags=tags, steps=steps)
        except BaseException as error:
            staged.unlink(missing_ok=True)  # there is nothing to go on with
            if isinstance(error, ExportError):
                built = f"{metadata.architecture.backbone} with {metadata.architecture.decoder}"
                raise ExportError(f"{checkpoint}: {built} was not exported to {target.name}: {error}") from error
            if isinstance(error, OSError) and not isinstance(error, CtrsError):
                raise OutputError(
                    f"{target}: cannot be written ({error.strerror or error}); check space and permissions"
                ) from error
            raise
        work.publish(staged)
    return replace(result, difference=difference)


def _write(
    form: _Format,
    path: Path,
    model: SegmentationModel,
    metadata: CheckpointMetadata,
    *,
    window_px: int,
    output: Output,
    tags: dict[str, str],
    steps: _Steps,
) -> float:
    """Write the file, load it back and return how far its results are from the network's."""
    pixels = trial_pixels(metadata.bands, window_px, count=2)
    images = as_input(pixels)
    network = ExportedNetwork(model, metadata.bands, resize_factor=metadata.resize_factor, output=output).eval()
    _capture_and_write(form, path, network, torch.from_numpy(images), output, tags, steps)
    with steps.step("running what was written"):
        found, found_logits = form.run(path, [images[:1], images])  # the number of images is free
    with steps.step("comparing it with the model"):
        logits = np.concatenate([expected_logits(model, metadata, part) for part in (pixels[:1], pixels)])
    expected = softmax(logits, axis=1) if output == "probabilities" else logits
    differences = [_difference(found, expected, relative=output == "logits")]
    if found_logits is not None:
        differences.append(_difference(found_logits, logits, relative=True))
    difference = max(differences)
    if not np.isfinite(logits).all() or not difference <= TOLERANCE:
        raise ExportError(
            f"results differ from the network's by {difference:.2g}, {TOLERANCE:g} is allowed; nothing was written"
        )
    return difference


def _capture_and_write(
    form: _Format,
    path: Path,
    network: ExportedNetwork,
    example: torch.Tensor,
    output: Output,
    tags: dict[str, str],
    steps: _Steps,
) -> None:
    """Write the file; with attention in parts where the exporter cannot take it as a whole (of five dimensions)."""
    attempts = (True, False) if fuses_attention(network) else (True,)
    for fused in attempts:
        try:
            with steps.step("capturing the network"):
                program = capture(network, example, fused_attention=fused)
            with steps.step("writing it"):
                form.write(program, path, output, tags)
            return
        except (OSError, CtrsError):
            raise
        except Exception as error:  # torch and onnxscript raise many kinds
            if fused is attempts[-1]:
                raise ExportError(
                    f"torch {torch.__version__} cannot capture it ({first_line(error)}); choose another decoder or "
                    "backbone"
                ) from error
            log.debug("attention is taken apart, for as a whole it cannot be captured: %s", first_line(error))


def _difference(found: Array, expected: Array, *, relative: bool) -> float:
    if found.shape != expected.shape:
        raise ExportError(f"results of shape {found.shape} found, expected {expected.shape}; nothing was written")
    difference = float(np.abs(found - expected).max())
    return difference / max(float(np.abs(expected).max()), 1e-12) if relative else difference
