"""How far exported networks lie from what they were exported from: every backbone and every decoder of ctrs.

    python -m benchmarks.export_differences            # ONNX and torch.export archives; an hour on two cores
    python -m benchmarks.export_differences swin dpt   # only those

Networks have three classes and random weights. A row is printed as soon as it is known, as Markdown. The difference is
the one that ``ctrs export`` measures: the greatest of a probability, or of a logit as a share of the greatest logit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ctrs.classes import ClassMap, LandClass
from ctrs.errors import CtrsError
from ctrs.inference.export import Export, export_onnx, export_program
from ctrs.models import BACKBONE_ALIASES, DECODERS, CheckpointMetadata, create_model, save_checkpoint
from ctrs.raster.bands import Bands

WINDOW_PX = 70  # no multiple of 32, so that padding is part of what is compared
CLASSES = ClassMap(classes=tuple(LandClass(value=i, name=f"class {i}", color=(i, 100, 200)) for i in range(3)))
BANDS = Bands(
    names=("red", "green", "blue"), dtype="uint8", low=(0,) * 3, high=(255,) * 3, mean=(102,) * 3, std=(51,) * 3
)


def save(folder: Path, backbone: str, decoder: str) -> Path:
    """Write a checkpoint of a network with random weights."""
    torch.manual_seed(1)
    model = create_model(backbone, decoder, num_classes=3, in_channels=3).eval()
    metadata = CheckpointMetadata(
        architecture=model.architecture, classes=CLASSES, bands=BANDS, window_px=WINDOW_PX, overlap=0.25
    )
    save_checkpoint(folder, model, metadata)
    return folder


def difference(export: Callable[[Path, Path], Export], checkpoint: Path, out: Path) -> str:
    """Return what an export differs by, or why there is none."""
    try:
        return f"{export(checkpoint, out).difference:.1e}"
    except CtrsError as error:
        return str(error)


def main(only: list[str]) -> None:
    """Print the table."""
    pairs = [(backbone, "unetformer") for backbone in BACKBONE_ALIASES]
    pairs += [("resnet18", decoder) for decoder in DECODERS if decoder != "unetformer"]
    print("| backbone | decoder | ONNX | torch.export | seconds |\n|---|---|---|---|---|", flush=True)
    for backbone, decoder in pairs:
        if only and not {backbone, decoder} & set(only):
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            checkpoint = save(folder / "model", backbone, decoder)
            started = time.perf_counter()
            onnx = difference(export_onnx, checkpoint, folder / "x.onnx")
            program = difference(export_program, checkpoint, folder / "x.pt2")
            taken = time.perf_counter() - started
        print(f"| {backbone} | {decoder} | {onnx} | {program} | {taken:.0f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="backbones and decoders; all unless given")
    main(parser.parse_args(sys.argv[1:]).only)
