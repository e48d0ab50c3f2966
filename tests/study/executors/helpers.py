"""A trial that is described and never run, and whom it would be given to."""

from __future__ import annotations

from study.executors.worker_group import WorkerGroup
from study.records.constraints import Constraints
from study.trial.spec import TrialSpec

SPEC = TrialSpec(
    study="s",
    constraints=Constraints().flat(),
    trial="t0001-noise",
    attempt=0,
    defense="noise",
    knobs={"budget": 0.1},
    attackers=("passive",),
    scenes=(),
    root="unused",
    data_root=None,
)
CREW = WorkerGroup(0, 1, 0, True)
