"""The table of claims: the committed one is what the committed records give; others follow theirs."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pandas as pd
import pytest

from study import reproduce
from study.paper.claims.claims import CLAIMS, Claim
from study.paper.claims.decide import decide
from study.paper.claims.evidence import setting
from study.paper.claims.quantities import Column
from study.paper.claims.readings import exact, one_sided
from study.paper.claims.rules import Mean
from study.paper.claims.table import COLUMNS, READINGS, caption, claims_frame, claims_markdown, numbers
from tests.study.paper.claims.made_up import evidence, row
from tests.study.paper.claims.test_readings import HERE

RESULTS = Path(__file__).parents[4] / "study" / "results"
NAMES = ("claims.md", "claims.csv", "claims_readings.csv")


def test_the_committed_table_is_what_the_committed_records_give(tmp_path: Path) -> None:
    assert reproduce.main(["--claims", "--studies", str(RESULTS), "--storage", str(tmp_path)]) == 0
    made, kept = (
        {name: (root / "reproduction" / name).read_text() for name in NAMES} for root in (tmp_path, RESULTS)
    )
    assert made["claims.md"] == kept["claims.md"], "mipoison reproduce --claims --storage study/results"
    for name in NAMES[1:]:  # the last of the digits differs between machines
        a, b = (pd.read_csv(io.StringIO(text[name])) for text in (made, kept))
        pd.testing.assert_frame_equal(a, b, rtol=1e-3)


def test_the_table_of_one_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(RESULTS / "digits-fresh-noise", tmp_path / "in" / "s")
    arguments = ["--claims", "--studies", str(tmp_path / "in"), "--storage", str(tmp_path)]
    assert reproduce.main(arguments) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{len(CLAIMS)} claims: " in shown
    assert "Simes" in shown
    table = pd.read_csv(tmp_path / "reproduction" / "claims.csv").set_index("id")
    assert tuple(table.reset_index().columns) == COLUMNS
    assert table.loc["P01", "verdict"] == "no record"  # the attacker's images are of the same classes
    assert table.loc["F15", "readings"] == 4  # two lengths, train and test
    assert table.loc["F01", "by data set"] == "digits stands"
    readings = pd.read_csv(tmp_path / "reproduction" / "claims_readings.csv")
    assert tuple(readings.columns) == READINGS
    of_test = readings["where"].str.contains("0.015") & readings["where"].str.endswith("test")
    kept = readings[(readings["id"] == "F04") & of_test].iloc[0]
    raw = pd.read_parquet(RESULTS / "digits-fresh-noise" / "episodes.parquet")
    best = {}
    for trial in ("t0001-noise", "label-only"):
        one = raw[raw["trial"] == trial].pivot(index="seed", columns="attack")["reconstruction_error_test"]
        best[trial] = one[one.mean().idxmin()]
    excess = 1 - best["t0001-noise"] / best["label-only"]
    half = 4.302653 * excess.std() / 3**0.5
    expected = (excess.mean(), excess.mean() - half, excess.mean() + half)
    assert (kept["mean"], kept["low"], kept["high"]) == pytest.approx(expected, rel=2e-3)
    page = (tmp_path / "reproduction" / "claims.md").read_text()
    for claim in CLAIMS:
        assert f"| {claim.id} | " in page
        assert f"**{claim.id}**" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--claims", "--all"], "--claims goes without"),
        (["--claims", "--studies", "{root}/nothing"], "no such folder"),
        (["--claims", "--studies", "{root}"], "no study in it"),
    ],
)
def test_bad_input_is_refused_in_a_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.main([a.format(root=tmp_path) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_numbers_in_words() -> None:
    values = [0.01, 0.02, 0.03]
    found = one_sided(HERE, values, 0, more=True, holds=values, opposite=values)
    assert numbers(found) == "0.02 [-0.00484, 0.0448], 3 seeds"
    assert numbers(exact(HERE, 0.25, 4, holds=False)) == "0.25 of 4 records break it"
    assert numbers(None) == "-"
    single = one_sided(HERE, [0.5], 0, more=True, holds=[0.5], opposite=[0.5])
    assert numbers(single) == "0.5 (1 seed)"


def test_what_screening_left_out_is_said() -> None:
    of = Claim("X", "x", "us", Mean(Column("x", "b"), setting("noise"), "above", 0))
    rows = [row("t", "noise", "a", s) for s in range(3)]
    cut = [r | {"attack": "b", "status": "cut"} for r in rows]
    gone, whole = decide([evidence(rows + cut)], [of]), decide([evidence(rows)], [of])
    assert "(1 in 1 of the claims)" in caption(gone)
    assert "screened" not in caption(whole)
    assert "Settings left out, since only screened: 1." in claims_markdown(gone)
    assert claims_frame(gone)["left out"].tolist() == [1]
    assert claims_frame(whole)["left out"].tolist() == [0]
