"""Committed rows by their stored command: what it measures today is what stands in the records.

Records are played again where they were made alike: by these versions, on such a device, of a data set that
is here. Three settings a folder, the cheapest of three defenses, so that it takes minutes at most.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mipoison.metrics.machine import device_name, versions
from study import render
from study.records.finished import StoredStudy, load
from study.reports.commands import rerun_command

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "study" / "results"
ROWS = 3
MOST_SECONDS = 200
"""Of what a setting took when it was recorded."""
SHIPPED = ("digits",)
"""Data sets that need no file."""


def reason_against(study: StoredStudy) -> str | None:
    """Why the records of a study cannot be played again here; None if they can."""
    made = sorted(set(study.episodes["versions"].dropna()) | set(study.episodes["device"].dropna()))
    here = sorted([versions(), device_name()])
    if made != here:
        return f"made with {', '.join(made)}; here is {', '.join(here)}"
    dataset = str(study.episodes["dataset"].iloc[0])
    if dataset not in SHIPPED and "MIPOISON_DATA" not in os.environ:
        return f"{dataset}: set MIPOISON_DATA to a folder with it"
    if not cheapest(study):
        return f"every setting took more than {MOST_SECONDS} s"
    return None


def cheapest(study: StoredStudy) -> list[str]:
    """Up to ROWS trials of as many defenses, those that took least."""
    rows = study.episodes[study.episodes["status"] == "ok"]
    spent = rows[[c for c in rows if c.startswith("seconds_")]].sum(axis=1)
    table = pd.DataFrame({"trial": rows["trial"], "defense": rows["defense"], "seconds": spent})
    total = table.groupby(["trial", "defense"], as_index=False)["seconds"].sum()
    total = total[total["seconds"] <= MOST_SECONDS].sort_values(["seconds", "trial"])
    return [str(t) for t in total.drop_duplicates("defense")["trial"][:ROWS]]


def play(study: StoredStudy, folder: Path, trial: str) -> subprocess.CompletedProcess[str]:
    """Run the command that the page, the board and the label show."""
    words = shlex.split(rerun_command(study, str(folder), trial))
    assert words[:2] == ["python", "study/evaluate.py"] or words[:2] == ["mipoison", "evaluate"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(ROOT / "study" / "evaluate.py"), *words[2:]],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


def equal(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 0 and "all of them exactly" in " ".join(done.stdout.split())


@pytest.mark.long
@pytest.mark.parametrize(
    "folder", sorted(p.parent for p in RESULTS.glob("*/study.json")), ids=lambda p: p.name
)
def test_committed_rows_are_measured_again(folder: Path) -> None:
    study = load(folder)
    if (reason := reason_against(study)) is not None:
        pytest.skip(reason)
    for trial in cheapest(study):
        done = play(study, folder, trial)
        assert equal(done), f"{trial}\n{done.stdout[-1500:]}\n{done.stderr[-500:]}"


@pytest.fixture(scope="module")
def copy(small_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compact copy of a study that was made here."""
    out = tmp_path_factory.mktemp("replay") / "copy"
    assert render.main([str(small_study), "--out", str(out), "--compact", str(out)]) == 0
    return out


@pytest.mark.long
def test_rows_of_a_study_made_here_are_measured_again(copy: Path) -> None:
    study = load(copy)
    assert reason_against(study) is None
    trials = cheapest(study)
    assert len(trials) == ROWS
    for trial in trials:
        done = play(study, copy, trial)
        assert equal(done), f"{trial}\n{done.stdout[-1500:]}\n{done.stderr[-500:]}"


@pytest.mark.long
def test_an_altered_row_is_found(copy: Path) -> None:
    path = copy / "episodes.parquet"
    table, before = pd.read_parquet(path), path.read_bytes()
    trial = cheapest(load(copy))[0]
    place = table.index[(table["trial"] == trial) & (table["status"] == "ok")][0]
    table.loc[place, "reconstruction_error"] *= 1.0001
    try:
        table.to_parquet(path)
        assert not equal(play(load(copy), copy, trial))
    finally:
        path.write_bytes(before)


def test_records_of_other_versions_are_left_out_with_a_reason(small_study: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    assert render.main([str(small_study), "--out", str(out), "--compact", str(out)]) == 0
    table = pd.read_parquet(out / "episodes.parquet")
    table.assign(versions="mipoison 0.0.1").to_parquet(out / "episodes.parquet")
    assert "made with cpu" in str(reason_against(load(out)))
    assert "mipoison 0.0.1; here is" in str(reason_against(load(out)))
