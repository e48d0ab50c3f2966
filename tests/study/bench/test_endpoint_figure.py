"""The figure of audits shows every endpoint, and marks what is not covered or named otherwise."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from study.bench.endpoint_figure import figure, main

TABLE = Path(__file__).parents[3] / "study" / "results" / "audit" / "endpoints.csv"


def test_every_endpoint_of_the_committed_table_is_drawn() -> None:
    table = pd.read_csv(TABLE, keep_default_na=False)
    train, test = figure(table).axes
    assert len(train.get_yticks()) == len(table) == 20
    for ax, pool in ((train, "train"), (test, "test")):
        by_label = {line.get_label(): line for line in ax.get_lines()}
        assert sorted(by_label["full study"].get_xdata()) == sorted(table[f"full_{pool}"])
        assert sorted(by_label["its estimate"].get_xdata()) == sorted(table[f"audit_{pool}"])
        assert ("not covered" in by_label) == (not table[f"covers_{pool}"].all())


def test_misses_are_marked(tmp_path: Path) -> None:
    table = pd.read_csv(TABLE, keep_default_na=False)
    table.loc[3, "covers_test"], table.loc[3, "hit"], table.loc[3, "named"] = False, False, "noise"
    train, test = figure(table).axes
    marked = next(line for line in test.get_lines() if line.get_label() == "not covered")
    assert marked.get_xdata().tolist() == [table.loc[3, "full_test"]]
    names = [text.get_text() for text in train.get_yticklabels()]
    assert f"{table.loc[3, 'number']} {table.loc[3, 'defense']} (named noise)" in names


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(TABLE), str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert main([str(TABLE)]) == 2
    assert "usage" in capsys.readouterr().err
