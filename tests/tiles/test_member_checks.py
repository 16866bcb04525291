"""Members of archives are compared with their checksums: GDAL reads what was damaged in them without a word."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ctrs.cli.app import main
from ctrs.config import PrepareConfig
from ctrs.errors import DataError
from ctrs.raster.geotiff import open_raster
from ctrs.raster.names import archive_member
from ctrs.tiles import audit_source, prepare_tiles
from ctrs.tiles.findings import Findings
from ctrs.tiles.layout import find_layout
from ctrs.tiles.source_files import check_members

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
CONFIG = PrepareConfig(tile_px=32, val_fraction=0.0, workers=3)


def pack(archive: Path, files: dict[str, Path], method: int = STORED) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", method) as opened:
        for name, path in files.items():
            opened.write(path, name)
    return archive


@pytest.fixture
def files(make: Maker, tmp_path: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for number in range(3):
        for kind, pixels in (
            ("images", make.noise(64, 64, seed=number)),
            ("labels", make.indices(64, 64, seed=number)),
        ):
            found[f"{kind}/{number}.tif"] = make.raster(tmp_path / f"plain/{kind}/{number}.tif", pixels)
    (tmp_path / "plain/notes.txt").write_text("not used by anything")
    return found | {"notes.txt": tmp_path / "plain/notes.txt"}


def flip(archive: Path, content: bytes, offset: int = -50) -> None:
    """Change one byte of a member that is stored, in its pixels."""
    data = bytearray(archive.read_bytes())
    start = data.index(content)
    data[(start + len(content) if offset < 0 else start) + offset] ^= 255
    archive.write_bytes(data)


def faults(source: Path) -> list[str]:
    findings = Findings()
    check_members(find_layout(source, CONFIG, findings), CONFIG, findings, workers=2)
    return [finding.message for finding in findings.entries if finding.level == "fault"]


pytestmark = pytest.mark.filterwarnings("ignore::ctrs.errors.MissingCrsWarning")


def test_a_changed_pixel_is_a_fault_before_anything_stands(files: dict[str, Path], tmp_path: Path) -> None:
    archive = pack(tmp_path / "town.zip", files)
    assert faults(archive) == []
    flip(archive, files["labels/1.tif"].read_bytes(), 300)
    with open_raster(archive_member(archive, "labels/1.tif")) as dataset:
        dataset.read()  # GDAL says nothing
    message = f"{archive}/labels/1.tif: archive member is damaged (its checksum differs); get {archive} again"
    with pytest.raises(DataError) as caught:
        prepare_tiles(archive, tmp_path / "out", CONFIG)
    assert str(caught.value) == message
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.partial").exists()
    audit = audit_source(archive, tmp_path / "look.html", CONFIG)
    assert [finding.message for finding in audit.findings if finding.level == "fault"] == [message]
    assert main(["prepare", str(archive), "--check", "--tile", "32", "-o", str(tmp_path / "look.html"), "-q"]) == 1
    assert "archive member is damaged" in (tmp_path / "look.html").read_text(encoding="utf-8")


def test_all_damaged_members_are_named(files: dict[str, Path], tmp_path: Path) -> None:
    archive = pack(tmp_path / "town.zip", files)
    for name in ("images/0.tif", "labels/2.tif"):
        flip(archive, files[name].read_bytes())
    assert [fault.partition(": ")[0] for fault in faults(archive)] == [
        f"{archive}/images/0.tif", f"{archive}/labels/2.tif",
    ]  # fmt: skip


def test_what_is_not_used_does_not_count_and_what_belongs_to_an_image_does(
    files: dict[str, Path], tmp_path: Path
) -> None:
    world = tmp_path / "plain/images/0.tfw"
    world.write_text("1.0\n0\n0\n-1.0\n100.0\n200.0\n")
    archive = pack(tmp_path / "town.zip", files | {"images/0.tfw": world})
    flip(archive, files["notes.txt"].read_bytes(), 0)
    assert faults(archive) == []
    flip(archive, world.read_bytes(), 2)
    assert [fault.partition(": ")[0] for fault in faults(archive)] == [f"{archive}/images/0.tfw"]


@pytest.mark.parametrize("outer", [STORED, DEFLATED])
@pytest.mark.parametrize("inner", [STORED, DEFLATED])
def test_archives_in_archives(files: dict[str, Path], tmp_path: Path, outer: int, inner: int) -> None:
    kinds = {
        kind: pack(
            tmp_path / f"in/{kind}.zip", {Path(n).name: p for n, p in files.items() if n.startswith(kind)}, inner
        )
        for kind in ("images", "labels")
    }
    whole = pack(tmp_path / "whole.zip", {f"{kind}.zip": path for kind, path in kinds.items()}, outer)
    assert faults(whole) == []
    # The checksum in the list of files: the stream itself is readable, whatever the compression.
    data = bytearray(kinds["labels"].read_bytes())
    data[data.index(b"PK\x01\x02") + 16] ^= 255
    kinds["labels"].write_bytes(data)
    damaged = pack(tmp_path / "damaged.zip", {f"{kind}.zip": path for kind, path in kinds.items()}, outer)
    assert faults(damaged) == [
        f"{damaged}/labels.zip/0.tif: archive member is damaged (its checksum differs); get {damaged} again"
    ]


def test_an_archive_that_was_damaged_in_its_archive(files: dict[str, Path], tmp_path: Path) -> None:
    inner = pack(tmp_path / "in/town.zip", files)
    outer = pack(tmp_path / "outer.zip", {"town.zip": inner}, STORED)
    flip(outer, files["images/2.tif"].read_bytes())
    assert [fault.partition(": ")[0] for fault in faults(outer)] == [f"{outer}/town.zip/images/2.tif"]


def test_a_fault_that_gdal_names_is_named_once(files: dict[str, Path], tmp_path: Path) -> None:
    archive = pack(tmp_path / "town.zip", {name: files[name] for name in sorted(files, reverse=True)}, DEFLATED)
    with zipfile.ZipFile(archive) as opened:
        start = opened.getinfo("labels/0.tif").header_offset
    data = bytearray(archive.read_bytes())
    data[start + 60 : start + 160] = bytes(range(100))
    archive.write_bytes(data)
    audit = audit_source(archive, tmp_path / "look.html", CONFIG)
    (fault,) = (finding.message for finding in audit.findings if finding.level == "fault")
    assert f"{archive}/labels/0.tif: not readable" in fault


def test_what_python_cannot_unpack_is_left_to_gdal(
    files: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive = pack(tmp_path / "town.zip", files)
    data = bytearray(archive.read_bytes())
    first = data.index(b"PK\x01\x02")
    data[first + 10] = 9  # Deflate64 in the list of files
    archive.write_bytes(data)
    with caplog.at_level(logging.INFO, logger="ctrs.tiles.member_checks"):
        assert faults(archive) == []
    assert "images/0.tif: not compared with its checksum" in caplog.text
