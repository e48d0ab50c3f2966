"""``tensorboard/<trial>``: one TensorBoard run per trial, with its knobs as hyper-parameters.

Written with tensorboardX, a dependency of Ray Tune; ``tensorboard --logdir`` reads it.
"""

from __future__ import annotations

import math
from pathlib import Path

from tensorboardX import SummaryWriter

from study.records.store import Records
from study.runtime.scratch import scratch_folder
from study.trial.spec import FinishedTrial

SCALARS = ("reconstruction_error", "attack_accuracy", "excess_leakage", "ssim", "seconds_attack")
"""Columns of the records that become scalars, with the attacker in the tag and the seed as the step."""


class TensorBoard:
    """Logs the trials that finish in this run; earlier runs have logged theirs."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def finished(self, done: FinishedTrial) -> None:
        if done.before:
            return
        knobs = {k: v for k, v in done.knobs.items() if v is not None}
        objectives = {k: v for k, v in done.outcome.items() if v is not None and math.isfinite(v)}
        with scratch_folder("tb") as scratch:
            with SummaryWriter(scratch) as writer:
                for row in done.rows:
                    for name in SCALARS:
                        if row.get(name) is not None:
                            writer.add_scalar(f"{name}/{row['attack']}", row[name], int(row["seed"]))
                for name, value in objectives.items():
                    writer.add_scalar(f"objective/{name}", value, 0)
                writer.add_hparams({"defense": done.defense, **knobs}, objectives, name=".")
            for path in sorted(Path(scratch).rglob("events.*")):
                self._records.storage.write(
                    f"{self._records.study}/tensorboard/{done.trial}/{path.name}", path.read_bytes()
                )

    def close(self) -> None:
        """Nothing is open between trials."""
