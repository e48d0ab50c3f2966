"""Names of versions before 0.1.0 that were renamed since still import from their old places."""

import importlib
import warnings

import pytest


@pytest.mark.parametrize(
    ("old", "present"),
    [
        ("study.crew.WorkerGroup", "study.executors.worker_group.WorkerGroup"),
        ("study.cut.cut_record", "study.search.pruning.pruned_record"),
        ("study.driver.cut_share", "study.session.driver.pruned_counts"),
        ("study.group.Alone", "study.trial.ranks.SingleRank"),
        ("study.tally.Tally", "study.executors.progress_actor.ProgressActor"),
        ("study.tally.count_progress", "study.executors.progress_actor.count_progress"),
        ("study.trial.execute", "study.trial.run.run_and_record"),
        ("study.trial.relate_to_anchors", "study.trial.run.relate_to_anchors"),
        ("study.tuning.TrialErrors", "study.executors.tune.TrialErrors"),
        ("study.tuning.Driver", "study.executors.tune.TuneSearcher"),
        ("study.worker.failed_trial", "study.trial.worker.failed_trial"),
    ],
)
def test_a_renamed_name_still_imports(old: str, present: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = [
            getattr(importlib.import_module(module), name)
            for module, _, name in (dotted.rpartition(".") for dotted in (old, present))
        ]
    assert found[0] is found[1]
