"""Runs trials one after the other in this process, without Ray: for debugging. The records are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mipoison.storage.files import StorageError
from study.executors.base import Ask, R, Tell
from study.records.store import ProgressCallback, no_progress
from study.trial.failure import TrialFailure
from study.trial.preparation import count_preparation, prepare_scene, scenes_of
from study.trial.run import run_and_record
from study.trial.spec import TrialResult, TrialSpec
from study.trial.worker import run_trial


class LocalExecutor:
    """Runs one trial at a time in this process. Programming errors are raised unchanged, for a debugger."""

    max_concurrent = 1

    def anchors(
        self, specs: list[TrialSpec], on_progress: ProgressCallback = no_progress
    ) -> list[TrialResult]:
        scenes = scenes_of(specs)
        parts = len(scenes) + len(specs)
        prepared, results = [], []
        for i, scene in enumerate(scenes):
            on_progress(i, parts)
            prepared.append(prepare_scene(scene, specs[0].root, specs[0].data_root))
        for i, spec in enumerate(specs):
            on_progress(len(scenes) + i, parts)
            results.append(run_trial(spec))
        return count_preparation(prepared, results)

    def each(self, work: Callable[[TrialSpec], R], specs: list[TrialSpec]) -> Iterator[R | Exception]:
        for spec in specs:
            try:
                result: R | Exception = work(spec)
            except Exception as error:
                result = error
            yield result

    def close(self) -> None:
        pass

    def search(self, n: int, ask: Ask, tell: Tell) -> None:
        for _ in range(n):
            spec = ask()
            if spec is None:
                return
            try:
                outcome = run_and_record(spec)
            except StorageError as error:
                tell(spec, TrialFailure.of(error))
            else:
                tell(spec, outcome)
