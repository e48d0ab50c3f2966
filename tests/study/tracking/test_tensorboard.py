"""The copy for TensorBoard: a run a trial, with the records' values."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mipoison.storage.files import Storage
from study.records.store import Records


def test_tensorboard_has_a_run_a_trial_with_the_records_values(studied: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    records = Records(Storage(studied), "s")
    folders = sorted((studied / "s" / "tensorboard").iterdir())
    assert [f.name for f in folders] == sorted(n for n in records.started() if n.startswith("t"))
    for folder in folders:
        log = reader.EventAccumulator(str(folder))
        log.Reload()
        for row in records.read_trial(folder.name):
            events = {e.step: e.value for e in log.Scalars(f"reconstruction_error/{row['attack']}")}
            assert math.isclose(events[row["seed"]], row["reconstruction_error"], rel_tol=1e-6)
