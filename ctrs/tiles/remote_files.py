"""Files on other machines, described as far as their servers tell: size, entity tag, time of change."""

from __future__ import annotations

import http.client
import logging
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from ctrs.raster.names import is_remote, shown, split_layer

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
"""How long a server is waited for."""

TOTAL_SECONDS = 60.0
"""How long all servers are waited for; files that are not described by then stay so."""

_THREADS = 8
_WEB = ("http", "https")
_FIRST_BYTE = "bytes=0-0"

Described = dict[str, dict[str, str | int]]
"""What is known of each file, by its URL: ``size`` in bytes, ``etag``, ``last_modified``; empty where nothing is."""


def remote_name(path: Path) -> str | None:
    """Return the URL of the file on another machine that holds a raster or a layer; None for local files.

    >>> remote_name(Path("/vsizip/{/vsicurl/https:/host/a.zip}/x.tif")), remote_name(Path("a.tif"))
    ('https://host/a.zip', None)
    """
    if not is_remote(path):
        return None
    packed = re.match(r"(?:/vsizip/\{)+([^}]*)\}", path.as_posix())
    return shown(split_layer(Path(packed[1]) if packed else path)[0])


def describe_remote(paths: Iterable[Path]) -> Described:
    """Ask servers for the size, entity tag and time of change of files; nothing is read but headers.

    Only ``http`` and ``https`` can be asked: signed requests to cloud storage are made by GDAL, which does not hand
    their headers on.

    Args:
        paths: Files; local ones are left out.
    """
    urls = list(dict.fromkeys(url for path in paths if (url := remote_name(path)) is not None))
    deadline = time.monotonic() + TOTAL_SECONDS
    silent: set[str] = set()

    def ask(url: str) -> dict[str, str | int]:
        host = urllib.parse.urlsplit(url).netloc
        if urllib.parse.urlsplit(url).scheme.lower() not in _WEB or host in silent or time.monotonic() > deadline:
            return {}
        try:
            return _headers(url)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not isinstance(error, urllib.error.HTTPError):
                silent.add(host)
            logger.info("%s: not described by its server (%s)", url, error)
            return {}

    with ThreadPoolExecutor(max_workers=max(1, min(_THREADS, len(urls)))) as pool:
        return dict(zip(urls, pool.map(ask, urls), strict=True))


def unknown(described: Mapping[str, Mapping[str, str | int]]) -> list[str]:
    """Return the files of which too little is known to tell whether they changed: neither tag nor time."""
    return [url for url, facts in described.items() if not facts.keys() & {"etag", "last_modified"}]


def _headers(url: str) -> dict[str, str | int]:
    """Return what a server tells of a file: by its headers alone, or, where it refuses that, with the first byte.

    A URL that is signed for reading is refused for anything else.
    """
    address = urllib.parse.quote(url, safe="/:?&=%+,;@~!$'()*[]#")
    try:
        return _ask(urllib.request.Request(address, method="HEAD"))
    except urllib.error.HTTPError:
        return _ask(urllib.request.Request(address, headers={"Range": _FIRST_BYTE}))


def _ask(request: urllib.request.Request) -> dict[str, str | int]:
    with urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_SECONDS) as answer:
        headers = answer.headers
        size = headers.get("Content-Length")
        if answer.status == http.client.PARTIAL_CONTENT:
            size = (headers.get("Content-Range") or "").rpartition("/")[2]
        found: dict[str, str | int] = {"size": int(size)} if (size or "").isdigit() else {}
        for key, header in (("etag", "ETag"), ("last_modified", "Last-Modified")):
            if headers.get(header):
                found[key] = str(headers[header])
        return found


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Asks for headers alone at the new address too, where Python would ask for the file."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        found = super().redirect_request(req, fp, code, msg, headers, newurl)
        if found is not None:
            found.method = req.get_method()
        return found
