"""Output is whole or absent, interrupted work is kept, and one process at a time works on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from ctrs import jobs, locks
from ctrs.config import EvalConfig, PredictConfig
from ctrs.errors import OutputError, OutputExistsError


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def open_work(*arguments):
    with jobs.partial_work(*arguments):
        pass


@dataclass(frozen=True)
class Options:
    window: int
    path: Path
    overwrite: bool = False


def test_fingerprints_depend_on_content_alone(tmp_path):
    first = jobs.fingerprint({"a": 1, "b": Options(1, Path("x")), "c": {"u", "v"}})
    assert first == jobs.fingerprint({"c": {"v", "u"}, "b": Options(1, Path("x")), "a": 1})
    assert first != jobs.fingerprint({"c": {"v", "u"}, "b": Options(2, Path("x")), "a": 1})
    assert first != jobs.fingerprint({"c": {"v", "u"}, "b": Options(1, Path("y")), "a": 1})
    with pytest.raises(TypeError, match="object cannot be part of a job"):
        jobs.fingerprint({"a": object()})


def test_leave_to_overwrite_is_no_part_of_a_job():
    plain = EvalConfig(split="val")
    allowed = EvalConfig(split="val", overwrite=True, predict=PredictConfig(overwrite=True))
    assert jobs.fingerprint({"config": plain}) == jobs.fingerprint({"config": allowed})
    assert jobs.fingerprint({"config": plain}) != jobs.fingerprint({"config": EvalConfig(split="test")})


def test_describe_file_sees_changes(tmp_path):
    path = tmp_path / "scene.tif"
    path.write_bytes(b"abc")
    first = jobs.describe_file(path)
    assert first["size"] == 3
    os.utime(path, ns=(1, 1))
    assert jobs.describe_file(path) != first
    assert jobs.describe_file("/vsicurl/https://host/scene.tif") == {"path": "/vsicurl/https://host/scene.tif"}


def test_a_file_is_the_same_however_its_path_is_spelled(tmp_path, monkeypatch):
    folder = tmp_path / "scenes"
    folder.mkdir()
    path = folder / "scene.tif"
    path.write_bytes(b"abc")
    (tmp_path / "link.tif").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    spelled = ["scenes/scene.tif", folder / ".." / "scenes" / "scene.tif", "link.tif"]
    assert [jobs.describe_file(name) for name in spelled] == [jobs.describe_file(path)] * 3


def test_a_finished_file_leaves_nothing_beside_it(tmp_path):
    final = tmp_path / "maps" / "scene_mask.tif"
    with jobs.partial_work(final, "job") as work:
        assert not work.resumed
        assert work.folder == final.parent / ".scene_mask.tif.partial"
        staged = work.folder / "mask.tif"
        staged.write_text("pixels")
        assert not final.exists()
        work.publish(staged)
    assert final.read_text() == "pixels"
    assert tree(tmp_path) == ["maps", "maps/scene_mask.tif"]


def test_a_finished_folder_replaces_the_old_one(tmp_path):
    final = tmp_path / "potsdam"
    final.mkdir()
    (final / "old").write_text("old")
    with jobs.partial_work(final, "job") as work:
        staged = work.folder / "data"
        (staged / "images").mkdir(parents=True)
        (staged / "images" / "a.tif").write_text("new")
        (staged / "link").symlink_to("nowhere")
        work.publish(staged)
    assert tree(final) == ["images", "images/a.tif", "link"]
    assert tree(tmp_path) == ["potsdam", "potsdam/images", "potsdam/images/a.tif", "potsdam/link"]


@pytest.mark.parametrize(("old", "new"), [("file", "folder"), ("folder", "file")])
def test_files_and_folders_replace_each_other(tmp_path, old, new):
    final = tmp_path / "out"
    if old == "folder":
        final.mkdir()
        (final / "old").touch()
    else:
        final.write_text("old")
    with jobs.partial_work(final, "job") as work:
        staged = work.folder / "new"
        if new == "folder":
            staged.mkdir()
        else:
            staged.write_text("new")
        work.publish(staged)
    assert final.is_dir() == (new == "folder")
    assert not jobs.partial_dir(final).exists()


@pytest.mark.parametrize("error", [ValueError("bad pixels"), KeyboardInterrupt()])
def test_interrupted_work_is_kept_named_and_gone_on_with(tmp_path, error):
    final = tmp_path / "out"

    def interrupted():
        with jobs.partial_work(final, "job") as work:
            (work.folder / "rows.npy").write_text("half")
            raise error

    with pytest.raises(type(error)) as caught:
        interrupted()
    folder = jobs.partial_dir(final)
    assert caught.value.__notes__ == [f"unfinished work is kept in {folder}; the same command goes on with it"]
    assert not final.exists()
    with jobs.partial_work(final, "job") as again:
        assert again.resumed
        assert (again.folder / "rows.npy").read_text() == "half"
    with pytest.raises(OutputExistsError, match=r"\.out\.partial: holds unfinished work .* --overwrite to discard"):
        open_work(final, "other job")
    assert (jobs.partial_dir(final) / "rows.npy").exists()
    with jobs.partial_work(final, "other job", overwrite=True) as fresh:
        assert not fresh.resumed
        assert tree(fresh.folder) == ["job.json", "lock"]
    assert not jobs.partial_dir(final).exists()


def test_work_that_left_nothing_stands_in_nobodys_way(tmp_path):
    final = tmp_path / "out"
    with pytest.raises(ValueError, match="early") as caught, jobs.partial_work(final, "job"):
        raise ValueError("early")
    assert not hasattr(caught.value, "__notes__")
    assert tree(tmp_path) == []
    folder = jobs.partial_dir(final)  # what SIGKILL leaves right at the start
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps({"format_version": 1, "fingerprint": "job"}))
    with jobs.partial_work(final, "other job") as work:
        assert not work.resumed


def test_a_folder_without_a_readable_mark(tmp_path):
    final = tmp_path / "out"
    folder = jobs.partial_dir(final)
    folder.mkdir()
    (folder / "scrap").touch()
    with jobs.partial_work(final, "job") as work:  # no mark: killed while an earlier attempt was being discarded
        assert not work.resumed
        assert not (folder / "scrap").exists()
    folder.mkdir()
    (folder / "scrap").touch()
    (folder / "job.json").write_text("{")
    with pytest.raises(OutputExistsError):
        open_work(final, "job")


def test_one_process_at_a_time(tmp_path):
    final = tmp_path / "out"
    with jobs.partial_work(final, "job") as work:
        (work.folder / "rows").touch()
        with pytest.raises(OutputError, match="out: another process is writing it now; wait"):
            open_work(final, "job")
        assert (work.folder / "rows").exists()
    with jobs.partial_work(final, "job") as again:
        assert again.resumed


def test_the_lock_ends_with_its_process(tmp_path):
    final = tmp_path / "out"
    code = (
        "import sys, time; from pathlib import Path; from ctrs.jobs import partial_work\n"
        "with partial_work(Path(sys.argv[1]), 'job') as work:\n"
        "    (work.folder / 'rows').write_text('half'); print('ready', flush=True); time.sleep(60)\n"
    )
    root = str(Path(jobs.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(final)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(OutputError, match="another process"):
            open_work(final, "job")
        process.send_signal(signal.SIGKILL)
        process.wait()
    with jobs.partial_work(final, "job") as work:
        assert work.resumed
        assert (work.folder / "rows").read_text() == "half"


def test_many_processes_at_once_never_clash(tmp_path):
    """The lock of a folder that another process just removed is not taken for the folder's lock."""
    code = (
        "import sys, time; from pathlib import Path; from ctrs.errors import OutputError\n"
        "from ctrs.jobs import partial_work\n"
        "final, end = Path(sys.argv[1]), time.monotonic() + 2\n"
        "while time.monotonic() < end:\n"
        "    try:\n"
        "        with partial_work(final, 'job', overwrite=True) as work:\n"
        "            staged = work.folder / 'staged'\n"
        "            staged.write_text('x'); work.publish(staged)\n"
        "    except OutputError as error:\n"
        "        assert 'another process' in str(error), error\n"
    )
    root = str(Path(jobs.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    failures = [text for process in running if (text := process.communicate()[1])]
    assert not failures, failures[0]
    assert tree(tmp_path) == ["out"]


def test_a_crash_between_the_two_renames_loses_nothing(tmp_path, monkeypatch):
    final = tmp_path / "out"
    final.mkdir()
    (final / "old").touch()
    replace = Path.replace

    def failing(self, target):
        if self.name == "staged":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)

    def publish():
        with jobs.partial_work(final, "job") as work:
            (work.folder / "staged").mkdir()
            work.publish(work.folder / "staged")

    with pytest.raises(OutputError, match=r"out: cannot be put in place \(No space left on device\); the finished"):
        publish()
    monkeypatch.undo()
    assert tree(final) == ["old"]
    final.rename(jobs.partial_dir(final) / "replaced")  # what SIGKILL leaves between the renames
    final.mkdir()
    (final / "older").touch()
    with jobs.partial_work(final, "job") as work:
        assert work.resumed
        work.publish(work.folder / "staged")
    assert tree(tmp_path) == ["out"]


def set_aside(final):
    """Leave what SIGKILL leaves between the two renames: the old folder aside, the new one not yet in place."""
    folder = jobs.partial_dir(final)
    (folder / "staged").mkdir(parents=True)
    (folder / "staged" / "new").touch()
    (folder / "job.json").write_text(json.dumps({"format_version": 1, "fingerprint": "job"}))
    (folder / "replaced").mkdir()
    (folder / "replaced" / "old").touch()


@pytest.mark.parametrize("overwrite", [False, True])
def test_work_puts_back_what_a_kill_left_aside(tmp_path, overwrite):
    final = tmp_path / "out"
    set_aside(final)
    with jobs.partial_work(final, "job", overwrite=overwrite) as work:
        assert tree(final) == ["old"]
        assert work.resumed != overwrite
    assert tree(final) == ["old"]


def test_recovery(tmp_path, caplog):
    final = tmp_path / "out"
    assert not jobs.recover(final)
    assert tree(tmp_path) == []
    set_aside(final)
    assert jobs.recover(final)
    assert "out: put back as it was" in caplog.text
    assert tree(final) == ["old"]
    assert not jobs.recover(final)
    with jobs.partial_work(final, "job") as work:
        assert work.resumed
        work.publish(work.folder / "staged")
    assert tree(tmp_path) == ["out", "out/new"]


def test_recovery_leaves_a_new_folder_and_no_empty_one(tmp_path):
    final = tmp_path / "out"
    set_aside(final)
    final.mkdir()
    assert not jobs.recover(final)
    assert tree(final) == []
    final.rmdir()
    (jobs.partial_dir(final) / "staged" / "new").unlink()
    (jobs.partial_dir(final) / "staged").rmdir()
    jobs.recover_in(tmp_path)
    assert tree(tmp_path) == ["out", "out/old"]
    jobs.recover_in(tmp_path / "nowhere")


def test_recovery_waits_for_a_process_that_is_alive(tmp_path, monkeypatch):
    final = tmp_path / "out"
    set_aside(final)
    with locks.held(jobs.partial_dir(final), final):
        threading.Timer(0.2, (jobs.partial_dir(final) / "staged").rename, [final]).start()
        assert not jobs.recover(final)
    assert tree(final) == ["new"]
    (final / "new").unlink()
    final.rmdir()
    monkeypatch.setattr(jobs, "_EXCHANGE_SECONDS", 0.05)
    with locks.held(jobs.partial_dir(final), final), pytest.raises(OutputError, match="another process"):
        jobs.recover(final)


def test_recovery_says_what_to_do_by_hand(tmp_path, monkeypatch):
    final = tmp_path / "out"
    set_aside(final)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match=r"cannot be put back \(Permission denied\); rename .*replaced to .*out$"):
        jobs.recover(final)


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file: not writable \(.*\); choose another place with -o"):
        open_work(tmp_path / "file" / "out", "job")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OutputError, match=r"link: not writable \(.*\); choose another place with -o"):
        open_work(tmp_path / "link" / "out", "job")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match=r"sub: not writable \(Permission denied\)"):
        open_work(tmp_path / "sub" / "out", "job")


def test_check_existing(tmp_path):
    final = tmp_path / "out.tif"
    assert jobs.check_existing(final, None, "job", overwrite=False) is False
    final.touch()
    assert jobs.check_existing(final, "job", "job", overwrite=False) is True
    assert jobs.check_existing(final, "other", "job", overwrite=True) is False
    for found in ("other", None):
        with pytest.raises(OutputExistsError, match=r"out\.tif: exists .* --overwrite to replace it"):
            jobs.check_existing(final, found, "job", overwrite=False)


def test_small_files_are_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    jobs.write_text(path, "äöü")
    assert path.read_text(encoding="utf-8") == "äöü"
    with pytest.raises(OutputError, match=r"none/report\.json: cannot be written \(No such file or directory\)"):
        jobs.write_text(tmp_path / "none" / "report.json", "x")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        jobs.write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "äöü"
    assert tree(tmp_path) == ["report.json"]
