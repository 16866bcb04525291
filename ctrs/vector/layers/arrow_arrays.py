"""Columns as Arrow arrays, made from their buffers.

``pyarrow.array`` and ``Array.to_numpy`` load pandas wherever it is installed: some 45 MB that no writer needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def arrow_array(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Return a column as an Arrow array; NaN among numbers and None among texts are null.

    Args:
        values: Numbers of just that type, or texts or bytes as objects; shape (N,).
        kind: A type of numbers, ``string`` or ``binary``.

    >>> arrow_array(np.array([1.5, np.nan]), pa.float64()).to_pylist()
    [1.5, None]
    >>> arrow_array(np.array(["über", None, ""], object), pa.string()).to_pylist()
    ['über', None, '']
    """
    if values.dtype != object:
        known = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), bool)
        return pa.Array.from_buffers(kind, len(values), [_bits(known), pa.py_buffer(np.ascontiguousarray(values))])
    known = np.array([value is not None for value in values], bool)
    encoded = [value.encode() if isinstance(value, str) else value or b"" for value in values]
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in encoded], out=offsets[1:])
    buffers = [_bits(known), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(kind, len(values), buffers)


def numpy_view(numbers: pa.Array) -> npt.NDArray[np.float64]:
    """Return an array from ``arrow_array`` of float64 without nulls as numpy sees it, without a copy."""
    return np.frombuffer(numbers.buffers()[1], np.float64, len(numbers))


def _bits(known: npt.NDArray[np.bool_]) -> pa.Buffer | None:
    return None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
