"""The console listens to the library's logger for good; tests that run commands in this process undo that."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _library_logger_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("ctrs")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    with warnings.catch_warnings():
        yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)
