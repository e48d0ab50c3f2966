"""``mipoison board``: several studies in, one table out; what holds no study is left out with a line."""

from __future__ import annotations

import json
import shutil
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
    assert not table.duplicated(["data", "auxiliary", "images", "scale", "victim", "defense"]).any()
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
    assert shown.startswith("mnist, 500 images a side, scale quick")
    assert len(lines) > 8
    assert "to a margin of 0.02" in lines[-1]
    assert lines[-2] == ""
    for line in lines[4:-2]:
        assert line.removeprefix("| ").split()[0] in shown
    assert "outdated: safe in a study that lacks" in " ".join(shown.split())


def test_all_verdicts_are_to_one_margin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever margins the studies had: a copy with another one gives the same rows."""
    place, copy = RESULTS / "mnist-suite", tmp_path / "mnist-suite"
    shutil.copytree(place, copy)
    about = json.loads((copy / "study.json").read_text())
    (copy / "study.json").write_text(json.dumps(about | {"margin": 0.9}))
    tables = []
    for i, (of, *options) in enumerate([(place,), (copy,), (copy, "--margin", "0.9")]):
        out = tmp_path / f"{i}.csv"
        assert board.main([str(of), *options, "--out", str(out)]) == 0
        tables.append(pd.read_csv(out).drop(columns="command"))
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert (tables[2]["verdict"] != tables[0]["verdict"]).any()
    assert board.main([str(copy), "--margin", "0.9"]) == 0
    assert "to a margin of 0.9" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "no study given"),
        (["nowhere"], "none of these folders holds a study"),
        (["nowhere", "--margin", "nan"], "must be 0 or more"),
        (["nowhere", "--margin", "-0.1"], "must be 0 or more"),
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
