"""Memory that the process keeps for a while, seen from outside: by page faults and by what is resident."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctrs import memory
from ctrs.memory import kept_memory, process_memory

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system tells no figures")

SCRIPT = """
import json, resource, sys
import numpy as np
from ctrs.memory import kept_memory, process_memory

def faults(times=8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        np.ones(2**23)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found = {"before": faults()}
with kept_memory():
    with kept_memory():
        faults(1)
    found["within"] = faults()
    held = process_memory("VmRSS")
found["given_back"] = held - process_memory("VmRSS")
found["behind"] = faults()
print(json.dumps(found))
"""


def measured(**variables):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**env, **variables}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(os, "confstr") or "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="no glibc")
def test_large_buffers_are_not_fetched_anew_within_the_block_and_go_back_at_its_end():
    found = measured()
    assert found["within"] < found["before"] / 10
    assert found["behind"] > found["before"] / 2
    assert found["given_back"] > 60 * 2**20


def test_what_the_user_has_set_up_stays():
    found = measured(MALLOC_MMAP_THRESHOLD_="65536")
    assert found["within"] > found["before"] / 2


def test_an_error_passes_and_a_block_may_follow_another():
    for _ in range(2):
        with pytest.raises(KeyError, match="gone"), kept_memory():
            raise KeyError("gone")
    assert process_memory("VmRSS") > 0


class InterruptedLibrary:
    """glibc, but an interrupt comes in its n-th call; counts from 1."""

    def __init__(self, interrupted_call):
        self.interrupted_call = interrupted_call
        self.calls = []

    def mallopt(self, parameter, value):
        self.calls.append((parameter, value))
        if len(self.calls) == self.interrupted_call:
            raise KeyboardInterrupt

    def malloc_trim(self, pad):
        self.calls.append(("trim", pad))


@pytest.mark.parametrize("call", [1, 2])
def test_an_interrupt_on_the_way_in_leaves_nothing_kept(monkeypatch, call):
    library = InterruptedLibrary(call)
    monkeypatch.setattr(memory, "_tunable_libc", lambda: library)
    with pytest.raises(KeyboardInterrupt), kept_memory():
        pass
    assert library.calls[-1] == ("trim", 0)
    again = InterruptedLibrary(None)
    monkeypatch.setattr(memory, "_tunable_libc", lambda: again)
    with kept_memory():
        assert len(again.calls) == 2
    assert again.calls[-1] == ("trim", 0)


ARENAS = """
import ctypes, threading
from ctrs.memory import share_one_arena

SHARE
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
places = []
release = threading.Barrier(5)

def take():
    places.append(libc.malloc(1000) >> 26)  # an arena of a thread begins at a multiple of 64 MiB
    release.wait()

threads = [threading.Thread(target=take) for _ in range(4)]
for thread in threads:
    thread.start()
release.wait()
for thread in threads:
    thread.join()
print(len(set(places)))
"""


@pytest.mark.skipif(not hasattr(os, "confstr") or "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="no glibc")
def test_threads_draw_from_one_arena():
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    counts = [
        int(subprocess.run([sys.executable, "-c", ARENAS.replace("SHARE", call)], env=env, capture_output=True,
                           text=True, check=True).stdout)
        for call in ("share_one_arena()", "")
    ]  # fmt: skip
    assert counts[0] == 1
    assert counts[1] > 1
