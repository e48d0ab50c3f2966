"""The simulated studies behind the verdicts: what is simulated is what is said, on few studies."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from study.bench import calibration
from study.bench.calibration import World, main, simulated_excess

STORED = Path(__file__).parents[3] / "study" / "results" / "calibration" / "calibration.csv"


def test_without_leakage_few_say_so_and_a_large_leak_is_found() -> None:
    rng = np.random.default_rng(3)
    quiet = calibration._row(World(excess=0.0, spread=0.01), "5", [5] * 60, rng)
    loud = calibration._row(World(excess=0.1, spread=0.01), "5", [5] * 60, rng)
    assert quiet["share_leaks"] <= 0.1
    assert quiet["holds"] in (True, False)
    assert loud["share_leaks"] > 0.95
    assert loud["share_safe"] == 0.0
    assert loud["holds"] is None


def test_the_simulated_excess_is_the_true_one_where_nothing_is_chosen() -> None:
    rng = np.random.default_rng(0)
    world = World(excess=0.2, spread=0.0, tied=0.0, images=(4000, 4000))
    for pool in simulated_excess(world, 4, rng):
        assert pool.mean == pytest.approx(0.2, abs=0.02)


def test_the_committed_table_meets_the_bars() -> None:
    table = pd.read_csv(STORED)
    assert (table.loc[table["true_excess"] == 0, "share_leaks"] <= calibration.FALSE_LEAKS).all()
    planned = table[(table["seeds"] == "planner") & (table["studies"] >= 500)]
    assert len(planned) >= 2
    assert (planned["share_leaks"] >= calibration.FOUND).all()
    assert table["studies"].max() == calibration.STUDIES


def test_bad_usage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["folder"]) == 2
    assert "usage" in capsys.readouterr().err


def test_the_command_writes_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    rows = [calibration._row(World(excess=e, spread=0.01), "5", [5] * 20, rng) for e in (0.0, 0.1)]
    for held, code in ((True, 0), (False, 1)):
        rows[0]["holds"] = held
        monkeypatch.setattr(calibration, "calibration", lambda: iter(rows))
        assert main([str(tmp_path / "new" / "OUT.csv")]) == code
    assert pd.read_csv(tmp_path / "new" / "OUT.csv")["true_excess"].tolist() == [0.0, 0.1]
