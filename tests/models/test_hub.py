"""Pretrained weights without a network: told soon, and taken from this machine where they are here."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
import time

import pytest
from huggingface_hub import constants

from ctrs.models import hub
from ctrs.models.hub import offline_where_unreachable

NOBODY = "http://127.0.0.1:9"
"""The port of a service that nobody runs."""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "HF_HUB_OFFLINE":
            monkeypatch.delenv(name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def server():
    """Answers all that is asked with the status in ``server.status``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.status = 200
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def is_offline_at(url, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", url)
    with offline_where_unreachable():
        inside = constants.HF_HUB_OFFLINE
    assert constants.HF_HUB_OFFLINE is False
    return inside


def test_weights_that_cannot_be_had_are_told_in_seconds(tmp_path):
    code = (
        "import time\n"
        "from ctrs.errors import CheckpointError\n"
        "from ctrs.models.encoder import create_encoder\n"
        "begun = time.monotonic()\n"
        "try:\n"
        "    create_encoder('test_convnext', weights='imagenet')\n"
        "except CheckpointError as error:\n"
        "    print(time.monotonic() - begun, error)\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": NOBODY, "HF_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    seconds, _, message = run.stdout.partition(" ")
    assert float(seconds) < 10
    assert "pretrained weights of test_convnext could not be loaded; use --weights none" in message


def test_a_hub_that_answers_is_asked_and_one_that_does_not_is_left_alone(server, monkeypatch):
    there = f"http://127.0.0.1:{server.server_port}"
    assert is_offline_at(NOBODY, monkeypatch)
    assert not is_offline_at(there, monkeypatch)
    server.status = 404
    assert not is_offline_at(there, monkeypatch)
    server.status = 503  # its own trouble is for its client, which asks again
    assert not is_offline_at(there, monkeypatch)


def test_a_proxy_that_reaches_nobody_is_no_answer(server, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    assert not is_offline_at("http://hub.invalid", monkeypatch)
    server.status = 502
    assert is_offline_at("http://hub.invalid", monkeypatch)


def test_an_address_that_nobody_finds_is_waited_for_no_longer_than_said(monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(hub, "_asked", lambda _: time.sleep(5))
    begun = time.monotonic()
    assert is_offline_at("http://hub.invalid", monkeypatch)
    assert time.monotonic() - begun < 4


def test_it_is_undone_after_a_failure_too(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", NOBODY)
    with pytest.raises(RuntimeError, match="no"), offline_where_unreachable():
        raise RuntimeError("no")
    assert constants.HF_HUB_OFFLINE is False
