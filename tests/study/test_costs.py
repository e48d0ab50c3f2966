"""``study/costs.py``: one measurement a size of study, as a line of JSON."""

import json
from pathlib import Path

import pytest

from study import costs


def test_a_line_for_each_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "costs.jsonl"
    assert costs.main(["--trials", "2", "4", "--out", str(out)]) == 0
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["trials"] for row in found] == [2, 4]
    assert found[0]["episodes"] < found[1]["episodes"]
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == found
