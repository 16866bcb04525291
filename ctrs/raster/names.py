"""Rasters that are no files of their own: members of archives, URLs, objects in cloud storage, mosaics in memory.

Such a raster has a ``Path`` like any file, so that its stem and suffix can be asked for; ``gdal_name`` turns it into
the name by which GDAL opens it, and ``shown`` into the one that its user knows.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

_REMOTE = {
    "http": "/vsicurl/http:/",
    "https": "/vsicurl/https:/",
    "s3": "/vsis3",
    "gs": "/vsigs",
    "az": "/vsiaz",
}

_ARCHIVE = "/vsizip/{"
_ZIP_SCHEME = "zip"
_LAYER = "|layername="
_MEMORY = "/vsimem/"


def source_path(text: str) -> Path:
    """Return the path of a raster or vector file given by a user: a file, a URL, or a name that GDAL understands.

    >>> source_path("s3://imagery/town.tif").as_posix(), source_path("https://host/town.tif").name
    ('/vsis3/imagery/town.tif', 'town.tif')
    >>> source_path("zip://maps/a.zip!top/x.tif").as_posix(), source_path("/vsizip//data/a.zip/x.tif").as_posix()
    ('/vsizip/{maps/a.zip}/top/x.tif', '/vsizip/{/data/a.zip}/x.tif')
    """
    packed = _packed(text)
    if packed is not None:
        return packed
    scheme, mark, rest = text.partition("://")
    if mark and scheme.lower() in _REMOTE:
        # A Path would join two slashes into one; inside a URL the second can be written as its code.
        return Path(f"{_REMOTE[scheme.lower()]}/{rest.replace('//', '/%2F')}")
    if mark and scheme.lower() == "file":
        return Path(rest)
    return Path(text)


def archive_member(archive: Path, member: str) -> Path:
    """Return the path of a file inside a zip archive, which may lie in another one.

    >>> archive_member(Path("/data/a.zip"), "top/x.tif").as_posix()
    '/vsizip/{/data/a.zip}/top/x.tif'
    """
    return Path(f"{_ARCHIVE}{archive.as_posix()}}}/{member}")


def _packed(text: str) -> Path | None:
    """Return the path of a member of an archive, or of the archive, given in the manner of rasterio or GDAL."""
    scheme, mark, rest = text.partition("://")
    if mark and scheme.lower().partition("+")[0] == _ZIP_SCHEME:
        inner = scheme.partition("+")[2]
        archive, _, member = rest.partition("!")
        place = source_path(f"{inner}://{archive}" if inner else archive)
        return archive_member(place, member.lstrip("/")) if member.strip("/") else place
    found = re.fullmatch(r"/vsizip/([^{].*?\.zip)(?:/+(.*))?", text, flags=re.IGNORECASE)
    if found is None:
        return None
    place = Path(f"/{found[1]}" if found[1].startswith("vsi") else found[1])
    return archive_member(place, found[2]) if found[2] else place


def is_virtual(path: Path | str) -> bool:
    """Tell whether a path is a name of GDAL's, not a file on a local disk."""
    return Path(path).as_posix().startswith("/vsi")


def in_archive(path: Path | str) -> bool:
    """Tell whether a path is that of a member of an archive, which is best read from its beginning to its end.

    >>> in_archive(archive_member(Path("a.zip"), "x.tif")), in_archive(Path("a.zip"))
    (True, False)
    """
    return Path(path).as_posix().startswith(_ARCHIVE)


def in_memory(path: Path | str) -> bool:
    """Tell whether a path is that of a file in GDAL's memory, such as a mosaic."""
    return Path(path).as_posix().startswith(_MEMORY)


def is_remote(path: Path | str) -> bool:
    """Tell whether a path is that of a file on another machine.

    >>> is_remote(source_path("s3://imagery/town.tif")), is_remote("town.tif")
    (True, False)
    """
    return is_virtual(path) and not in_memory(path) and local_file(Path(path)) is None


def gdal_name(path: Path | str) -> str:
    """Return the name by which GDAL opens a path.

    >>> gdal_name(Path("/vsicurl/https:/host/town.tif")), gdal_name("town.tif")
    ('/vsicurl/https://host/town.tif', 'town.tif')
    """
    if not is_virtual(path):
        return str(path)
    return re.sub(r"(/vsicurl/https?):/+", r"\1://", Path(path).as_posix())


def shown(path: Path | str) -> str:
    """Return a path as its user knows it: a URL as a URL, a member of an archive below the archive's own name.

    >>> shown(source_path("https://host/town.tif")), shown(archive_member(Path("data/a.zip"), "top/x.tif"))
    ('https://host/town.tif', 'data/a.zip/top/x.tif')
    """
    if not is_virtual(path):
        return str(path)
    text = Path(path).as_posix()
    if text.startswith(_ARCHIVE):
        return re.sub(r"(?:/vsizip/\{)+([^}]*)", lambda match: shown(match[1]), text).replace("}", "")
    for scheme, start in _REMOTE.items():
        place = text.removeprefix(f"{start.rstrip('/')}/")
        if place != text:
            return f"{scheme}://{place.lstrip('/').replace('/%2F', '//')}"
    if text.startswith(_MEMORY):
        return f"mosaic {PurePosixPath(text).stem}"
    return text


def absolute(path: Path) -> Path:
    """Return a path that means the same in any folder.

    >>> absolute(source_path("s3://imagery/town.tif")) == source_path("s3://imagery/town.tif")
    True
    """
    if not is_virtual(path):
        return path.absolute()
    file = local_file(path)
    if file is None or in_memory(path):
        return path
    return Path(path.as_posix().replace(f"{{{file.as_posix()}}}", f"{{{file.absolute().as_posix()}}}", 1))


def local_file(path: Path) -> Path | None:
    """Return the file on a local disk that holds a raster: itself, or the outermost archive; None for remote ones.

    >>> local_file(Path("/vsizip/{/data/a.zip}/top/x.tif")).as_posix(), local_file(Path("/vsis3/b/x.tif"))
    ('/data/a.zip', None)
    """
    if not is_virtual(path):
        return split_layer(path)[0]
    match = re.match(r"(?:/vsizip/\{)+([^}]*)\}", path.as_posix())
    inner = match.group(1) if match else ""
    return Path(inner) if inner and not inner.startswith("/vsi") else None


def without_secrets(text: str) -> str:
    """Return a text without what gives access to files on the network: passwords and queries of URLs.

    >>> without_secrets("https://me:word@host/town.tif?sig=abc"), without_secrets("town.tif")
    ('https://...@host/town.tif?...', 'town.tif')
    """
    if "://" not in text and not text.startswith("/vsi"):
        return text
    text = re.sub(r"(://)[^/@\s]*@", r"\1...@", text)
    return re.sub(r"\?.*$", "?...", text, flags=re.DOTALL)


def file_name(path: Path) -> PurePosixPath:
    """Return the file name of a path, without the query of a URL; its stem and suffix are those of the file.

    >>> file_name(source_path("https://host/town.tif?sig=a.b/c")).stem
    'town'
    """
    text = split_layer(path)[0].as_posix()
    if text.startswith("/vsicurl/"):
        text = text.partition("?")[0]
    return PurePosixPath(PurePosixPath(text).name)


def split_layer(path: Path) -> tuple[Path, str | None]:
    """Return the file and the layer of a path that names a layer of a vector file in the manner of QGIS.

    >>> split_layer(Path("data/a.gpkg|layername=houses"))[1], split_layer(Path("data/a.gpkg"))[1]
    ('houses', None)
    """
    text, mark, layer = str(path).partition(_LAYER)
    return (Path(text), layer.partition("|")[0]) if mark else (path, None)


def with_layer(path: Path, layer: str | None) -> Path:
    """Return the path of a layer of a vector file; the file's own where no layer is named.

    >>> with_layer(Path("a.gpkg"), "houses").name
    'a.gpkg|layername=houses'
    """
    return path if layer is None else Path(f"{path}{_LAYER}{layer}")
