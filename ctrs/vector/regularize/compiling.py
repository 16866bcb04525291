"""Loops over samples run as machine code, compiled once for each installation.

numba keeps what it compiled beside the source, or in the user's cache folder where that cannot be written. It looks at
the function's own file alone to see whether it is still good, while what a function calls is compiled into it: so the
sources of all these modules are part of the name under which it is kept.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from numba import njit

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


_SOURCES = _fingerprint()


def compiled(function: Function) -> Function:
    """Compile a function at its first call; it runs without the interpreter's lock."""
    function.__qualname__ = f"{function.__name__}_{_SOURCES}"
    kept: Any = njit(cache=True, nogil=True)
    passing: Any = njit(nogil=True)
    try:
        result: Any = kept(function)
        _say_what_takes_long(Path(result.stats.cache_path))
    except RuntimeError:
        # No folder can be written: it is compiled in each process.
        result = passing(function)
        _say_what_takes_long(None)
    made: Function = result
    return made


@cache
def _say_what_takes_long(folder: Path | None) -> None:
    """Tell once for each folder that nothing compiled is kept there yet."""
    if folder is None:
        logger.info("compiling loops, a minute or so in each run: no folder to keep them in can be written")
    elif not any(folder.glob(f"*_{_SOURCES}-*.nbi")):
        logger.info("compiling loops for the first run of this installation: a minute or so")
