"""ONNX files: written from a captured network, read back, run by onnxruntime.

The packages that this takes are an extra of ctrs and are imported when needed.
"""

from __future__ import annotations

import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import ctrs
from ctrs.errors import CtrsError, ExportError, UsageError

INPUT = "image"
BATCH = "batch"
OPSET = 18
"""As old as the exporter writes by itself, for the runtimes that come with GIS programs."""

_IR_VERSION = 8  # of the release that brought the opset
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_MAX_BYTES = 2**31 - 1  # of one protobuf message


def require_onnx() -> None:
    """Refuse to begin without the packages.

    Raises:
        UsageError: One is missing or does not work.
    """
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            broken = "" if isinstance(error, ModuleNotFoundError) and error.name == name else f" ({error})"
            raise UsageError(
                f"--onnx needs {name}, which is not installed{broken}; pip install 'ctrs[export]'"
            ) from error


def write_onnx(program: torch.export.ExportedProgram, path: Path, *, output: str, tags: Mapping[str, str]) -> None:
    """Write a captured network of one input and one output; the same bytes each time.

    Names of source files, which the exporter notes for each operation, are left out.

    Raises:
        ExportError: ONNX cannot hold it.
        OSError: The file cannot be written.
    """
    with _silence():
        converted = torch.onnx.export(
            program, input_names=[INPUT], output_names=[output], opset_version=OPSET, dynamo=True, verbose=False
        )
    if converted is None:
        raise ExportError("the exporter returned nothing")
    proto: Any = converted.model_proto
    if proto.ByteSize() > _MAX_BYTES:
        raise ExportError(f"{proto.ByteSize() / 1e9:.1f} GB found, but an ONNX file holds 2.1; use --pt2")
    _tidy(proto)
    proto.ir_version = _IR_VERSION
    proto.producer_name, proto.producer_version = "ctrs", ctrs.__version__
    proto.doc_string = ""
    for key in sorted(tags):
        proto.metadata_props.add(key=key, value=tags[key])
    path.write_bytes(proto.SerializeToString(deterministic=True))


def read_onnx_tags(path: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file; empty where it is none."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf's own kinds
        return {}
    return {entry.key: entry.value for entry in model.metadata_props}


def run_onnx(
    path: Path, batches: list[npt.NDArray[np.float32]]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Check an ONNX file that ctrs wrote, and run its network in onnxruntime on the CPU.

    Args:
        path: The file.
        batches: Input (B, C, S, S), one run each.

    Returns:
        Its output (B, K, S, S) of all batches, and the logits: what its last softmax is given, or else the output.

    Raises:
        ExportError: The file breaks the rules of ONNX, or cannot be run.
    """
    import onnx
    import onnxruntime

    try:
        onnx.checker.check_model(str(path), full_check=True)
        model: Any = onnx.load(path)
        last = next(node for node in model.graph.node if model.graph.output[0].name in node.output)
        if last.op_type == "Softmax":
            model.graph.output.add(name=last.input[0]).type.CopyFrom(model.graph.output[0].type)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        runs = [session.run(None, {INPUT: batch}) for batch in batches]
    except CtrsError:
        raise
    except Exception as error:  # onnx and onnxruntime raise kinds of their own
        raise ExportError(f"onnxruntime cannot run what was written ({first_line(error)})") from error
    return np.concatenate([run[0] for run in runs]), np.concatenate([run[-1] for run in runs])


def first_line(error: BaseException) -> str:
    """Return the kind of an error, and the first line of what it says."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _tidy(proto: Any) -> None:
    """Leave out notes on source files; name the first axis of input and output."""
    graph = proto.graph
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for holder in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        for name in ("metadata_props", "doc_string"):
            if name in holder.DESCRIPTOR.fields_by_name:
                holder.ClearField(name)
    for function in proto.functions:
        for holder in (function, *function.node, *function.value_info):
            for name in ("metadata_props", "doc_string"):
                if name in holder.DESCRIPTOR.fields_by_name:
                    holder.ClearField(name)
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if symbol and dim.dim_param == symbol:
                dim.dim_param = BATCH


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's prints, warnings and log records from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
