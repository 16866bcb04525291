"""One turn of one side, run in a process of its own: what it measures comes back as JSON."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from meter import Meter, forget_peak, peak_mib
from networks import BANDS, CLASSES, logits_of, make_network
from peers import PEERS
from rasterio.windows import Window
from torch import Tensor, nn

from ctrs.config import PredictConfig
from ctrs.inference import Predictor
from ctrs.memory import kept_memory, share_one_arena


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a process is to do.

    Args:
        side: ``forward``: the network alone; ``predict``: ``Predictor.predict_raster``; or a peer.
        scene: To map.
        out: Mask to write.
        network: A name of ``networks.NAMES``.
        precision: As ``--precision`` of ``ctrs predict``; peers compute in fp32.
        device: ``cpu``, ``cuda``, ...
        batch_size: Windows at a time.
        threads: Of torch.
        window_px: Window edge.
        overlap: Share of the window.
        channels_last: Layout of the bare network, that of `Predictor`'s.
    """

    side: str
    scene: str
    out: str
    network: str
    precision: str
    device: str
    batch_size: int
    threads: int
    window_px: int = 512
    overlap: float = 0.25
    channels_last: bool = True

    @classmethod
    def from_json(cls, text: str) -> Turn:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def take(turn: Turn) -> dict[str, Any]:
    """Do it, and return what was measured."""
    share_one_arena()  # as the command does
    torch.set_num_threads(turn.threads)
    if turn.side == "forward":
        found = run_forward(turn)
    elif turn.side == "predict":
        found = run_predict(turn)
    else:
        found = run_peer(turn)
    return {"side": turn.side, "precision": turn.precision, **found}


def resolve(device: str, precision: str) -> tuple[torch.device, torch.dtype]:
    """Return the device and the precision that `Predictor` takes."""
    predictor = Predictor(nn.Identity(), classes=CLASSES, bands=BANDS, device=device, precision=precision)
    return predictor.device, predictor.precision


class BareNetwork:
    """The network as Python calls it, in the layout and precision of `Predictor`: nothing read, nothing blended."""

    def __init__(self, turn: Turn, network: nn.Module) -> None:
        self.device, self.precision = resolve(turn.device, turn.precision)
        layout = torch.channels_last if turn.channels_last else torch.contiguous_format
        self.network = network.to(self.device).to(memory_format=layout)
        self.layout = layout

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        reduced = self.precision is not torch.float32
        with torch.autocast(self.device.type, self.precision if reduced else torch.bfloat16, enabled=reduced):
            return logits_of(self.network(images))

    def warm_up(self, turn: Turn) -> None:
        images = torch.zeros(turn.batch_size, BANDS.count, turn.window_px, turn.window_px, device=self.device)
        for _ in range(2):
            self(images.to(memory_format=self.layout))
        self.wait()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def run_forward(turn: Turn) -> dict[str, Any]:
    """Run the network over the windows of a scene, which lie ready in memory; what it frees stays, as in predict."""
    network = BareNetwork(turn, make_network(turn.network))
    batches = [images.to(network.device) for images in ready_batches(turn, network.layout)]
    network.warm_up(turn)
    with kept_memory(), Meter() as meter:
        for images in batches:
            network(images)
        network.wait()
    return {**meter.figures(), "windows": sum(map(len, batches))}


def ready_batches(turn: Turn, layout: torch.memory_format) -> Iterator[Tensor]:
    """Yield standardized windows (B, C, h, w) of the scene as `Predictor` places them, without those in nodata."""
    batch: list[Tensor] = []
    with rasterio.open(turn.scene) as dataset:
        plan = make_predictor(turn, nn.Identity()).plan(dataset.height, dataset.width, options(turn))
        for row in plan.row_starts:
            for col in plan.col_starts:
                place = Window(col, row, turn.window_px, turn.window_px)
                pixels = dataset.read(window=place)
                if dataset.nodata is not None and not (pixels != dataset.nodata).any():
                    continue
                batch.append(torch.from_numpy(BANDS.standardize(BANDS.scale(pixels))))
                if len(batch) == turn.batch_size:
                    yield torch.stack(batch).to(memory_format=layout)
                    batch = []
    if batch:
        yield torch.stack(batch).to(memory_format=layout)


def make_predictor(turn: Turn, network: nn.Module) -> Predictor:
    return Predictor(
        network, classes=CLASSES, bands=BANDS, window_px=turn.window_px, overlap=turn.overlap, device=turn.device,
        precision=turn.precision,
    )  # fmt: skip


def options(turn: Turn) -> PredictConfig:
    return PredictConfig(batch_size=turn.batch_size, threads=turn.threads)


class Phases:
    """When windows began and ended, heard as the progress of ``predict_raster``, and the peak of memory by then."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.ended = 0.0
        self.peak_mib: float | None = None
        self.what = ""

    def __call__(self, done: int, total: int, what: str) -> None:
        if self.began is None:
            self.began, self.what = time.perf_counter(), what
        if what == self.what and done == total:
            self.ended, self.peak_mib = time.perf_counter(), peak_mib()


class Watch:
    """Listens to a network: windows that it sees, and for how long it is busy."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.device = device
        self.windows = 0
        self._spans: list[tuple[Any, Any]] = []
        self._began: Any = None
        network.register_forward_pre_hook(self._before)
        network.register_forward_hook(self._after)

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _before(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.windows += len(inputs[0])
        self._began = self._now()

    def _after(self, _module: nn.Module, _inputs: tuple[Tensor, ...], _output: object) -> None:
        self._spans.append((self._began, self._now()))

    def forget(self) -> None:
        self.windows = 0
        self._spans.clear()

    def busy_seconds(self) -> float:
        if self.device.type != "cuda":
            return math.fsum(after - before for before, after in self._spans)
        torch.cuda.synchronize(self.device)
        return math.fsum(before.elapsed_time(after) for before, after in self._spans) / 1000


def run_predict(turn: Turn) -> dict[str, Any]:
    """Map the scene by ``Predictor.predict_raster``, whose progress tells when reading and writing windows ends."""
    network = make_network(turn.network)
    predictor = make_predictor(turn, network)
    watch = Watch(network, predictor.device)
    forget_peak()
    BareNetwork(turn, network).warm_up(turn)
    watch.forget()
    before, phases = peak_mib(), Phases()
    with Meter() as meter:
        mask = predictor.predict_raster(turn.scene, Path(turn.out), options(turn), progress=phases)
    if phases.began is None:
        raise RuntimeError(f"{mask}: was there before")
    with rasterio.open(turn.scene) as dataset:
        height, width = dataset.shape
    loop = phases.ended - phases.began
    return {
        **meter.figures(),
        "opening": phases.began - meter.started,
        "loop": loop,
        "finishing": meter.ended - phases.ended,
        "loop_mib": above(before, phases.peak_mib),
        "above_mib": above(before, peak_mib()),
        "busy": watch.busy_seconds() / loop,
        "windows": watch.windows,
        "windows_allowed": allowed(height, turn) * allowed(width, turn),
        "pixels": height * width,
        "mask_bytes": mask.stat().st_size,
    }


def allowed(length: int, turn: Turn) -> int:
    """Return the most windows along an axis: ceil((length - window) / stride) + 1."""
    stride = round(turn.window_px * (1 - turn.overlap))
    return math.ceil(max(length - turn.window_px, 0) / stride) + 1


def run_peer(turn: Turn) -> dict[str, Any]:
    """Map the scene with another tool, as its users would, in fp32 and PyTorch's own layout."""
    network = make_network(turn.network).to(turn.device)
    plain = Turn(**{**asdict(turn), "precision": "fp32", "channels_last": False})
    forget_peak()
    BareNetwork(plain, network).warm_up(plain)
    before = peak_mib()
    with Meter() as meter:
        mask = PEERS[turn.side].run(turn, network)
    with rasterio.open(mask) as dataset:
        found = np.unique(dataset.read(1))
    if found.max() >= CLASSES.num_classes:
        raise RuntimeError(f"{turn.side}: values {found} in the mask")
    return {**meter.figures(), "above_mib": above(before, peak_mib())}


def above(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
