"""One process at a time, and an error for those that come second."""

from __future__ import annotations

import os
import re

import pytest

from ctrs import locks
from ctrs.errors import OutputError


def open_lock(folder, what):
    with locks.held(folder, what):
        pass


def test_what_is_held_is_named_and_let_go(tmp_path):
    folder, what = tmp_path / "run" / "resume", tmp_path / "run"
    with locks.held(folder, what), pytest.raises(OutputError, match=re.escape(f"{what}: another process is writing")):
        open_lock(folder, what)
    open_lock(folder, what)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"what: not writable \(.*\); choose another place"):
        open_lock(tmp_path / "file" / "resume", tmp_path / "what")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no flock")
def test_a_lock_belongs_to_the_folder_that_stands_there(tmp_path):
    folder = tmp_path / "work"
    lock = locks.take_lock(folder, folder)
    assert locks.is_lock_of(lock, folder)
    folder.rename(tmp_path / "gone")
    assert not locks.is_lock_of(lock, folder)
    other = locks.take_lock(folder, folder)
    assert locks.is_lock_of(other, folder)
    assert not locks.is_lock_of(lock, folder)
    assert lock is not None
    assert other is not None
    os.close(lock)
    os.close(other)
