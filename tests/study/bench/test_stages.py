"""What a trial costs besides its work: from the files of a study, and from commands that may fail."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from study.bench.stages import _overhead_rows, run


def test_overhead_is_what_is_no_work(tmp_path: Path) -> None:
    """Two trials of 10 s and 20 s; 2 seeds share preparation and poisoning among 2 attackers each."""
    (tmp_path / "episodes").mkdir()
    (tmp_path / "trials").mkdir()
    for i, (wall, attack) in enumerate(((10, 1.0), (20, 2.0))):
        name = f"t000{i + 1}-noise"
        rows = [
            {"seed": s, "seconds_prepare": 0.5, "seconds_poison": 0.25, "seconds_attack": attack,
             "seconds_evaluate": 0.125}
            for s in (0, 0, 1, 1)
        ]  # fmt: skip
        records, begun = tmp_path / f"episodes/{name}.a0.parquet", tmp_path / f"trials/{name}.json"
        pd.DataFrame(rows).to_parquet(records)
        begun.write_text("{}")
        os.utime(begun, (1000, 1000))
        os.utime(records, (1000 + wall, 1000 + wall))
    first, later = _overhead_rows(tmp_path, workers=0)
    assert first.value == pytest.approx(10 - (2 * 0.75 + 4 * 1.125))
    assert later.value == pytest.approx(20 - (2 * 0.75 + 4 * 2.125))
    assert first.case == "first trial, inside the Tune trial"


def test_a_command_that_fails_says_its_last_words() -> None:
    assert run([sys.executable, "-c", "import os; print(os.environ['WORD'])"], WORD="here") == "here\n"
    with pytest.raises(RuntimeError, match=r"ended with 3: last words"):
        run([sys.executable, "-c", "import sys; sys.stderr.write('last words'); sys.exit(3)"])
