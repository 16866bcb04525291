"""Rasters that are no files of their own: members of archives, URLs, objects in cloud storage.

Such a raster has a ``Path`` like any file, so that its stem and suffix can be asked for; ``gdal_name`` turns it into
the name by which GDAL opens it.
"""

from __future__ import annotations

import re
from pathlib import Path

_REMOTE = {
    "http": "/vsicurl/http:/",
    "https": "/vsicurl/https:/",
    "s3": "/vsis3",
    "gs": "/vsigs",
    "az": "/vsiaz",
}


def source_path(text: str) -> Path:
    """Return the path of a raster or vector file given by a user: a file, a URL, or a name that GDAL understands.

    >>> source_path("s3://imagery/town.tif").as_posix(), source_path("https://host/town.tif").name
    ('/vsis3/imagery/town.tif', 'town.tif')
    """
    scheme, mark, rest = text.partition("://")
    if mark and scheme.lower() in _REMOTE:
        return Path(f"{_REMOTE[scheme.lower()]}/{rest}")
    return Path(text)


def archive_member(archive: Path, member: str) -> Path:
    """Return the path of a file inside a zip archive, which may lie in another one.

    >>> archive_member(Path("/data/a.zip"), "top/x.tif").as_posix()
    '/vsizip/{/data/a.zip}/top/x.tif'
    """
    outer = archive.as_posix() if is_virtual(archive) else archive.absolute().as_posix()
    return Path(f"/vsizip/{{{outer}}}/{member}")


def is_virtual(path: Path | str) -> bool:
    """Tell whether a path is a name of GDAL's, not a file on a local disk."""
    return Path(path).as_posix().startswith("/vsi")


def gdal_name(path: Path | str) -> str:
    """Return the name by which GDAL opens a path.

    >>> gdal_name(Path("/vsicurl/https:/host/town.tif")), gdal_name("town.tif")
    ('/vsicurl/https://host/town.tif', 'town.tif')
    """
    if not is_virtual(path):
        return str(path)
    return re.sub(r"^(/vsicurl/https?):/+", r"\1://", Path(path).as_posix())


def local_file(path: Path) -> Path | None:
    """Return the file on a local disk that holds a raster: itself, or the outermost archive; None for remote ones.

    >>> local_file(Path("/vsizip/{/data/a.zip}/top/x.tif")).as_posix(), local_file(Path("/vsis3/b/x.tif"))
    ('/data/a.zip', None)
    """
    if not is_virtual(path):
        return path
    match = re.match(r"(?:/vsizip/\{)+([^}]*)\}", path.as_posix())
    inner = match.group(1) if match else ""
    return Path(inner) if inner and not inner.startswith("/vsi") else None
