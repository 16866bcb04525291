"""The page of a comparison: the models' masks side by side, and what differs between them."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import pytest

from ctrs.config import EvalConfig
from ctrs.evaluation import evaluate_models
from tests.evaluation.scored_ground import CPU, make_run, prepare

CONFIG = EvalConfig(predict=CPU, num_places=2, bootstrap=50)


@pytest.fixture
def town(tmp_path, monkeypatch):
    prepare(tmp_path / "prepared" / "town")
    for seed, name in enumerate(("first", "second")):
        make_run(tmp_path / "runs" / name, seed=seed)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_models_stand_side_by_side_while_their_masks_do(town, caplog):
    runs, data = [town / "runs" / "first", town / "runs" / "second"], town / "prepared" / "town"
    comparison = evaluate_models(runs, data, replace(CONFIG, split="test"))
    page = comparison.path.with_name("report.html").read_text()
    for report in comparison.reports:
        assert f"{report.mean_iou:.3f}" in page
    assert "errors of second" in page
    assert re.search(r'<section id="differences".*?second against first.*?</section>', page, re.S)
    assert page.count("data:image/jpeg") > 3
    assert not list(town.rglob("mosaics"))

    shutil.rmtree(runs[1] / "eval" / "test" / "masks")
    shutil.rmtree(comparison.path.parent)
    again = evaluate_models(runs, data, replace(CONFIG, split="test"))
    assert "not found; the comparison shows no places" in caplog.text
    page = again.path.with_name("report.html").read_text()
    assert 'id="worst"' not in page
    assert f"{comparison.reports[1].mean_iou:.3f}" in page
