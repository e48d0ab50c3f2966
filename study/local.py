"""Trials one after the other in this process: for debugging, and where there is no Ray. Same records."""

from __future__ import annotations

from study.driver import Ask, Done
from study.trial import execute
from study.worker import TrialResult, TrialSpec, prepare_scene, run_trial


class LocalExecutor:
    """No Ray, one lane."""

    lanes = 1

    def prepare(self, specs: list[TrialSpec]) -> None:
        for spec in specs:
            for scene in spec.scenes:
                prepare_scene(scene, spec.root, spec.data_root)

    def run(self, specs: list[TrialSpec]) -> list[TrialResult]:
        return [run_trial(spec) for spec in specs]

    def search(self, n: int, ask: Ask, done: Done) -> None:
        for _ in range(n):
            spec = ask()
            done(spec, execute(spec), None)
