"""The frontier on held-out seeds: same settings, other seeds, not repeated on resume; its table."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from mipoison.storage.files import Storage
from study import pareto
from study.analysis.frontier import configuration_table
from study.analysis.selection_bias import selection_bias
from study.records.constraints import Constraints
from study.records.finished import load
from study.records.store import Records
from study.reports.findings import Findings
from study.reports.summary import choose
from study.reports.tables import fresh_report

TINY = "--executor local --trials 3 --seeds 2 --fresh-seeds 2 --victim-steps 30 --decoder-steps 20"
TINY += " --attackers passive label-only --defenses rounding noise --name s --no-learning-curves"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fresh")
    assert pareto.main([*TINY.split(), "--storage", str(root)]) == 0
    return root


def test_fresh_seeds_follow_those_of_the_search(root: Path) -> None:
    searched, held_out = (Records(Storage(root), name).read() for name in ("s", "s.fresh"))
    assert set(searched["seed"]) == {0, 1}
    assert set(held_out["seed"]) == {2, 3}
    assert not set(searched["episode_id"]) & set(held_out["episode_id"])
    front = pd.read_parquet(root / "s" / "frontier.parquet")
    choice = choose(Findings.of(load(root / "s")).judged)
    recommended = {str(row["trial"]) for row in (choice.deploy, choice.runner_up) if row is not None}
    assert set(held_out["trial"]) == set(front["trial"]) | {"none", "label-only"} | recommended
    knobs = ["trial", "defense", "defense.budget", "defense.decimals"]
    both = searched[knobs].drop_duplicates().merge(held_out[knobs].drop_duplicates(), how="inner")
    assert set(both["trial"]) == set(held_out["trial"])  # the same settings


def test_the_comparison_is_a_function_of_both_sets_of_episodes(root: Path) -> None:
    searched, fresh = (Records(Storage(root), name).read() for name in ("s", "s.fresh"))
    bias = selection_bias(
        *(configuration_table(frame, constraints=Constraints()) for frame in (searched, fresh))
    )
    stored = pd.read_parquet(root / "s" / "frontier_fresh.parquet")
    assert stored["trial"].tolist() == bias["trial"].tolist()
    after = configuration_table(fresh, constraints=Constraints()).set_index("trial")
    for _, row in bias.iterrows():
        assert (
            row["worst_reconstruction_error_fresh"] == after.loc[row["trial"], "worst_reconstruction_error"]
        )
        assert row["worst_reconstruction_error_fresh"] != row["worst_reconstruction_error"]
    out = io.StringIO()
    Console(file=out, width=100).print(fresh_report(bias, "info"))
    assert "Selection bias" in out.getvalue()
    assert f"{bias['worst_reconstruction_error_fresh'].iloc[0]:.4f}" in out.getvalue()


@pytest.mark.usefixtures("no_report")
def test_resume_repeats_no_fresh_episode(root: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in (root / "s.fresh" / "episodes").iterdir()}
    assert pareto.main([*TINY.split(), "--storage", str(root), "--resume"]) == 0
    assert {p.name: p.stat().st_mtime_ns for p in (root / "s.fresh" / "episodes").iterdir()} == before
