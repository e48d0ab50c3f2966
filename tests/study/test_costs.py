"""``study/costs.py``: one measurement a size of study, as a line of JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from study import costs
from study.bench import study_growth


@dataclass
class Found:
    trials: int


def test_a_line_for_each_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    template = object()
    monkeypatch.setattr(study_growth, "Template", lambda: template)
    monkeypatch.setattr(study_growth, "measure", lambda given, n: Found(n) if given is template else None)
    out = tmp_path / "costs.jsonl"
    assert costs.main(["--trials", "2", "40", "--out", str(out)]) == 0
    lines = out.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"trials": 2}, {"trials": 40}]
    assert capsys.readouterr().out.splitlines() == lines


def test_a_signal_ends_it_with_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(study_growth, "Template", interrupted)
    assert costs.main(["--trials", "2"]) == 130
    assert "Traceback" not in capsys.readouterr().err
