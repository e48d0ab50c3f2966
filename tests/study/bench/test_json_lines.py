"""A measurement is one line of JSON, printed and appended."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from study.bench.json_lines import print_measurement


@dataclass
class Found:
    trials: int
    text: str


def test_lines_are_appended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.jsonl"
    for i in (1, 2):
        print_measurement(Found(i, "a\nb"), out)
    print_measurement(Found(3, ""), None)
    lines = out.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"trials": i, "text": "a\nb"} for i in (1, 2)]
    assert capsys.readouterr().out.splitlines()[:2] == lines
