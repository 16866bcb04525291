"""Whether the hub that pretrained weights come from can be reached, told in seconds.

The hub's client asks again for the best part of a minute where there is no network, also for weights that it holds
already. It has a switch for that: what it holds is taken without asking, and what it does not hold fails at once.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from huggingface_hub import constants

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""How long the hub may take to answer at all."""


@contextmanager
def offline_where_unreachable() -> Iterator[None]:
    """Switch the hub's client to what it holds on this machine, where the hub cannot be reached."""
    before = constants.HF_HUB_OFFLINE
    if before or _answers(constants.ENDPOINT):
        yield
        return
    logger.warning(
        "%s does not answer; weights are taken from this machine if they are here", urlsplit(constants.ENDPOINT).netloc
    )
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(url: str) -> bool:
    """Tell whether anything answers there, through the proxy that the environment names if it names one."""
    found: list[bool] = []
    # Asking for an address may hang however short the connection's own timeout is.
    asking = threading.Thread(target=lambda: found.append(_asked(url)), name="ctrs-hub", daemon=True)
    asking.start()
    asking.join(PATIENCE_SECONDS)
    return bool(found) and found[0]


def _asked(url: str) -> bool:
    try:
        opener = urllib.request.build_opener()  # with the proxies of now
        with opener.open(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500 or not _is_proxied(url)  # a proxy says 502 to 504 of a host that it cannot reach
    except urllib.error.URLError as error:
        # The client knows other certificates than Python does; all else means that nobody is there.
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError) as error:
        return not isinstance(error, (ConnectionError, TimeoutError, socket.gaierror))


def _is_proxied(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.hostname or "")
