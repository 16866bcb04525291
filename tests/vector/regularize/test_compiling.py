from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_CALL = """
import numpy as np, warnings
warnings.simplefilter("error")
import numba.core.caching as caching

def refuse(self):
    raise OSError("read-only")

refused = [name for name in dir(caching) if name.lstrip("_").startswith({locators!r})]
assert len(refused) >= len({locators!r})
for name in refused:
    getattr(caching, name).ensure_cache_path = refuse
from ctrs.vector.regularize.fitting import ring_area
assert ring_area(np.array([[0.0, 0], [2, 0], [2, 3], [0, 3]])) == 6
"""


@pytest.mark.parametrize(
    "locators",
    [("InTreeCacheLocator",), ("InTreeCacheLocator", "UserWideCacheLocator")],
    ids=["package folder read-only", "nothing can be written"],
)
def test_it_runs_where_nothing_can_be_kept(locators: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CALL.format(locators=locators)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


_TOLD = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
import numpy as np
from ctrs.vector.regularize.fitting import ring_area
ring_area(np.array([[0.0, 0], [2, 0], [2, 3], [0, 3]]))
"""


def test_what_takes_a_minute_is_told_the_first_time_alone(tmp_path: Path) -> None:
    told = [
        subprocess.run(
            [sys.executable, "-c", _TOLD],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        ).stdout
        for _ in range(2)
    ]
    assert told == ["compiling loops for the first run of this installation: a minute or so\n", ""]
