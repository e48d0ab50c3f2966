"""Records read in batches are those of each trial."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mipoison.storage.files import Storage
from study.records.store import Records
from tests.study import synthetic


def test_records_that_are_read_in_batches_are_those_of_each_trial(tmp_path: Path) -> None:
    synthetic.write_study(tmp_path / "s", 70)  # more than one batch
    records = Records(Storage(tmp_path), "s")
    frame = records.read()
    each = [row for trial in sorted(records.attempts()) for row in records.read_trial(trial)]
    expected = pd.DataFrame(each).sort_values(["trial", "seed", "attack"], kind="stable", ignore_index=True)
    assert list(frame["episode_id"]) == list(expected["episode_id"])
    assert list(frame["reconstruction_error"].dropna()) == list(expected["reconstruction_error"].dropna())
    kept, _ = records.read_and_move_damaged(kept=("trial", "status"))
    assert set(kept[next(iter(sorted(set(kept) - {"none", "label-only"})))][0]) == {"trial", "status"}
    assert set(kept["none"][0]) == set(frame.columns)
    part = records.read(columns=("error",))
    assert list(part.columns) == [c for c in frame.columns if c in ("trial", "seed", "attack", "error")]
