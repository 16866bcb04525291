"""What servers tell of files, and what is done about servers that tell nothing, refuse or do not answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ctrs.config import PrepareConfig
from ctrs.jobs import fingerprint
from ctrs.raster.names import source_path
from ctrs.tiles import remote_files
from ctrs.tiles.remote_files import describe_remote, remote_name, unknown
from ctrs.tiles.scene_source import Layout, SceneSource
from ctrs.tiles.source_files import describe_source
from ctrs.tiles.source_files import remote_files as remote_sources


class Server(BaseHTTPRequestHandler):
    """Answers by what the path asks for."""

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        if "signed" in self.path or "gone" in self.path:
            self.send_error(403)
        elif "moved" in self.path:
            self.send_response(302)
            self.send_header("Location", "/tagged.tif")
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Length", "1234")
            if "tagged" in self.path:
                self.send_header("ETag", '"abc"')
            self.end_headers()

    def do_GET(self) -> None:
        if "gone" in self.path or self.headers.get("Range") != "bytes=0-0":
            self.send_error(404)
            return
        self.send_response(206)
        self.send_header("Content-Length", "1")
        self.send_header("Content-Range", "bytes 0-0/777")
        self.send_header("Last-Modified", "Sun, 09 Sep 2001 01:46:40 GMT")
        self.end_headers()
        self.wfile.write(b"x")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_what_is_told(server: str) -> None:
    names = ("tagged.tif", "a//b c.tif?moved=ä%20", "signed.tif?X-Amz-Signature=a%2Fb", "plain.tif", "gone.tif")
    urls = [f"{server}/{name}" for name in names]
    found = describe_remote([*map(source_path, urls), Path("local.tif"), source_path(urls[0]), Path("/vsimem/a.vrt")])
    assert found == {
        urls[0]: {"size": 1234, "etag": '"abc"'},
        urls[1]: {"size": 1234, "etag": '"abc"'},
        urls[2]: {"size": 777, "last_modified": "Sun, 09 Sep 2001 01:46:40 GMT"},
        urls[3]: {"size": 1234},
        urls[4]: {},
    }
    assert unknown(found) == urls[3:]


def test_a_server_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(remote_files, "TIMEOUT_SECONDS", 0.3)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        urls = [f"http://127.0.0.1:{listening.getsockname()[1]}/{number}.tif" for number in range(40)]
        begin = time.monotonic()
        assert describe_remote(map(source_path, urls)) == {url: {} for url in urls}
        assert time.monotonic() - begin < len(urls) * 0.3 / 3


def test_names() -> None:
    assert remote_name(source_path("s3://b/x.gpkg|layername=a")) == "s3://b/x.gpkg"
    assert remote_name(Path("/vsizip/{/vsizip/{/vsis3/b/a.zip}/c.zip}/x.tif")) == "s3://b/a.zip"
    assert remote_name(Path("/vsizip/{/data/a.zip}/x.tif")) is None


def test_what_is_told_counts_for_scenes_and_for_what_vrts_show(tmp_path: Path) -> None:
    vrt = tmp_path / "town.vrt"
    vrt.write_text(
        "<VRTDataset><VRTRasterBand><SimpleSource><SourceFilename>/vsicurl/https://host/1.tif</SourceFilename>"
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    scene = SceneSource(name="a", split="train", image=vrt, label=source_path("https://host/label.tif"))
    layout = Layout(root=tmp_path, scenes=(scene,), preset=None)
    urls = ["https://host/1.tif", "https://host/label.tif"]
    assert [remote_name(path) for path in remote_sources(layout, PrepareConfig())] == urls

    def described(*tags: str) -> str:
        told = {url: {"etag": tag} for url, tag in zip(urls, tags, strict=True)}
        return fingerprint(describe_source(layout, PrepareConfig(), told))  # type: ignore[arg-type]

    assert described("a", "b") == described("a", "b")
    assert len({described("a", "b"), described("c", "b"), described("a", "c")}) == 3
