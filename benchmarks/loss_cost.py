"""What each contrast term costs in a training step: time and peak memory beside a step without contrast.

    python benchmarks/loss_cost.py
    python benchmarks/loss_cost.py --terms none,cl,pne --rounds 5 --json cost.json
    python benchmarks/loss_cost.py --device cuda --batch 32 --precision bf16 --rounds 30 --compile

A step is draw of the random numbers, forward, objective, backward and AdamW of PoolFormer-S12 + DCFAM on crops of the
real Dubai tiles with their masks (CTRS_TEST_DATA, default ../shared/data). Prints a Markdown table:

- step: seconds of a whole step, median over the rounds. In each round every term has one step, all in one process and
  on one network, and each round begins with another term; a ratio is that of a term to ``none`` in the same round, its
  median and quartiles over the rounds are shown.
- objective: milliseconds that forward and backward of the objective alone, on stored outputs of the network, take more
  than those of ``none``, round by round in the same way, and one plus that over a step of ``none``: the same cost
  without the noise of the network.
- peak: the most memory that one step holds, each term in a process of its own. On the CPU resident memory beyond what
  the imports take, with every larger tensor mapped on its own, so that no fragmentation is counted; on CUDA what
  torch's allocator hands out.

Terms: anything that ``--loss`` takes; ``cms+ccs/ln`` has heads with layer norm; ``naive`` is the straightforward
implementation of cl in naive_contrast.py. ``--device cuda`` needs a CUDA device.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from naive_contrast import NaiveContrast
from PIL import Image
from torch import Tensor, nn

from ctrs.config import MultiscaleConfig, TrainConfig
from ctrs.models import ProjectionHead, create_model
from ctrs.models.segmentation import SegmentationModel, SegmentationOutput
from ctrs.training.environment import cpu_model
from ctrs.training.step import TrainingStep, create_training_step

TERMS = ("none", "cl", "infonce", "supcon", "pne", "cms+ccs", "cms+ccs/ln", "naive")
# Colours as measured in the masks; the few black pixels outside the legend are void.
COLORS = {
    "building": (60, 16, 152),
    "land": (132, 41, 246),
    "road": (110, 193, 228),
    "vegetation": (254, 221, 58),
    "water": (226, 169, 41),
    "unlabelled": (155, 155, 155),
}
VOID = 255


class NaiveStep(nn.Module):
    """A training step without contrast, plus the naive implementation of cl."""

    def __init__(self, step: TrainingStep, contrast: NaiveContrast) -> None:
        super().__init__()
        self.step = step
        self.objective = NaiveObjective(step.objective, contrast)

    def forward(self, images: Tensor, labels: Tensor, keys: object) -> tuple[Tensor, object]:
        output = self.step.model(images)
        return self.objective(output.logits, output.features, output.embedding, labels, keys)

    def draw_keys(self, images: Tensor, *, seed: int, epoch: int, step: int) -> object:
        return self.step.draw_keys(images, seed=seed, epoch=epoch, step=step)


class NaiveObjective(nn.Module):
    def __init__(self, plain: nn.Module, contrast: NaiveContrast) -> None:
        super().__init__()
        self.plain = plain
        self.contrast = contrast

    def forward(
        self, logits: Tensor, features: Sequence[Tensor], embedding: Tensor, labels: Tensor, keys: object
    ) -> tuple[Tensor, object]:
        result = self.plain(logits, features, embedding, labels, keys)
        return result[0] + self.contrast(features, labels), result[1]


def read_crops(folder: Path, batch: int, px: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Cut random windows out of the tiles that are large enough.

    Returns:
        (B, 3, px, px) float32 standardized images, (B, px, px) int64 labels.
    """
    rng = np.random.default_rng(seed)
    paths = sorted((folder / "masks").glob("*.png"))
    sizes = {path: Image.open(path).size for path in paths}
    large = [path for path in paths if min(sizes[path]) >= px]
    if not large:
        raise SystemExit(
            f"{folder}: no masks of at least {px} x {px} px; set CTRS_TEST_DATA to the folder of real sets"
        )
    images, labels = [], []
    for _ in range(batch):
        path = large[rng.integers(len(large))]
        col, row = (int(rng.integers(size - px + 1)) for size in sizes[path])
        box = (col, row, col + px, row + px)
        colors = np.asarray(Image.open(path).convert("RGB").crop(box))
        label = np.full((px, px), VOID, dtype=np.int64)
        for index, color in enumerate(COLORS.values()):
            label[(colors == color).all(-1)] = index
        image = Image.open(folder / "images" / f"{path.stem}.jpg").convert("RGB").crop(box)
        images.append(np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1)
        labels.append(label)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))


def count_classes(labels: Tensor) -> dict[str, int]:
    return {name: int((labels == index).sum()) for index, name in enumerate(COLORS)}


def create_step(term: str, model: SegmentationModel) -> TrainingStep | NaiveStep:
    num_classes = len(COLORS)
    if term == "naive":
        heads = [ProjectionHead(channels) for channels in model.feature_channels]
        plain = create_training_step(model, TrainConfig(loss="none"), num_classes=num_classes)
        return NaiveStep(plain, NaiveContrast(heads, num_classes))
    loss, _, norm = term.partition("/")
    config = TrainConfig(loss=loss, multiscale=MultiscaleConfig(norm="ln" if norm == "ln" else "bn"))
    return create_training_step(model, config, num_classes=num_classes)


class Runner:
    """One term's steps on a network that all terms share.

    Args:
        term: See the module.
        model: The network.
        options: Of the command line.
    """

    def __init__(self, term: str, model: SegmentationModel, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.bf16 = options.precision == "bf16"
        self.step = create_step(term, model).to(self.device).train()
        self.compiled = torch.compile(self.step) if options.compile else self.step
        self.objective = torch.compile(self.step.objective) if options.compile else self.step.objective
        self.optimizer = torch.optim.AdamW(self.step.parameters(), lr=1e-5)
        self.count = 0

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def prepare_optimizer(self) -> None:
        """Give the optimizer its state, which belongs to every step but the first, without a step of the network."""
        for parameter in self.step.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def run(self, images: Tensor, labels: Tensor) -> None:
        self.count += 1
        keys = self.step.draw_keys(images, seed=0, epoch=0, step=self.count)
        with self.autocast():
            total, _ = self.compiled(images, labels, keys)
        total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def prepare_objective(self, output: SegmentationOutput) -> None:
        """Take the network's output as the leaves of what `pass_objective` does."""
        self.leaves = [part.detach().requires_grad_() for part in (output.logits, output.embedding, *output.features)]

    def pass_objective(self, images: Tensor, labels: Tensor) -> None:
        """Go forward and backward through the objective alone."""
        logits, embedding, *features = self.leaves
        keys = self.step.draw_keys(images, seed=0, epoch=1, step=0)
        with self.autocast():
            total, _ = self.objective(logits, features, embedding, labels, keys)
        total.backward()
        for tensor in self.leaves:
            tensor.grad = None
        self.optimizer.zero_grad(set_to_none=True)


def stopwatch(work: Callable[[], None], device: torch.device) -> float:
    """Return the seconds that ``work`` takes, on the device where it has a clock of its own."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        work()
        end.record()
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(end)) / 1e3
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def resident_mb(field: str) -> float:
    """Return VmRSS (now) or VmHWM (peak) of this process in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/self/status has no {field}; peak memory on the CPU needs Linux")


def measure_peak(term: str, options: argparse.Namespace) -> float:
    """Return the peak memory of one step in MiB; for a process of its own."""
    device = torch.device(options.device)
    images, labels = (part.to(device) for part in read_crops(options.data, options.batch, options.px))
    base = resident_mb("VmRSS") if device.type == "cpu" else 0.0
    runner = Runner(term, create_network().to(device), options)
    runner.prepare_optimizer()
    if device.type == "cuda":
        for _ in range(2):
            runner.run(images, labels)
        torch.cuda.reset_peak_memory_stats(device)
        runner.run(images, labels)
        return torch.cuda.max_memory_allocated(device) / 2**20
    runner.run(images, labels)
    return resident_mb("VmHWM") - base


def peak_in_own_process(term: str, options: argparse.Namespace, arguments: Sequence[str]) -> float:
    # A fixed threshold keeps larger tensors out of the heap, whose fragmentation differs from run to run.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"} if options.device == "cpu" else dict(os.environ)
    command = [sys.executable, __file__, *arguments, "--peak-of", term]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mb"])


def create_network() -> SegmentationModel:
    torch.manual_seed(0)
    return create_model("poolformer", "dcfam", num_classes=len(COLORS))


def time_steps(options: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the seconds of each term's step, and of its objective alone, in each round."""
    device = torch.device(options.device)
    images, labels = (part.to(device) for part in read_crops(options.data, options.batch, options.px))
    model = create_network().to(device)
    runners = {term: Runner(term, model, options) for term in options.terms}
    with torch.no_grad(), runners["none"].autocast():
        output = model(images)
    for term, runner in runners.items():
        report(f"{term}: warm-up")
        runner.prepare_optimizer()
        runner.prepare_objective(output)
        runner.pass_objective(images, labels)
        if term == "none" or options.device != "cpu" or options.compile:
            runner.run(images, labels)
    objective = time_rounds(runners, lambda runner: runner.pass_objective(images, labels), options, "objective")
    seconds = time_rounds(runners, lambda runner: runner.run(images, labels), options, "step")
    return seconds, objective


def time_rounds(
    runners: Mapping[str, Runner], work: Callable[[Runner], None], options: argparse.Namespace, what: str
) -> dict[str, list[float]]:
    """Time each term once in each round; each round begins with another term."""
    seconds: dict[str, list[float]] = {term: [] for term in runners}
    for number in range(options.rounds):
        start = number % len(runners)
        for term in (*options.terms[start:], *options.terms[:start]):
            runner = runners[term]
            seconds[term].append(stopwatch(lambda runner=runner: work(runner), torch.device(options.device)))  # type: ignore[misc]
            report(f"{what}, round {number + 1} of {options.rounds}: {term} {seconds[term][-1]:.3f} s")
    return seconds


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return low, middle, high


def machine(options: argparse.Namespace) -> dict[str, object]:
    found: dict[str, object] = {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if options.device != "cpu":
        found["gpu"] = torch.cuda.get_device_name(options.device)
    return found


def added_ms(seconds: Mapping[str, Sequence[float]], term: str) -> float:
    """Return how many milliseconds more than ``none`` a term takes in the same round, the median over the rounds."""
    pairs = zip(seconds[term], seconds["none"], strict=True)
    return statistics.median(own - plain for own, plain in pairs) * 1e3


def report(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def table(rows: Sequence[dict[str, object]]) -> str:
    lines = [
        "| term | step, s | step / none (quartiles) | added, ms "
        "| objective adds, ms | over a step | peak, MB | added, MB | peak / none |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        low, middle, high = row["ratio"]  # type: ignore[misc]
        lines.append(
            f"| `{row['term']}` | {row['step_s']:.3f} | {middle:.3f} ({low:.3f} to {high:.3f}) | {row['added_ms']:.0f} "
            f"| {row['objective_added_ms']:.0f} | {row['objective_ratio']:.3f} "
            f"| {row['peak_mb']:.0f} | {row['added_mb']:+.0f} | {row['peak_ratio']:.3f} |"
        )
    return "\n".join(lines)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    default_data = os.environ.get("CTRS_TEST_DATA", str(Path(__file__).resolve().parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--px", type=int, default=512, help="edge of the crops, a multiple of 32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads of torch")
    parser.add_argument("--terms", default=",".join(TERMS), help="separated by commas, beginning with none")
    parser.add_argument("--compile", action="store_true", help="torch.compile the step")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.terms = options.terms.split(",")
    options.data = Path(default_data) / "dubai_mbrsc_landcover"
    if options.terms[0] != "none":
        parser.error("--terms must begin with none, to which all others are compared")
    if options.px % 32:
        parser.error("--px must be a multiple of 32")
    if options.rounds < 1 or options.batch < 1:
        parser.error("--rounds and --batch must be at least 1")
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    if options.peak_of:
        print(json.dumps({"peak_mb": measure_peak(options.peak_of, options)}))
        return
    peaks = {}
    for term in options.terms:
        peaks[term] = peak_in_own_process(term, options, arguments)
        report(f"{term}: peak {peaks[term]:.0f} MB")
    seconds, objective = time_steps(options)
    plain = seconds["none"]
    rows: list[dict[str, object]] = []
    for term in options.terms:
        alone = added_ms(objective, term)
        rows.append(
            {
                "term": term,
                "step_s": statistics.median(seconds[term]),
                "ratio": quartiles([own / other for own, other in zip(seconds[term], plain, strict=True)]),
                "added_ms": added_ms(seconds, term),
                "objective_added_ms": alone,
                "objective_ratio": 1 + alone / 1e3 / statistics.median(plain),
                "peak_mb": peaks[term],
                "added_mb": peaks[term] - peaks["none"],
                "peak_ratio": peaks[term] / peaks["none"],
            }
        )
    about = {
        "machine": machine(options),
        "batch": options.batch,
        "px": options.px,
        "rounds": options.rounds,
        "precision": options.precision,
        "compiled": options.compile,
        "pixels": count_classes(read_crops(options.data, options.batch, options.px)[1]),
    }
    print(f"{options.batch} x {options.px} px, {options.precision}, {options.rounds} rounds; ", end="")
    print(", ".join(f"{name} {value}" for name, value in about["machine"].items()))  # type: ignore[attr-defined]
    print("pixels of each class: " + ", ".join(f"{name} {count}" for name, count in about["pixels"].items()) + "\n")  # type: ignore[attr-defined]
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({**about, "rows": rows, "seconds": seconds}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
