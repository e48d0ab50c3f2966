"""The loop over trials: order, callbacks, and the effect of each kind of failure, for all of its users."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from mipoison.storage.files import Storage, StorageError
from study.executors.base import Ask, Tell
from study.executors.local import LocalExecutor
from study.paper.experiments import PaperRow
from study.paper.run import records_for, run_rows
from study.records.constraints import Constraints
from study.records.store import ProgressCallback, Records, no_progress
from study.session.callbacks import Callback, StudyProgress
from study.session.driver import run_study
from study.session.loop import FixedTrials, TrialLoop
from study.session.opening import open_study
from study.session.reevaluation import held_out_scenes, reevaluate
from study.session.study import Study, template_of
from study.settings.study_settings import StudySettings
from study.trial.failure import FailureKind, TrialFailure
from study.trial.preparation import prepare_scene
from study.trial.run import run_and_record
from study.trial.spec import FinishedTrial, TrialResult, TrialSpec

TINY: dict[str, Any] = dict(
    seeds=1,
    limit=100,
    victim_steps=30,
    decoder_steps=20,
    decoder_width=4,
    defenses=("noise", "rounding"),
    attackers=("passive",),
    executor="local",
    name="s",
)
AWAY = TrialFailure(kind=FailureKind.STORAGE, message="storage 'x': cannot write: away")
LOST = TrialFailure(kind=FailureKind.MACHINE, message="the trial's process was lost; 4 times")
BUG = TrialFailure(kind=FailureKind.SETTING, message="ValueError: too small")


class Ending(LocalExecutor):
    """An executor that runs the anchors and lets given trials fail in given ways; the others run."""

    def __init__(self, *ends: TrialFailure | None, anchors: Exception | None = None) -> None:
        self.ends, self.specs, self._anchors = list(ends), list[TrialSpec](), anchors

    def anchors(
        self, specs: list[TrialSpec], on_progress: ProgressCallback = no_progress
    ) -> list[TrialResult]:
        if self._anchors is not None:
            raise self._anchors
        return super().anchors(specs, on_progress)

    def search(self, n: int, ask: Ask, tell: Tell) -> None:
        for _ in range(n):
            spec = ask()
            if spec is None:
                return
            self.specs.append(spec)
            end = self.ends.pop(0) if self.ends else None
            tell(spec, run_and_record(spec) if end is None else end)


class Heard(Callback):
    """Records the calls."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_start(self) -> None:
        self.events.append("start")

    def on_resume(self, trials: Sequence[FinishedTrial]) -> None:
        self.events.append(("resume", sorted(t.trial for t in trials if t.before)))

    def on_anchors_started(self, names: Sequence[str], seeds: int) -> None:
        self.events.append(("anchors", *names, seeds))

    def on_anchor_finished(self, trial: FinishedTrial) -> None:
        self.events.append(trial.trial)

    def on_trials_started(self, progress: StudyProgress, max_concurrent: int) -> None:
        self.events.append(("trials", progress.planned, progress.done, max_concurrent))

    def on_trial_started(self, spec: TrialSpec, progress: StudyProgress) -> None:
        self.events.append(("began", spec.trial, progress.running))

    def on_trial_finished(self, trial: FinishedTrial, progress: StudyProgress) -> None:
        self.events.append(("ended", trial.trial, progress.done, progress.failed, len(trial.rows)))

    def on_end(self) -> None:
        self.events.append("end")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage root with both anchors, and with the models of the searched seed and a held-out one."""
    root = tmp_path_factory.mktemp("prepared")
    settings = StudySettings(**TINY)
    for scene in (*settings.scenes(), *held_out_scenes(settings, 1)):
        prepare_scene(scene.flat(), str(root), None)
    run_study(opened(root, trials=0), LocalExecutor())
    return root


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "root"))


def opened(root: Path, **changes: Any) -> Study:
    return open_study(StudySettings(**TINY | {"storage": str(root)} | changes), Console(file=io.StringIO()))


def resumed(root: Path, trials: int) -> Study:
    return opened(root, resume=True, trials=trials)


# ---------------------------------------------------------------- order


def test_callbacks_hear_everything_in_order(root: Path) -> None:
    shutil.rmtree(root / "s")
    heard = Heard()
    run_study(opened(root, trials=1), LocalExecutor(), [heard])
    assert heard.events == [
        "start",
        ("resume", []),
        ("anchors", "label-only", "none", 1),
        "label-only",
        "none",
        ("trials", 1, 0, 1),
        ("began", "t0001-noise", 1),
        ("ended", "t0001-noise", 1, 0, 1),
        "end",
    ]
    heard = Heard()
    run_study(resumed(root, 2), LocalExecutor(), [heard])
    assert heard.events[:3] == [
        "start",
        ("resume", ["label-only", "none", "t0001-noise"]),
        ("trials", 2, 1, 1),
    ]
    assert heard.events[-1] == "end"


def test_the_end_is_heard_however_it_comes(root: Path) -> None:
    heard = Heard()

    class Interrupted(LocalExecutor):
        def search(self, n: int, ask: Ask, tell: Tell) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(resumed(root, 1), Interrupted(), [heard])
    assert heard.events[-1] == "end"


def test_given_trials_run_in_order_and_no_more(root: Path) -> None:
    settings = StudySettings(**TINY | {"storage": str(root)})
    records = Records(Storage(root), "s")
    template = template_of(settings, records)
    specs = [template.spec(f"x{i}", "rounding", {"decimals": i}) for i in (3, 1, 2)]
    search, executor = FixedTrials(records, [], specs), Ending(BUG, BUG, BUG)
    TrialLoop(executor).run(search, 5)
    assert [spec.trial for spec in executor.specs] == ["x3", "x1", "x2"]
    assert (search.progress().done, search.progress().failed, search.progress().running) == (3, 3, 0)


# ---------------------------------------------------------------- failures, alike for all users of the loop


def search_trials(root: Path, executor: Ending) -> pd.DataFrame:
    return run_study(resumed(root, 2), executor)


def search_held_out(root: Path, executor: Ending) -> pd.DataFrame:
    """Two settings of a frontier on one held-out seed, and one that all attackers did not attack."""
    settings = [
        {"trial": "t0001-noise", "defense": "noise", "cut": False, "defense.budget": 0.1},
        {"trial": "t0002-rounding", "defense": "rounding", "cut": False, "defense.decimals": 2},
        {"trial": "t0003-noise", "defense": "noise", "cut": True, "defense.budget": 0.2},  # not run again
    ]
    return reevaluate(resumed(root, 0), settings, executor, 1)


def search_paper(root: Path, executor: Ending) -> pd.DataFrame:
    """Two rows of a table, on the tests' data set."""
    rows = [
        PaperRow("I", "digits", name, (), "passive", paper=(("reconstruction_error", 1.0),))
        for name in ("none", "noise", "rounding")
    ]
    given = TINY | {"storage": str(root), "auxiliary": "disjoint", "trials": 0, "name": None}
    records = records_for(str(root), "digits")
    console = Console(file=io.StringIO())
    run_rows(StudySettings(**given), "digits", records=records, rows=rows, executor=executor, console=console)
    return records.read()


USERS = pytest.mark.parametrize("user", [search_trials, search_held_out, search_paper])
User = Callable[[Path, Ending], pd.DataFrame]


@USERS
def test_a_storage_failure_leaves_the_trial_unfinished_and_ends_the_loop(root: Path, user: User) -> None:
    with pytest.raises(StorageError, match=r"^storage 'x': cannot write: away$"):
        user(root, first := Ending(AWAY))
    assert len(first.specs) == 1  # the loop asked for no further trial
    spec = first.specs[0]
    records = Records(Storage(spec.root), spec.study)
    assert spec.trial not in records.finished()
    frame = user(root, again := Ending())
    assert spec.trial in [s.trial for s in again.specs]
    assert set(frame["status"]) == {"ok"}
    assert frame["episode_id"].is_unique


@USERS
@pytest.mark.parametrize(("failure", "error"), [(LOST, "lost; 4 times"), (BUG, "ValueError: too small")])
def test_other_failures_are_recorded_and_the_loop_goes_on(
    root: Path, user: User, failure: TrialFailure, error: str
) -> None:
    frame = user(root, executor := Ending(failure))
    assert len(executor.specs) == 2
    first, second = (frame[frame["trial"] == spec.trial] for spec in executor.specs)
    assert set(first["status"]) == {"failed"}
    assert set(first["error"]) == {f"LostError: {failure.message}"}
    assert first["error"].str.endswith(error).all()
    assert set(second["status"]) == {"ok"}


@USERS
def test_anchors_that_a_storage_failure_ends_are_unfinished(tmp_path: Path, user: User) -> None:
    if user is not search_paper:  # these resume a study
        opened(tmp_path).begin([])
    wrapped = RuntimeError("a worker's trace")
    wrapped.__cause__ = StorageError("away")
    with pytest.raises(StorageError, match=r"^away$"):
        user(tmp_path, Ending(anchors=wrapped))
    assert list(tmp_path.rglob("*.parquet")) == []


def test_a_lost_trial_is_tried_again_by_a_resumed_study(root: Path) -> None:
    run_study(resumed(root, 1), Ending(LOST))
    study = resumed(root, 1)
    assert [(begun.trial, begun.attempt) for begun in study.unfinished] == [("t0001-noise", 0)]
    run_study(study, executor := Ending())
    assert [(s.trial, s.attempt) for s in executor.specs] == [("t0001-noise", 1)]
    assert resumed(root, 1).trials_left() == 0


def test_trials_that_run_may_end_after_a_storage_failure(root: Path) -> None:
    """With two trials at a time the first has a storage failure; the second is still recorded."""

    class TwoAtOnce(Ending):
        def search(self, n: int, ask: Ask, tell: Tell) -> None:
            first, second = ask(), ask()
            assert first is not None
            assert second is not None
            tell(first, AWAY)
            assert ask() is None
            tell(second, run_and_record(second))
            self.specs += [first, second]

    study = resumed(root, 4)
    with pytest.raises(StorageError):
        run_study(study, executor := TwoAtOnce())
    first, second = executor.specs
    assert second.trial in study.records.finished()
    assert set(study.running) == {first.trial}
    assert [begun.trial for begun in resumed(root, 4).unfinished] == [first.trial]


def test_no_trial_starts_once_the_lease_is_lost(root: Path) -> None:
    study = resumed(root, 2)
    study.lease = SimpleNamespace(lost="study 's' is no longer this driver's")  # type: ignore[assignment]
    with pytest.raises(StorageError, match="no longer"):
        run_study(study, executor := Ending())
    assert executor.specs == []


# ---------------------------------------------------------------- one builder of specs


def test_a_spec_holds_what_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = StudySettings(
        **TINY | {"storage": str(tmp_path), "seeds": 2, "attackers": ("passive", "mlp"), "stacked": "on"},
        data_root=Path("data"),
        max_accuracy_drop=0.1,
        min_top2_agreement=0.5,
    )
    template = template_of(settings, Records(Storage(tmp_path), "s"))
    spec = template.spec("t0001-noise", "noise", {"budget": 0.1}, attempt=2, floor=(1.0, 0.5, 0.1))
    assert spec == TrialSpec(
        study="s",
        constraints=Constraints(max_accuracy_drop=0.1, min_top2_agreement=0.5).flat(),
        trial="t0001-noise",
        attempt=2,
        defense="noise",
        knobs={"budget": 0.1},
        attackers=("mlp", "passive"),  # in order of cost
        scenes=tuple(scene.flat() for scene in settings.scenes()),
        root=str(tmp_path),
        data_root=str(tmp_path / "data"),
        floor=(1.0, 0.5, 0.1),
        stacked="on",
    )
    other = template.spec("x", "none", {}, attackers=("ridge",))
    assert (other.attackers, other.attempt, other.floor) == (("ridge",), 0, None)
    assert dataclasses.replace(template, data_root=None).spec("x", "none", {}).data_root is None
