"""Which data and which run a command takes when none is named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ctrs.errors import InputNotFoundError
from ctrs.workspace import free_run_dir, newest_prepared, newest_run, place_of_data, run_data_dir


def put(path, when=0, text="{}"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (when, when))
    return path


def test_newest_prepared(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"no prepared data in .*prepared; run `ctrs prepare SOURCE` first"):
        newest_prepared(tmp_path)
    put(tmp_path / "prepared/potsdam/prepared.json", 200)
    put(tmp_path / "prepared/vaihingen/prepared.json", 100)
    put(tmp_path / "prepared/.dubai.partial/prepared.json", 300)
    (tmp_path / "prepared/empty").mkdir()
    assert newest_prepared(tmp_path).name == "potsdam"
    put(tmp_path / "prepared/vaihingen/prepared.json", 201)
    assert newest_prepared(tmp_path).name == "vaihingen"


def test_newest_run(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"no run with a checkpoint in .*runs; run `ctrs train` first"):
        newest_run(tmp_path)
    put(tmp_path / "runs/a/last/model.json", 100)
    put(tmp_path / "runs/b/best/model.json", 200)
    put(tmp_path / "runs/.c.partial/best/model.json", 300)
    put(tmp_path / "runs/d/config.toml", 400, "")
    assert newest_run(tmp_path) == tmp_path / "runs/b"
    assert newest_run(tmp_path, unfinished=True) == tmp_path / "runs/d"
    put(tmp_path / "runs/a/last/model.json", 201)
    assert newest_run(tmp_path) == tmp_path / "runs/a"


def test_what_a_kill_left_aside_is_found(tmp_path):
    put(tmp_path / "prepared/.potsdam.partial/replaced/prepared.json", 100)
    put(tmp_path / "prepared/.potsdam.partial/result/prepared.json", 300)
    put(tmp_path / "runs/a/.best.partial/replaced/model.json", 100)
    assert newest_prepared(tmp_path) == tmp_path / "prepared/potsdam"
    assert newest_run(tmp_path) == tmp_path / "runs/a"
    assert (tmp_path / "runs/a/best/model.json").is_file()
    data = tmp_path / "prepared/potsdam"
    put(tmp_path / "runs/a/config.toml", text=f'[data]\npath = "{data.as_posix()}"\n')
    data.rename(tmp_path / "prepared/.potsdam.partial/replaced")
    assert run_data_dir(tmp_path / "runs/a") == data


def test_a_run_knows_its_data(tmp_path):
    run, data = tmp_path / "runs/a", tmp_path / "prepared/potsdam"
    assert run_data_dir(run) is None
    put(run / "config.toml", text=f'[data]\npath = "{data.as_posix()}"\n')
    put(run / "best/model.safetensors")
    assert run_data_dir(run) is None
    put(data / "prepared.json")
    assert run_data_dir(run) == run_data_dir(run / "best") == run_data_dir(run / "best/model.safetensors") == data
    put(run / "config.toml", text="epochs = 3\n")
    assert run_data_dir(run) is None


def project(root, record):
    """A data set and a run in their usual places."""
    data = root / "prepared/town"
    put(data / "prepared.json", text=json.dumps({"fingerprint": "f1"}))
    lines = {"path": data.as_posix(), **record}
    put(root / "runs/a/config.toml", text="[data]\n" + "".join(f'{key} = "{value}"\n' for key, value in lines.items()))
    return root / "runs/a", data


@pytest.mark.parametrize("record", [{"place": "../../prepared/town", "fingerprint": "f1"}, {}], ids=["new", "old"])
def test_a_copied_project_takes_its_own_data_where_they_are_the_same(tmp_path, caplog, record):
    run, data = project(tmp_path / "first", record)
    assert run_data_dir(run) == data
    copied = shutil.copytree(tmp_path / "first", tmp_path / "second")
    with caplog.at_level("INFO"):
        assert run_data_dir(copied / "runs/a") == copied / "prepared/town"
        assert run_data_dir(copied / "runs/a/best/model.safetensors") == copied / "prepared/town"
    assert f"{copied / 'prepared/town'}: taken instead of {data}" in caplog.text
    put(copied / "prepared/town/prepared.json", text='{"fingerprint": "f2"}')  # prepared anew, otherwise
    assert run_data_dir(copied / "runs/a") == data
    put(copied / "prepared/town/prepared.json", text="[]")
    assert run_data_dir(copied / "runs/a") == data
    put(copied / "prepared/town/prepared.json", text='{"fingerprint": "f1"}')
    shutil.rmtree(tmp_path / "first")
    assert run_data_dir(copied / "runs/a") == (copied / "prepared/town" if record else None)


def test_place_of_data(tmp_path, monkeypatch):
    assert place_of_data(tmp_path / "runs/a", tmp_path / "prepared/town") == "../../prepared/town"
    monkeypatch.chdir(tmp_path)
    assert place_of_data(Path("runs/a"), tmp_path / "prepared/town") == "../../prepared/town"


def test_free_run_dir(tmp_path):
    assert free_run_dir("a", tmp_path) == tmp_path / "runs/a"
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/.a-2.partial").mkdir()
    assert free_run_dir("a", tmp_path) == tmp_path / "runs/a-3"
