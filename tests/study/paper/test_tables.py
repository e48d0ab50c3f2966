"""Tables of the paper beside ours: from the records alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from study.paper import experiments
from study.paper.experiments import FACES, TABLES, table_rows
from study.paper.measured import load
from study.paper.tables import table_frame, table_markdown

RESULTS = Path(__file__).parents[3] / "study" / "results"


def test_tables_say_what_the_records_say(reproduced: Path) -> None:
    episodes = pd.concat(
        pd.read_parquet(p) for p in (reproduced / "reproduction" / "digits" / "episodes").iterdir()
    )
    frame = pd.read_csv(reproduced / "reproduction" / "table_III.csv")
    assert len(frame) == 6
    assert (frame["seeds"] == 3).all()
    for line, row in zip(frame.to_dict("records"), table_rows("III"), strict=True):
        mine = episodes[(episodes["trial"] == row.trial) & (episodes["attack"] == row.attack)]
        assert line["ours.reconstruction_error_unit"] == pytest.approx(
            mine["reconstruction_error"].mean(), rel=1e-5
        )
        assert line["ours.cycle_accuracy"] == pytest.approx(mine["cycle_accuracy"].mean(), rel=1e-5)
        assert line["paper.attack_accuracy"] == pytest.approx(dict(row.paper)["attack_accuracy"])
    text = (reproduced / "reproduction" / "table_III.md").read_text()
    assert "facescrub (digits)" in text
    assert "half of MNIST's classes 5-9" in text
    assert "3 seeds (0, 1, 2)" in text
    assert "undefended attacker" in text
    assert "not run" not in text


@pytest.mark.skipif(not (RESULTS / "reproduction").exists(), reason="no committed reproduction")
@pytest.mark.parametrize("table", TABLES)
def test_committed_tables_are_what_the_committed_records_give(table: str) -> None:
    found = load(str(RESULTS), experiments.STAND_IN)
    folder = RESULTS / "reproduction"
    assert table_markdown(table, found) == (folder / f"table_{table}.md").read_text()
    written = table_frame(table, found).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    assert written == (folder / f"table_{table}.csv").read_text()
    assert FACES in written or table in ("V", "VII", "IX")
