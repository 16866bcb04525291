"""torch.export archives (.pt2): a captured network with its weights, for torch without the classes of ctrs."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ctrs.errors import ExportError
from ctrs.inference.onnx_file import first_line

TAGS_FILE = "metadata.json"
"""Name of the extra file in the archive that holds the metadata, as one JSON table of texts."""

_SOURCE_NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")


def capture(
    network: torch.nn.Module, example: torch.Tensor, *, fused_attention: bool = True
) -> torch.export.ExportedProgram:
    """Capture the operations of a network of one input, for any number of images of the example's size.

    Notes on source files are left out.

    Args:
        network: In evaluation mode.
        example: (B, C, H, W) with B of 2 or more.
        fused_attention: Take timm's attention as one operation where it is one; else as products and a softmax.
    """
    with torch.no_grad(), warnings.catch_warnings(), _attention_in_parts(network, not fused_attention):
        warnings.simplefilter("ignore")
        program = torch.export.export(
            network, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), strict=False
        )
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for note in _SOURCE_NOTES:
                    node.meta.pop(note, None)
    return program


def fuses_attention(network: torch.nn.Module) -> bool:
    """Tell whether timm's attention is one operation somewhere in a network."""
    return any(getattr(module, "fused_attn", False) is True for module in network.modules())


@contextmanager
def _attention_in_parts(network: torch.nn.Module, wanted: bool) -> Iterator[None]:
    changed: list[Any] = [module for module in network.modules() if getattr(module, "fused_attn", False) is True]
    for module in changed:
        module.fused_attn = not wanted
    try:
        yield
    finally:
        for module in changed:
            module.fused_attn = True


def write_program(program: torch.export.ExportedProgram, path: Path, *, tags: Mapping[str, str]) -> None:
    """Write an archive.

    Raises:
        OSError: The file cannot be written.
    """
    text = json.dumps(dict(tags), sort_keys=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path, extra_files={TAGS_FILE: text})


def read_program_tags(path: Path) -> dict[str, str]:
    """Return the metadata of an archive; empty where it is none of ctrs."""
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(f"extra/{TAGS_FILE}"))
            row = json.loads(archive.read(name))
    except (OSError, ValueError, zipfile.BadZipFile):
        return {}
    return row if isinstance(row, dict) else {}


@torch.no_grad()
def run_program(path: Path, batches: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Load an archive that ctrs wrote, and run its network on the CPU.

    Args:
        path: The file.
        batches: Input (B, C, S, S), one run each.

    Returns:
        Its output (B, K, S, S) of all batches.

    Raises:
        ExportError: It cannot be loaded or run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = torch.export.load(path).module()
            runs = [network(torch.from_numpy(batch)).numpy() for batch in batches]
    except Exception as error:  # torch raises many kinds
        raise ExportError(f"torch cannot run what was written ({first_line(error)})") from error
    return np.concatenate(runs)
