"""Raw pixels become network input: by look-up where values are few, on the device where that is a GPU.

B windows of a batch, C bands, h x w a window.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctrs.raster.bands import Bands, FloatArray

_ROWS_AT_ONCE = 64
"""Rows that OpenCV looks up at a time: they stay in a CPU's caches, and are too few for it to start threads."""


class PixelStandardizer:
    """Turns raw pixels into network input, exactly as ``Bands.scale`` and ``Bands.standardize`` do.

    For integers of up to 16 bits the results of all values are looked up, which is several times as fast.

    Args:
        bands: What the network expects.
    """

    def __init__(self, bands: Bands) -> None:
        self.bands = bands
        self._table: FloatArray | None = None
        kind = np.dtype(bands.dtype)
        if kind.kind in "iu" and kind.itemsize <= 2:
            self._index = np.dtype(f"u{kind.itemsize}")
            values = np.arange(2 ** (8 * kind.itemsize), dtype=self._index).view(kind)
            every_band = np.broadcast_to(values, (bands.count, 1, len(values)))
            self._table = bands.standardize(bands.scale(every_band))[:, 0]
        # Of bytes, looked up by OpenCV in half the time.
        self._pixel_table = None
        if self._table is not None and self._index.itemsize == 1:
            self._pixel_table = np.ascontiguousarray(self._table.T[:, None])
        self._device_table: Tensor | None = None

    @property
    def raw_dtype(self) -> torch.dtype | None:
        """What ``on_device`` takes; None where values are too many to look up."""
        if self._table is None:
            return None
        return torch.uint8 if self._index.itemsize == 1 else torch.int16

    def __call__(self, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_], out: FloatArray) -> None:
        """Write network input to ``out`` (h, w, C); invalid pixels become 0, the mean of each band.

        Args:
            pixels: Raw values (C, h, w).
            valid: Valid mask (h, w), True = valid.
            out: Where to write.
        """
        if self._pixel_table is not None and out.flags.c_contiguous:
            for top in range(0, len(out), _ROWS_AT_ONCE):
                rows = slice(top, top + _ROWS_AT_ONCE)
                cv2.LUT(cv2.merge(list(pixels[:, rows].view(np.uint8))), self._pixel_table, dst=out[rows])
        elif self._table is not None:
            for band, table in enumerate(self._table):
                out[..., band] = np.take(table, pixels[band].view(self._index), mode="clip")
        else:
            out[:] = np.moveaxis(self.bands.standardize(self.bands.scale(pixels)), 0, -1)
        if not valid.all():
            out[~valid] = 0.0

    def on_device(self, pixels: Tensor, valid: Tensor | None) -> Tensor:
        """Return network input float32 (B, C, h, w), channels last, of raw pixels that are on the device already.

        Args:
            pixels: Raw values (B, C, h, w), as ``raw_dtype``, bit for bit.
            valid: Valid mask (B, h, w), True = valid; None: all are.
        """
        if self._device_table is None or self._device_table.device != pixels.device:
            self._device_table = torch.from_numpy(self._table).to(pixels.device)
        count, num_values = self._device_table.shape
        index = pixels.int()
        index &= num_values - 1
        index += torch.arange(count, device=pixels.device, dtype=torch.int32)[:, None, None] * num_values
        images = self._device_table.reshape(-1)[index]
        if valid is not None:
            images.masked_fill_(~valid[:, None], 0.0)
        return images.contiguous(memory_format=torch.channels_last)
