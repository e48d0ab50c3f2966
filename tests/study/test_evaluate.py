"""One setting once more: the numbers are the stored ones, and what differs is named."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from study import evaluate, render
from study.records.finished import load


@pytest.fixture(scope="module")
def compact(small_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compact copy of the small study: records alone."""
    out = tmp_path_factory.mktemp("compact") / "copy"
    assert render.main([str(small_study), "--out", str(out), "--compact", str(out)]) == 0
    return out


def searched(folder: Path, defense: str) -> str:
    return next(t for t in sorted(set(load(folder).episodes["trial"])) if t.endswith(f"-{defense}"))


@pytest.mark.parametrize("defense", ["lpa", "label-only"])
def test_a_trial_from_a_compact_copy_gives_its_stored_numbers(
    compact: Path, small_study: Path, defense: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trial = defense if defense == "label-only" else searched(compact, defense)
    kept = tmp_path / "kept"
    assert evaluate.main(["--like", str(compact), "--trial", trial, "--storage", str(kept)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(r"of 8 episodes( \(4 of them not run, then as now\))?, all of them exactly", out)
    # By pandas alone: the episode files of the study and of the rerun hold the same measurements.
    again, first = (
        pd.read_parquet(next((folder / "episodes").glob(f"{trial}.*"))).sort_values(["seed", "attack"])
        for folder in (kept / "copy", small_study)
    )
    for column in ("reconstruction_error", "attack_accuracy", "confidence_distortion", "excess_leakage"):
        assert again[column].dropna().tolist() == first[column].dropna().tolist(), column
    assert again["status"].tolist() == first["status"].tolist()
    assert again["episode_id"].tolist() == first["episode_id"].tolist()


def test_what_differs_is_named(compact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    altered = tmp_path / "altered"
    altered.mkdir()
    (altered / "study.json").write_bytes((compact / "study.json").read_bytes())
    table = pq.read_table(compact / "episodes.parquet").to_pandas()
    row = table.index[(table["trial"] == "none") & (table["attack"] == "ridge") & (table["seed"] == 1)][0]
    table.loc[row, "reconstruction_error"] *= 1.5
    table.loc[row, "versions"] = "older"
    table.to_parquet(altered / "episodes.parquet")
    assert evaluate.main(["--like", str(altered), "--trial", "none"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "different: 1 of" in out
    assert "33.33% (reconstruction_error, attacker ridge, seed 1" in out
    assert "older" in out


def test_another_setting_under_the_same_conditions(compact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--like", str(compact), "--defense", "rounding", "--knob", "decimals=1"]
    assert evaluate.main(arguments) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "rounding decimals=1" in out
    assert "stored" not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a recorded --trial"),
        (["--trial", "t9999-lpa"], "'t9999-lpa'"),
        (["--trial", "none", "--dataset", "folder:x"], "these records are of 'digits'"),
        (["--defense", "lpaa"], "did you mean 'lpa'"),
        (["--defense", "lpa", "--knob", "budgett=1"], "did you mean 'budget'"),
        (["--defense", "lpa", "--knob", "budget"], "name=value"),
        (["--defense", "lpa", "--knob", "budget=much"], "budget=much"),
        (["--defense", "lpa", "--knob", "budget=-1"], "budget"),
        (["--defense", "lfp", "--knob", "swap=maybe"], "true or false"),
    ],
)
def test_bad_input_is_one_line(
    small_study: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(["--like", str(small_study), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.strip().count("\n") == 0


def test_no_study_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--like", str(tmp_path / "nothing"), "--trial", "none"]) == 2
    assert "no study here" in capsys.readouterr().err
