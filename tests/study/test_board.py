"""``mipoison board``: several studies in, one table out; what holds no study is left out with a line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from study import board

RESULTS = Path(__file__).parents[2] / "study" / "results"
STUDIES = sorted(str(p.parent) for p in RESULTS.glob("*/study.json"))


def test_all_committed_studies_are_on_one_board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "board.csv"
    assert board.main([*STUDIES, str(tmp_path), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert f"left out: {tmp_path}: no study here" in said.err
    table = pd.read_csv(out)
    assert f"({len(table)} rows of {len(STUDIES)} studies)" in said.out
    assert len(STUDIES) > 4
    assert not table.duplicated(["data", "auxiliary", "images", "victim", "defense"]).any()
    assert set(table["defense"]) >= {"none", "label-only", "rounding", "lpa"}
    assert set(table.loc[table["defense"] == "label-only", "verdict"]) == {"certified"}


def test_markdown_and_the_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    place = str(RESULTS / "mnist-suite")
    assert board.main([place, "--out", str(tmp_path / "board.md")]) == 0
    lines = (tmp_path / "board.md").read_text().splitlines()
    capsys.readouterr()
    assert board.main([place]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("mnist, 500 images a side")
    assert len(lines) > 8
    for line in lines[4:]:
        assert line.removeprefix("| ").split()[0] in shown
    assert "outdated: safe in a study that lacks" in shown


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "no study given"),
        (["nowhere"], "none of these folders holds a study"),
        (["nowhere", "--out", "b.txt"], "must end in .md or .csv"),
    ],
)
def test_mistakes_are_a_line(
    arguments: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert board.main(arguments) == 2
    assert why in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
