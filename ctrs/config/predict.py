"""What prediction can be told."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ctrs.config.choices import Blend, ConfidenceKind, Precision, ProbabilityFormat, require

_MEMORY_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True, kw_only=True)
class TestTimeAugmentation:
    """Transformed copies of each window whose logits are averaged.

    Args:
        kind: ``none``; ``flip``: as it is, mirrored, upside down, both; ``d4``: all eight rotations and mirror images;
            ``multiscale``: resized by each of ``scales``.
        scales: Of ``multiscale``.
    """

    __test__ = False  # no test class, whatever pytest reads into its name

    kind: Literal["none", "flip", "d4", "multiscale"] = "none"
    scales: tuple[float, ...] = ()

    @property
    def num_passes(self) -> int:
        """How often the network sees each window.

        >>> TestTimeAugmentation(kind="d4").num_passes
        8
        """
        return {"none": 1, "flip": 4, "d4": 8, "multiscale": len(self.scales)}[self.kind]

    def __str__(self) -> str:
        """Return the text that `parse_tta` reads."""
        if self.kind != "multiscale":
            return self.kind
        return f"multiscale:{','.join(f'{scale:g}' for scale in self.scales)}"


def parse_tta(text: str) -> TestTimeAugmentation:
    """Read ``none``, ``flip``, ``d4`` or ``multiscale:0.75,1,1.25``.

    >>> parse_tta("multiscale:0.75,1,1.25").scales
    (0.75, 1.0, 1.25)

    Raises:
        ConfigError: It is none of them.
    """
    kind, colon, rest = text.strip().partition(":")
    expected = "none, flip, d4 or multiscale:0.75,1,1.25 (scales from 0.25 to 4)"
    if kind in ("none", "flip", "d4") and not colon:
        return TestTimeAugmentation(kind=kind)  # type: ignore[arg-type]
    try:
        scales = tuple(float(part) for part in rest.split(","))
    except ValueError:
        scales = ()
    require(kind == "multiscale" and bool(scales), "tta", text, expected)
    require(all(0.25 <= scale <= 4 for scale in scales), "tta", text, expected)
    return TestTimeAugmentation(kind="multiscale", scales=tuple(dict.fromkeys(scales)))


def parse_memory(text: str) -> int:
    """Read an amount of memory, ``800MB`` or ``1.5G``, in powers of 1000, ``2GiB`` of 1024; returns bytes.

    >>> parse_memory("1.5GB"), parse_memory("2GiB")
    (1500000000, 2147483648)

    Raises:
        ConfigError: It is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    expected = "an amount such as 800MB or 2GB"
    require(found is not None, "max_memory", text, expected)
    amount = int(float(found[1]) * (1024 if found[3] else 1000) ** _MEMORY_UNITS[found[2]]) if found else 0
    require(amount >= 10**6, "max_memory", text, f"{expected}, at least 1MB")
    return amount


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """How a scene is mapped.

    Args:
        window_px: Window edge in pixels of the grid that the network sees; None: the checkpoint's.
        overlap: Share of the window that neighbours have in common; None: the checkpoint's.
        blend: Weights of overlapping windows.
        tta: Test-time augmentation, as ``parse_tta`` reads it.
        batch_size: Windows at a time; None: by device.
        bidx: Bands of the scene to use, from 1, in the order of the checkpoint's bands; empty: all but alpha.
        gsd: Ground metres of a pixel that the network sees, ``"model"`` for those it was trained with; None: the
            scene's own pixels. The mask is on the scene's grid all the same.
        bounds: ``(west, south, east, north)`` in the scene's CRS: only the pixels that this rectangle touches are
            mapped and written; None: all.
        aoi: Vector file with the area of interest; pixels whose centre lies outside it are nodata.
        classes: Names of the classes to write; the others become one class, ``other``. Empty: all.
        thresholds: ``(name, probability)``: a pixel belongs to such a class exactly where the class is at least so
            probable; of several such classes to the most probable, elsewhere to the most probable of the others.
        confidence: Also write how sure the network is, ``SCENE_confidence.tif`` beside the mask: probability of the
            class that the mask shows, its margin over the next, or 1 minus the entropy as a share of the largest.
        probabilities: Also write the probability of each class, ``SCENE_probabilities.tif``, in this number format.
        device: ``auto``, ``cpu``, ``cuda``, ...
        precision: ``auto`` is bf16 where the device computes it fast, else fp32.
        compile: Compile the network (torch.compile) first.
        threads: CPU threads of torch; None leaves torch's choice.
        max_memory: Bytes that prediction may take beside network and activations; wide scenes are then mapped in
            blocks of columns. None: whole rows.
        skip_unreadable: Blocks of the scene that cannot be read become nodata and are reported; False: an error.
        strict: Refuse a scene that differs from the training imagery, rather than warn.
        creation_options: ``(NAME, VALUE)`` for GDAL's COG driver.
        style: Write a QGIS style, ``SCENE_mask.qml``.
        stac: Write a STAC item, ``SCENE_mask.stac.json``.
        resume: Go on with unfinished work of the same job; False: begin anew.
        overwrite: Replace a different result, discard unfinished work.
    """

    window_px: int | None = None
    overlap: float | None = None
    blend: Blend = "hann"
    tta: str = "none"
    batch_size: int | None = None
    bidx: tuple[int, ...] = ()
    gsd: float | Literal["model"] | None = None
    bounds: tuple[float, float, float, float] | None = None
    aoi: Path | None = None
    classes: tuple[str, ...] = ()
    thresholds: tuple[tuple[str, float], ...] = ()
    confidence: ConfidenceKind | None = None
    probabilities: ProbabilityFormat | None = None
    device: str = "auto"
    precision: Precision = "auto"
    compile: bool = False
    threads: int | None = None
    max_memory: int | None = None
    skip_unreadable: bool = False
    strict: bool = False
    creation_options: tuple[tuple[str, str], ...] = ()
    style: bool = False
    stac: bool = False
    resume: bool = True
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.window_px is not None:
            require(32 <= self.window_px <= 8192, "window_px", self.window_px, "32 to 8192")
        if self.overlap is not None:
            require(0 <= self.overlap <= 0.9, "overlap", self.overlap, "0 to 0.9")
        parse_tta(self.tta)
        if self.batch_size is not None:
            require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        require(all(number >= 1 for number in self.bidx), "bidx", self.bidx, "band numbers from 1")
        if self.gsd is not None and self.gsd != "model":
            require(math.isfinite(self.gsd) and self.gsd > 0, "gsd", self.gsd, "metres above 0, or model")
        if self.bounds is not None:
            west, south, east, north = self.bounds
            ordered = west < east and south < north and all(map(math.isfinite, self.bounds))
            require(ordered, "bounds", self.bounds, "west,south,east,north in the scene's CRS")
        named = [name for name, _ in self.thresholds]
        require(len(set(named)) == len(named), "thresholds", self.thresholds, "one probability for each class")
        inside = all(0 < value <= 1 for _, value in self.thresholds)
        require(inside, "thresholds", self.thresholds, "probabilities above 0 and up to 1")
        if self.threads is not None:
            require(self.threads >= 1, "threads", self.threads, "1 or more")
        if self.max_memory is not None:
            require(self.max_memory >= 10**6, "max_memory", self.max_memory, "bytes, at least 1 MB")
