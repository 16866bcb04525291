"""A network on its device: from standardized windows to logits on the scene's pixels.

B windows of a batch, C bands, K classes, h x w a window.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctrs.config import TestTimeAugmentation
from ctrs.errors import CheckpointError, DeviceError
from ctrs.inference.tta import averaged

_ONCE = TestTimeAugmentation()


class Network:
    """A network as prediction runs it: evaluation mode, channels last in memory, no gradients, one precision.

    Args:
        module: Maps (B, C, h, w) standardized float images to logits (B, K, h, w), or to an object that has them as
            ``logits``. It is changed: moved to the device, laid out, put into evaluation mode.
        num_classes: K.
        device: Where it computes.
        precision: Of its arithmetic, from ``resolve_inference_precision``; weights stay float32.
    """

    def __init__(self, module: nn.Module, *, num_classes: int, device: torch.device, precision: torch.dtype) -> None:
        self.module = module.to(device=device).to(memory_format=torch.channels_last).eval()
        self.num_classes = num_classes
        self.device = device
        self.precision = precision
        self._compiled: nn.Module | None = None

    @torch.inference_mode()
    def logits(
        self,
        images: Tensor,
        *,
        size_px: int | None = None,
        antialias: bool = False,
        tta: TestTimeAugmentation = _ONCE,
        compiled: bool = False,
    ) -> Tensor:
        """Return the logits of a batch, on the pixels of its windows.

        Args:
            images: Standardized float32 (B, C, h, h) on the device, channels last.
            size_px: Edge that windows are resized to for the network, bilinearly, and the logits back; None: not.
            antialias: Let every pixel count where that makes fewer of them.
            tta: Copies whose logits are averaged.
            compiled: Run the network through ``torch.compile``.

        Returns:
            Float (B, K, h, h) as the network made it: in any layout, not to be written to.

        Raises:
            CheckpointError: The network has another number of classes.
            DeviceError: The device's memory does not suffice, or the network cannot be compiled.
        """
        edge = images.shape[-1]
        module = self._compile() if compiled else self.module
        if size_px not in (None, edge):
            images = _resize(images, size_px or edge, antialias).contiguous(memory_format=torch.channels_last)
        try:
            logits = averaged(lambda copies: self._forward(module, copies), images, tta)
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{self.device}: out of memory with {len(images)} windows of {images.shape[-1]} px at a time; "
                "pass a smaller --batch-size"
            ) from error
        return logits if size_px in (None, edge) else _resize(logits.float(), edge, antialias)

    def _forward(self, module: nn.Module, images: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.precision, enabled=self.precision is not torch.float32):
            output = module(images)
        logits: Tensor = getattr(output, "logits", output)
        # A sum tells in one pass: what is not finite stays so in it. Asked for in float32, that of bfloat16, which
        # reaches as far, takes several times as long.
        wide = torch.float32 if logits.dtype is torch.float16 else None
        if not math.isfinite(logits.sum(dtype=wide).item()):
            raise CheckpointError(
                f"the network returned values that are not finite, computing in {str(self.precision)[6:]}; "
                "pass --precision fp32, and if that does not help, train again: the weights are broken"
            )
        expected = (len(images), self.num_classes, *images.shape[-2:])
        if tuple(logits.shape) != expected:
            raise CheckpointError(
                f"the network returned logits of shape {tuple(logits.shape)}, expected {expected}; "
                "its class table belongs to another network"
            )
        return logits

    def _compile(self) -> nn.Module:
        """Return the compiled network; it is compiled for each size of a batch when that first comes."""
        if self._compiled is None:
            self._compiled = _Compiled(self.module)
        return self._compiled


class _Compiled(nn.Module):
    """A network behind ``torch.compile``, whose failures are told in one line."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._run = torch.compile(module, dynamic=False)

    def forward(self, images: Tensor) -> object:
        # Only what compiling itself raises: errors of the network pass as they are.
        try:
            return self._run(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            cause = " ".join(str(error).split())[:200]
            raise DeviceError(
                f"the network cannot be compiled here ({cause}); leave --compile out, or install a C++ compiler"
            ) from error


def _resize(images: Tensor, size_px: int, antialias: bool) -> Tensor:
    shrinks = antialias and size_px < images.shape[-1]
    return F.interpolate(images, size=(size_px, size_px), mode="bilinear", align_corners=False, antialias=shrinks)
