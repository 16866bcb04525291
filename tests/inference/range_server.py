"""A server of a folder that answers requests for parts of files, as web servers and object stores do.

Run as a script it serves until it is killed: GDAL asks while it holds Python's lock, so that a server in the same
process could not answer.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODIFIED = "Mon, 02 Jan 2023 03:04:05 GMT"
_BREAK, _ASKED, _WHOLE, _ALWAYS = ".breaks_at", ".asked", ".whole", ".always"


class RangeServer:
    """A server in a process of its own.

    Args:
        folder: What is served, by the paths in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process = subprocess.Popen([sys.executable, __file__, folder], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.host = f"127.0.0.1:{int(self._process.stdout.readline())}"

    def url(self, name: str) -> str:
        """Return the address of a file."""
        return f"http://{self.host}/{name}"

    def add(self, name: str, content: bytes) -> None:
        """Serve a file."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(content)

    def hang_up_from(self, byte: int | None) -> None:
        """Hang up before an answer with this byte of a file, or a later one, is complete; None: never."""
        (self.folder / _BREAK).write_text("" if byte is None else str(byte))

    def serve_whole_files(self) -> None:
        """Pass over what part of a file is asked for, as simple servers do."""
        (self.folder / _WHOLE).touch()

    def answer_always_with(self, name: str) -> None:
        """Answer with this file whatever is asked for, as addresses of some services do."""
        (self.folder / _ALWAYS).write_text(name)

    @property
    def asked(self) -> list[str]:
        """Method, path and range of each request so far."""
        return (self.folder / _ASKED).read_text().splitlines()

    def close(self) -> None:
        """Stop serving."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def range_server(folder: Path) -> Iterator[RangeServer]:
    """Serve a folder while the block runs."""
    server = RangeServer(folder)
    try:
        yield server
    finally:
        server.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        folder = Path(sys.argv[1])
        name = self.path.partition("?")[0].lstrip("/")
        if (folder / _ALWAYS).exists():
            name = (folder / _ALWAYS).read_text()
        wanted = self.headers.get("Range", "")
        with (folder / _ASKED).open("a") as log:
            log.write(f"{self.command} {self.path} {wanted}\n")
        if not (folder / name).is_file():
            self._send(404, b"", {})
            return
        content = (folder / name).read_bytes()
        headers = {"ETag": f'"{len(content)}"', "Last-Modified": MODIFIED}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        if found is None or (folder / _WHOLE).exists():
            self._send(200, content, headers)
            return
        first, last = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
        if first > last:
            self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        breaks = folder / _BREAK
        limit = breaks.read_text() if breaks.exists() else ""
        complete = not limit or last < int(limit)
        self._send(206, content[first : last + 1], headers, complete=complete)

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, complete: bool = True) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if complete else body[:10])
        if not complete:
            self.close_connection = True


if __name__ == "__main__":
    served = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(served.server_address[1], flush=True)
    served.serve_forever()
