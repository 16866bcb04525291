"""Maps scenes of any size in fixed memory: ``Predictor.from_checkpoint(run).predict_raster(scene, mask)``.

A thread reads and standardizes windows ahead of the network; the network's logits are blended in an accumulator that
rolls down the scene; finished rows are written behind by another thread, and stay on disk when the work is stopped.

B windows of a batch, K classes, C bands, H x W a scene, h x w a window.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ctrs.classes import ClassMap, Mask
from ctrs.config import PredictConfig, TestTimeAugmentation, parse_tta
from ctrs.errors import UsageError
from ctrs.inference.device import resolve_device, resolve_inference_precision
from ctrs.inference.guard import TrainingImagery
from ctrs.inference.network import Network
from ctrs.inference.pixels import FileBlocks, FindWanted, ReadWindow, ValidRows, WindowBatch, read_windows
from ctrs.inference.prefetch import ReadAhead
from ctrs.inference.products import Products
from ctrs.inference.provenance import hash_weights
from ctrs.inference.rows import FinishedRows, finished_rows
from ctrs.inference.scene_map import map_scene
from ctrs.inference.standardize import PixelStandardizer
from ctrs.inference.window_plan import WindowPlan
from ctrs.model_files import describe, find_checkpoint
from ctrs.models.checkpoint import load_checkpoint
from ctrs.progress import Progress, no_progress
from ctrs.raster.bands import Bands
from ctrs.raster.windows import PixelWindow

_BATCH_SIZES = {"cpu": 2, "cuda": 16}
"""Windows at a time: on the CPU larger batches fall out of its caches and are slower."""


class Predictor:
    """A network and all that it takes to map scenes with it.

    Args:
        model: Maps (B, C, h, w) standardized float images to logits (B, K, h, w), or to an object that has them as
            ``logits``. Put into evaluation mode, channels-last layout and on the device.
        classes: Class table of the logits.
        bands: What the input's bands are and how their values are scaled.
        window_px: Window edge in scene pixels, unless a call says otherwise.
        overlap: Share of the window that neighbours have in common, unless a call says otherwise.
        resize_factor: Network pixels for one scene pixel; logits return to the scene's grid.
        device: ``auto``, ``cpu``, ``cuda``, ...
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16``.
        pixel_size_m: Ground metres of a pixel that the network was trained with; None where they are unknown.
        training: What scenes are compared with before they are mapped; None: nothing.
        weights: The weight file, for records.

    Raises:
        DeviceError: The device is not there or cannot compute in that precision.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        classes: ClassMap,
        bands: Bands,
        window_px: int = 512,
        overlap: float = 0.25,
        resize_factor: float = 1.0,
        device: str = "auto",
        precision: str = "auto",
        pixel_size_m: float | None = None,
        training: TrainingImagery | None = None,
        weights: Path | None = None,
    ) -> None:
        self.device = resolve_device(device)
        self.precision = resolve_inference_precision(precision, self.device)
        self.classes = classes
        self.bands = bands
        self.window_px = window_px
        self.overlap = overlap
        self.resize_factor = resize_factor
        self.pixel_size_m = pixel_size_m
        self.training = training
        self.weights = weights
        self.model_hash = hash_weights(model)
        self.network = Network(model, num_classes=classes.num_classes, device=self.device, precision=self.precision)
        self._standardize = PixelStandardizer(bands)

    @property
    def model(self) -> nn.Module:
        """The network's module, on the device."""
        return self.network.module

    @classmethod
    def from_checkpoint(
        cls, path: Path, *, device: str = "auto", precision: str = "auto", config: PredictConfig | None = None
    ) -> Predictor:
        """Load a network that ``ctrs train`` wrote.

        Args:
            path: A run folder (its best checkpoint), a checkpoint folder, or its ``model.safetensors``.
            device: ``auto``, ``cpu``, ``cuda``, ...
            precision: ``auto``, ``fp32``, ``bf16``.
            config: Options of the predictions to come: what the network's classes do not allow is refused before its
                weights are read.

        Raises:
            UsageError: ``config`` names classes that the network does not have.
            InputNotFoundError: There is no checkpoint.
            CheckpointError: It is of another kind, broken or incomplete.
            DeviceError: The device is not there or cannot compute in that precision.
        """
        resolved = resolve_device(device)
        if config is not None:
            Products.for_config(describe(find_checkpoint(path)).classes, config)
        model, metadata = load_checkpoint(path, resolved)
        return cls(
            model,
            classes=metadata.classes,
            bands=metadata.bands,
            window_px=metadata.window_px,
            overlap=metadata.overlap,
            resize_factor=metadata.resize_factor,
            device=device,
            precision=precision,
            pixel_size_m=metadata.pixel_size_m,
            training=TrainingImagery.of(metadata),
            weights=find_checkpoint(path).weights,
        )

    def predict_raster(
        self,
        src: Path | str,
        dst: Path,
        config: PredictConfig | None = None,
        *,
        progress: Progress = no_progress,
        command: Sequence[str] | None = None,
    ) -> Path:
        """Map a scene: write its class mask as COG on exactly the scene's grid.

        What stands beside the mask (``SCENE_mask.json`` with times and the like, and what the options ask for) leaves
        the mask as it is, bit for bit.

        Memory does not grow with the scene's height. When the work is stopped, finished rows stay in
        ``.NAME.partial/`` beside the output, and the same call goes on with them and ends with the same bytes. If the
        output is there already and the result of the same job, nothing is done.

        Args:
            src: The scene: a file, or a name that GDAL understands.
            dst: The mask to write; names of classes for GDAL go to ``dst.aux.xml``.
            config: Options; those that are None are the checkpoint's.
            progress: Told the number of windows done.
            command: Command line, for ``SCENE_mask.json``.

        Returns:
            ``dst``.

        Raises:
            UsageError: Options that do not fit the scene, the network or each other.
            InputNotFoundError: There is no such scene.
            RasterError: The scene cannot be read, at the start or on the way.
            BandMismatchError: Its bands or dtype differ from those that the network knows.
            ImageryMismatchError: It is unlike the training imagery and ``config.strict`` is True.
            OutputExistsError: Another result stands at ``dst`` and ``config.overwrite`` is False.
            OutputError: The output cannot be written.
        """
        config = config or PredictConfig()
        self._check_device(config)
        return map_scene(self, src, dst, config, progress=progress, command=command)

    def predict_array(
        self,
        pixels: npt.NDArray[Any],
        valid: npt.NDArray[np.bool_] | None = None,
        config: PredictConfig | None = None,
    ) -> Mask:
        """Return the class mask (H, W) of raw pixels (C, H, W), as ``predict_raster`` makes it.

        Args:
            pixels: Raw values in the dtype that the network knows.
            valid: Valid mask (H, W), True = valid; None: all are.
            config: Options.
        """
        return np.concatenate([rows.mask for rows in self._array_rows(pixels, valid, config or PredictConfig())])

    def array_logits(
        self,
        pixels: npt.NDArray[Any],
        valid: npt.NDArray[np.bool_] | None = None,
        config: PredictConfig | None = None,
    ) -> npt.NDArray[np.float32]:
        """Return the mean logits (K, H, W) of overlapping windows; NaN where the scene is invalid.

        Holds the whole result in memory: meant for small scenes. Arguments as for ``predict_array``.
        """
        parts: list[npt.NDArray[np.float32]] = []
        for rows in self._array_rows(pixels, valid, config or PredictConfig(), logits=True):
            if rows.logits is not None:
                rows.logits[:, ~rows.valid] = np.nan
                parts.append(rows.logits)
        return np.concatenate(parts, axis=1)

    def plan(self, height: int, width: int, config: PredictConfig, *, gsd_factor: float = 1.0) -> WindowPlan:
        """Return the windows of a scene of this size.

        Args:
            height: Scene rows.
            width: Scene columns.
            config: Options.
            gsd_factor: Pixels of the grid that the network knows for one scene pixel, along each edge. Windows are of
                as much ground as the network knows, so of more or fewer scene pixels.
        """
        edge = config.window_px or self.window_px
        return WindowPlan(
            height=height,
            width=width,
            window_px=max(1, round(edge / gsd_factor)),
            overlap=self.overlap if config.overlap is None else config.overlap,
            batch_size=config.batch_size or _BATCH_SIZES[self.device.type],
            network_px=max(1, round(edge * self.resize_factor)),
            # The network learned from imagery that was resized by its own factor plainly, whichever way that goes.
            antialias=gsd_factor != 1.0,
        )

    def finished_rows(
        self,
        read: ReadWindow,
        plan: WindowPlan,
        config: PredictConfig,
        *,
        products: Products | None = None,
        first_row: int = 0,
        wanted: FindWanted | None = None,
        blocks: FileBlocks | None = None,
        report: Callable[[WindowBatch], None] | None = None,
    ) -> Generator[FinishedRows]:
        """Run the network over a scene, or a block of its columns, and yield blended rows from the top down.

        Args:
            read: Gives the scene's pixels; called in another thread.
            plan: The windows.
            config: Options, of which only ``blend``, ``tta`` and ``compile`` matter here.
            products: What is made of the logits; None: what the options ask for.
            first_row: Row of windows to begin with, the first of a group. The rows that windows above it touch are
                incomplete.
            wanted: Which pixels are to be mapped; None: all. Windows that hold one see the others beside it too.
            blocks: How the file's blocks divide the scene's rows.
            report: Called after each batch.
        """
        tta = parse_tta(config.tta)

        on_gpu = self.device.type == "cuda"
        ahead: ReadAhead[ValidRows | WindowBatch] = ReadAhead()

        def forward(batch: WindowBatch) -> Tensor:
            with nullcontext() if on_gpu else ahead.network_at_work():
                return self._logits(batch, plan, tta, compiled=config.compile)

        windows = read_windows(
            read,
            plan,
            self._standardize,
            first_row=first_row,
            wanted=wanted,
            blocks=blocks,
            raw=on_gpu,
            pause=ahead.pause,
        )
        return finished_rows(
            forward,
            ahead.items(windows),
            plan,
            products=products or Products.for_config(self.classes, config),
            blend=config.blend,
            device=self.device,
            first_row=first_row,
            report=report,
        )

    def _array_rows(
        self,
        pixels: npt.NDArray[Any],
        valid: npt.NDArray[np.bool_] | None,
        config: PredictConfig,
        *,
        logits: bool = False,
    ) -> Generator[FinishedRows]:
        self._check_device(config)
        self.bands.check_source(len(pixels), str(pixels.dtype), where="array")
        known = np.ones(pixels.shape[1:], bool) if valid is None else valid

        def read(window: PixelWindow) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
            rows, cols = window.slices
            return pixels[:, rows, cols], known[rows, cols]

        plan = self.plan(pixels.shape[1], pixels.shape[2], config)
        products = Products.for_config(self.classes, config, logits=logits)
        return self.finished_rows(read, plan, config, products=products)

    @torch.inference_mode()
    def _logits(self, batch: WindowBatch, plan: WindowPlan, tta: TestTimeAugmentation, *, compiled: bool) -> Tensor:
        """Run the network on a batch: float (B, K, h, w) on the scene's grid."""
        return self.network.logits(
            batch.to_input(self._standardize, self.device),
            size_px=plan.network_px,
            antialias=plan.antialias,
            tta=tta,
            compiled=compiled,
        )

    def _check_device(self, config: PredictConfig) -> None:
        """Refuse options that ask for another device or precision than the network was put on."""
        if config.device != "auto" and resolve_device(config.device).type != self.device.type:
            raise UsageError(f"device {config.device!r} asked for, but the network is on {self.device}; load it there")
        if config.precision != "auto" and resolve_inference_precision(config.precision, self.device) != self.precision:
            raise UsageError(
                f"precision {config.precision!r} asked for, but the network was loaded for {self.precision}; "
                "load it with that precision"
            )
