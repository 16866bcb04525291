"""Which files determine what is prepared: a change of any is noticed, and all are hashed."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from ctrs.config import PrepareConfig
from ctrs.errors import RasterError
from ctrs.jobs import fingerprint
from ctrs.raster.names import archive_member, source_path
from ctrs.tiles.scene_source import Layout, SceneSource
from ctrs.tiles.source_files import describe_source, hash_files, source_files, vrt_sources


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def vrt(path: Path, *sources: str, relative: int = 1) -> Path:
    names = "".join(f'<SourceFilename relativeToVRT="{relative}">{name}</SourceFilename>' for name in sources)
    return write(path, f"<VRTDataset><VRTRasterBand><SimpleSource>{names}</SimpleSource></VRTRasterBand></VRTDataset>")


def touched(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    image = write(tmp_path / "a.tif")
    for name in ("a.tfw", "a.tif.aux.xml", "a.tif.ovr", "a.tif.msk", "b.tif"):
        write(tmp_path / name)
    label = write(tmp_path / "labels/town.shp")
    for name in ("town.dbf", "town.shx", "town.prj"):
        write(tmp_path / "labels" / name)
    (tmp_path / "dsm").mkdir()
    with zipfile.ZipFile(tmp_path / "dsm/1_DSM.zip", "w") as opened:
        opened.writestr("dsm.tif", b"x")
    write(tmp_path / "mosaic/sources/1.tif")
    vrt(tmp_path / "mosaic/inner.vrt", "sources/1.tif")
    part = vrt(tmp_path / "mosaic/outer.vrt", str(tmp_path / "mosaic/inner.vrt"), "/none.tif", relative=0)
    scenes = (
        SceneSource(
            name="a",
            split="train",
            image=image,
            label=label,
            extra={"dsm": archive_member(tmp_path / "dsm/1_DSM.zip", "dsm.tif")},
        ),
        SceneSource(
            name="m",
            split="val",
            image=Path("/vsimem/x/m.vrt"),
            image_parts=(part,),
            label=source_path("https://host/m.tif"),
        ),
    )
    lists = (write(tmp_path / "val.txt", "m\n"),)
    return Layout(root=tmp_path, scenes=scenes, preset=None, class_file=write(tmp_path / "c.toml"), list_files=lists)


EXPECTED = [
    "a.tfw", "a.tif", "a.tif.aux.xml", "a.tif.msk", "a.tif.ovr",
    "labels/town.dbf", "labels/town.prj", "labels/town.shp", "labels/town.shx",
    "dsm/1_DSM.zip",
    "mosaic/outer.vrt", "mosaic/inner.vrt", "mosaic/sources/1.tif",
    "c.toml", "aoi.geojson", "val.txt",
]  # fmt: skip


def test_all_files_are_found(layout: Layout) -> None:
    config = PrepareConfig(aoi=write(layout.root / "aoi.geojson"))
    assert [path.relative_to(layout.root).as_posix() for path in source_files(layout, config)] == EXPECTED


@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in ("c.toml", "val.txt")])
def test_a_change_of_any_is_noticed(layout: Layout, name: str) -> None:
    """But not of class tables and lists, which count by what they say."""
    config = PrepareConfig(aoi=write(layout.root / "aoi.geojson"))
    before = fingerprint(describe_source(layout, config))
    assert fingerprint(describe_source(layout, config)) == before
    touched(layout.root / "b.tif")
    touched(layout.root / "val.txt")
    assert fingerprint(describe_source(layout, config)) == before
    touched(layout.root / name)
    assert fingerprint(describe_source(layout, config)) != before


def test_members_of_one_archive_differ(layout: Layout) -> None:
    first = layout.scenes[0]
    archive = layout.root / "dsm/1_DSM.zip"

    def described(member: str) -> str:
        scene = SceneSource(name="a", split="train", image=archive_member(archive, member), label=first.label)
        return fingerprint(describe_source(Layout(root=layout.root, scenes=(scene,), preset=None), PrepareConfig()))

    assert described("dsm.tif") == described("dsm.tif") != described("other.tif")


def test_hashes(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(3 * 2**20 + 5))
    files = [large, write(tmp_path / "small.txt", "abc"), source_path("https://host/x.tif")]
    hashes = hash_files(files, lambda *call: calls.append(call), workers=2)
    assert hashes == {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files[:2]}
    assert calls[-1] == (3, 3, "hashing source files")
    assert hash_files([]) == {}
    with pytest.raises(RasterError, match=r"gone\.tif: not readable \(No such file or directory\); check the file"):
        hash_files([tmp_path / "gone.tif"])


def test_odd_vrts(tmp_path: Path) -> None:
    assert vrt_sources(write(tmp_path / "broken.vrt", "<VRTDataset>")) == []
    loop = vrt(tmp_path / "loop.vrt", "other.vrt")
    other = vrt(tmp_path / "other.vrt", "loop.vrt")
    assert vrt_sources(loop) == [other, tmp_path / "loop.vrt"]
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as opened:
        opened.writestr("x.tif", b"")
    member = vrt(tmp_path / "member.vrt", f"/vsizip/{{{tmp_path}/z.zip}}/x.tif", relative=0)
    assert vrt_sources(member) == [tmp_path / "z.zip"]
    warped = write(
        tmp_path / "w.vrt", '<VRTDataset><SourceDataset relativeToVRT="1">z.zip</SourceDataset></VRTDataset>'
    )
    assert vrt_sources(warped) == [tmp_path / "z.zip"]
