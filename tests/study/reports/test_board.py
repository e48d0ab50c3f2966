"""The board: which setting stands for a defense, and that the worst verdict of any study counts."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from study.records.finished import load
from study.reports.board import (
    CLAIMS,
    COLUMNS,
    OUTDATED,
    board,
    board_markdown,
    board_tables,
    cells,
    judged_settings,
)
from study.reports.findings import Findings

RESULTS = Path(__file__).parents[3] / "study" / "results"


def row(
    verdict: str, distortion: float, excess: float, knobs: str = "steps=5", **more: Any
) -> dict[str, Any]:
    known = {
        "data": "digits", "auxiliary": "same", "images": "all", "scale": "quick", "victim": "v",
        "defense": "rounding",
        "knobs": knobs, "verdict": verdict, "distortion": distortion, "accuracy drop": 0.0, "excess": excess,
        "excess at most": excess + 0.01, "certified excess": None, "worst attacker": "kernel", "attackers": 6,
        "lacking": "", "seeds": 3, "studies": 1, "study": "a", "trial": f"t-{knobs}", "command": "again",
    }  # fmt: skip
    return known | more


def of(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(COLUMNS))


def test_the_cheapest_of_the_strongest_claim_stands_for_a_defense() -> None:
    found = board(
        [
            of(
                row("leaks", 0.001, 0.2, "steps=50"),
                row("safe", 0.004, 0.0, "steps=9"),
                row("certified", 0.012, 0.0, "steps=2"),
                row("certified", 0.010, 0.01, "steps=3"),
                row("leaks", 0.002, 0.1, "ratio=1", defense="lfp"),
                row("leaks", 0.003, 0.05, "ratio=2", defense="lfp"),
                row("undecided", 0.001, 0.04, "budget=1", defense="noise"),
                row("undecided", 0.009, 0.02, "budget=2", defense="noise"),
            )
        ]
    )
    assert found[["defense", "knobs", "verdict"]].to_numpy().tolist() == [
        ["rounding", "steps=3", "certified"],
        ["noise", "budget=2", "undecided"],
        ["lfp", "ratio=2", "leaks"],
    ]


def test_a_setting_that_one_study_saw_leak_is_known_to_leak() -> None:
    one = of(row("safe", 0.004, 0.0), row("safe", 0.006, 0.0, "steps=3"))
    other = of(row("leaks", 0.004, 0.03, study="b"))
    found = board([one, other])
    assert found.loc[0, ["knobs", "study", "verdict"]].tolist() == ["steps=3", "a", "safe"]
    alone = board([of(row("safe", 0.004, 0.0)), other])
    assert alone.loc[0, ["verdict", "study", "studies"]].tolist() == ["leaks", "b", 2]
    # The order of the studies does not matter.
    pd.testing.assert_frame_equal(board([other, one]), found)
    # On other data, or another victim, it is another setting.
    for name, value in (
        ("data", "mnist"),
        ("images", "500"),
        ("victim", "w"),
        ("scale", "full"),
        ("auxiliary", "other"),
    ):
        apart = board([one, of(row("leaks", 0.004, 0.03, study="b", **{name: value}))])
        assert sorted(apart["verdict"]) == ["leaks", "safe"]


def test_nothing_is_no_board() -> None:
    assert board([]).empty
    assert board([of()]).columns.tolist() == list(COLUMNS)
    assert board_tables(board([])) == []


def test_rows_are_those_of_the_study(tmp_path: Path) -> None:
    place = RESULTS / "mnist-suite"
    study = load(place)
    rows = judged_settings(study, "study/results/mnist-suite")
    found = Findings.of(study)
    verdicts = found.verdicts.set_index("trial")["verdict"]
    configurations = found.configurations.set_index("trial")
    assert len(rows) == int(configurations["feasible"].sum())
    for _, one in rows.iterrows():
        lacks = set(one["lacking"].split(", ")) - {""}
        assert not lacks & set(study.episodes["attack"])
        expected = verdicts[one["trial"]]
        assert one["verdict"] == (OUTDATED if expected == "safe" and lacks else expected)
        assert one["distortion"] == configurations["confidence_distortion"][one["trial"]]
        assert one["command"].endswith(f"--like study/results/mnist-suite --trial {one['trial']}")
        assert one["attackers"] == 22
    assert OUTDATED in set(rows["verdict"])  # these records are older than mixtures
    assert set(rows["verdict"]) <= set(CLAIMS)


def test_markdown_has_a_table_for_each_data_set() -> None:
    text = board_markdown(
        board([of(row("safe", 0.1, 0.0), row("leaks", 0.1, 0.1, data="mnist", auxiliary="o"))])
    )
    heads = [line for line in text.splitlines() if line.startswith("###")]
    assert heads == [
        "### digits, all images a side, scale quick",
        "### mnist, other classes (o), all images a side, scale quick",
    ]
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_cells_and_markdown_escape_what_records_say() -> None:
    table = board([of(row("safe", 0.004, 0.0, "x|y_*z", command="run `a|b`", lacking="kernel"))])
    head, lines = cells(table)
    assert len(head) == len(lines[0])
    assert "6 (without kernel)" in lines[0]
    text = board_markdown(table)
    assert text.splitlines()[0] == "### digits, all images a side, scale quick"
    assert len(text.splitlines()) == 5
    assert "0.000 (0.010)" in text
    bounds = {"excess at most": 0.0202, "certified excess": 0.0301}
    assert "0.020 (0.021) | 0.031" in board_markdown(board([of(row("safe", 0.004, 0.0202, **bounds))]))
    assert r"x\|y\_\*z" in text
    assert "`a|b`" not in text
    plain = board_markdown(board([of(row("safe", 0.004, 0.0, certified=0.1))]))
    assert "`again`" in plain
    assert " - |" in plain  # no certificate is no number


def test_a_terminal_of_80_columns_shows_every_column() -> None:
    knobs = "budget=0.01 rounds=10 step=0.2 sub_features=log scope=sample"
    long = row("undecided", 0.00713, 0.02, knobs, defense="lpa-amortised", trial="t0038-lpa-amortised")
    console = Console(width=80, record=True, file=io.StringIO())
    for table in board_tables(board([of(row("certified", 0.0141, 0.0), long)])):
        console.print(table)
    lines = console.export_text().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    text = "\n".join(lines)
    for word in ("certified", "distortion", "at most", "lpa-amortised", "sub_features=log", "undecided"):
        assert len(re.findall(rf"(?<![\w-]){word}(?![\w-])", text)) >= 1, word
    first = next(line.split() for line in lines if line.split()[:1] == ["lpa-amortised"])
    assert first[1:] == ["undecided", "0.00713", "0.020", "0.030", "-"]
    assert "a, t0038-lpa-amortised" in text
