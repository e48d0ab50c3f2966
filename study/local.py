"""Trials one after the other in this process: for debugging, and where there is no Ray. Same records."""

from __future__ import annotations

from study.driver import Ask, Done
from study.trial import execute
from study.worker import TrialResult, TrialSpec, after, prepare_scene, run_trial, scenes_of


class LocalExecutor:
    """No Ray, one lane."""

    lanes = 1

    def anchors(self, specs: list[TrialSpec]) -> list[TrialResult]:
        prepared = [prepare_scene(scene, specs[0].root, specs[0].data_root) for scene in scenes_of(specs)]
        return after(prepared, [run_trial(spec) for spec in specs])

    def close(self) -> None:
        pass

    def search(self, n: int, ask: Ask, done: Done) -> None:
        for _ in range(n):
            spec = ask()
            if spec is None:
                return
            done(spec, execute(spec), None)
