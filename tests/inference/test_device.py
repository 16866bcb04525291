"""Devices and precisions by name."""

import pytest
import torch

from ctrs.errors import DeviceError
from ctrs.inference.device import resolve_device, resolve_inference_precision, resolve_precision

CPU = torch.device("cpu")


def test_auto_takes_what_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device() == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no CUDA device found, 'cuda' asked for; pass --device cpu"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("cuda:0").index == 0
    with pytest.raises(DeviceError, match="'cuda:1' asked for, found 1 CUDA devices"):
        resolve_device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "mps", ""])
def test_unknown_names(name):
    with pytest.raises(DeviceError, match="is unknown; expected auto, cpu, cuda or cuda:NUMBER"):
        resolve_device(name)


def test_precision(monkeypatch):
    cuda = torch.device("cuda")
    assert resolve_precision("auto", CPU) is torch.float32
    assert resolve_precision("bf16", CPU) is torch.bfloat16
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert resolve_precision("auto", cuda) is torch.bfloat16
    assert resolve_precision("fp32", cuda) is torch.float32
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert resolve_precision("auto", cuda) is torch.float32
    with pytest.raises(DeviceError, match=r"capability 7.5 found, bf16 needs 8.0; pass --precision fp32"):
        resolve_precision("bf16", cuda)
    with pytest.raises(DeviceError, match="precision 'fp8' is unknown"):
        resolve_precision("fp8", CPU)


@pytest.mark.parametrize(("avx512", "amx"), [(False, False), (True, False), (False, True)])
def test_inference_takes_bf16_where_a_cpu_computes_it_and_training_does_not(monkeypatch, avx512, amx):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert resolve_inference_precision("auto", CPU) is (torch.bfloat16 if avx512 or amx else torch.float32)
    assert resolve_inference_precision("fp32", CPU) is torch.float32
    assert resolve_inference_precision("bf16", CPU) is torch.bfloat16
    assert resolve_precision("auto", CPU) is torch.float32


def test_inference_in_fp16_needs_a_gpu(monkeypatch):
    with pytest.raises(DeviceError, match="cpu: fp16 asked for, which CPUs compute slowly; pass --precision bf16"):
        resolve_inference_precision("fp16", CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert resolve_inference_precision("fp16", torch.device("cuda")) is torch.float16
    assert resolve_inference_precision("auto", torch.device("cuda")) is torch.float32
