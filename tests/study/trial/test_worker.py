"""A trial gives the same records on one rank and on several, and failures become records."""

from __future__ import annotations

import dataclasses
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mipoison import scene as scenes_module
from mipoison.defenses.lpa import LPA
from mipoison.defenses.noise import TangentNoise
from mipoison.deployment import PARTS
from mipoison.scene import SceneConfig
from mipoison.service import DefendedService, chunk_count
from study.records.schema import to_table
from study.trial import worker
from study.trial.spec import TrialResult
from study.trial.worker import run_trial
from tests.study.trial.helpers import (
    DEFENDED,
    Record,
    break_attack,
    expect_same,
    measured,
    scene,
    spec_of,
)

TIMEOUT_S = 30


# ---------------------------------------------------------------- groups for tests


class Baton:
    """Ranks as threads, one of which runs at a time, since global random state is not thread safe."""

    def __init__(self, size: int) -> None:
        self.size, self.values, self.turn = size, [[] for _ in range(size)], 0
        self.running = threading.Lock()
        self.meeting = threading.Barrier(size)

    def run(self, work: Callable[[Any], TrialResult]) -> list[TrialResult | BaseException]:
        out: list[Any] = [None] * self.size

        def one(rank: int) -> None:
            with self.running:
                try:
                    out[rank] = work(_Rank(self, rank))
                except BaseException as error:
                    out[rank] = error
                    self.meeting.abort()  # otherwise the other ranks would wait for it

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return out


@dataclasses.dataclass
class _Rank:
    baton: Baton
    rank: int
    gathers: int = 0

    @property
    def size(self) -> int:
        return self.baton.size

    def gather(self, value: Any) -> list[Any]:
        turn, self.gathers = self.gathers, self.gathers + 1
        self.baton.values[self.rank].append(pickle.dumps(value))  # as between processes
        self.baton.running.release()
        try:
            self.baton.meeting.wait(TIMEOUT_S)
        finally:
            self.baton.running.acquire()
        return [pickle.loads(values[turn]) for values in self.baton.values]


# ---------------------------------------------------------------- records do not depend on the ranks


def test_records_are_in_the_order_of_the_episodes(alone: dict[str, TrialResult]) -> None:
    for name, result in alone.items():
        assert [(r["seed"], r["attack"]) for r in result.records] == [
            (0, "passive"), (0, "label-only"), (1, "passive"), (1, "label-only"),
        ]  # fmt: skip
        assert {r["status"] for r in result.records} == {"ok"}
        assert {r["defense"] for r in result.records} == {name}
        assert len({r["episode_id"] for r in result.records}) == 4
        assert set(result.pictures) == {"truth", "passive", "label-only"}
        assert {(p.shape, p.dtype) for p in result.pictures.values()} == {
            ((10, 1, 16, 16), np.dtype(np.uint8))
        }
        to_table(
            [r | {"study": "s", "trial": "t", "attempt": 0} for r in result.records]
        )  # every column is in the schema


@pytest.mark.parametrize("defense", DEFENDED)
def test_three_ranks_give_the_records_of_one(root: Path, alone: dict[str, TrialResult], defense: str) -> None:
    results = Baton(3).run(lambda group: run_trial(spec_of(root, defense, DEFENDED[defense]), group))
    for result in results:
        assert isinstance(result, TrialResult), result
        expect_same(result, alone[defense])


def test_more_ranks_than_work(root: Path, alone: dict[str, TrialResult]) -> None:
    spec = spec_of(root, "noise", DEFENDED["noise"], attackers=("passive",), scenes=(scene(0),))
    for result in Baton(5).run(lambda group: run_trial(spec, group)):
        assert isinstance(result, TrialResult), result
        assert measured(result.records) == measured(alone["noise"].records[:1])


def test_no_chunk_is_poisoned_twice_and_no_attack_trained_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks: list[tuple[float, int]] = []
    attacks: list[str] = []
    release_chunks, attack_and_measure = DefendedService.release_chunks, worker.attack_and_measure

    def counted_chunks(self: DefendedService, x_NCHW: torch.Tensor, which: Any, **more: Any) -> Any:
        chunks.extend((float(x_NCHW.sum()), k) for k in which)
        return release_chunks(self, x_NCHW, which, **more)

    def counted_attack(episode: Any, *args: Any) -> Any:
        attacks.append(episode.episode_id)
        return attack_and_measure(episode, *args)

    monkeypatch.setattr(DefendedService, "release_chunks", counted_chunks)
    monkeypatch.setattr(worker, "attack_and_measure", counted_attack)
    spec = spec_of(root, "noise", {"budget": 0.02})
    Baton(2).run(lambda group: run_trial(spec, group))
    assert sorted(attacks) == sorted(e.episode_id for e in spec.episodes())
    for flat in spec.scenes:
        split = scenes_module.scene_for(SceneConfig(**flat), str(root), None).split
        for part in PARTS:
            x_NCHW = getattr(split, part).x_NCHW
            released = [k for total, k in chunks if total == float(x_NCHW.sum())]
            assert sorted(released) == list(range(chunk_count(len(x_NCHW))))


def expect_failed(record: Record, error: str) -> None:
    assert record["status"] == "failed"
    assert record["error"] == error
    assert record["split"]
    assert not any(
        record.get(k) is not None
        for k in ("reconstruction_error", "attack_accuracy", "ssim", "model_accuracy")
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_failing_attack_fails_its_episode_alone(
    root: Path, alone: dict[str, TrialResult], monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    break_attack(monkeypatch, "label-only", RuntimeError("diverged\nsecond line"))
    for result in Baton(ranks).run(lambda group: run_trial(spec_of(root, "noise", DEFENDED["noise"]), group)):
        assert isinstance(result, TrialResult), result
        assert [r["status"] for r in result.records] == ["ok", "failed", "ok", "failed"]
        assert measured(result.records[::2]) == measured(alone["noise"].records[::2])
        for record in result.records[1::2]:
            expect_failed(record, "RuntimeError: diverged")
        assert set(result.pictures) == {"truth", "passive"}


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_failing_fit_fails_all_its_episodes(
    root: Path, monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    def fail(self: LPA, view: Any, *, rng: Any) -> None:
        raise MemoryError("no substitute fits")

    monkeypatch.setattr(LPA, "fit", fail)
    for result in Baton(ranks).run(lambda group: run_trial(spec_of(root, "lpa", {"budget": 0.05}), group)):
        assert isinstance(result, TrialResult), result
        assert len(result.records) == 4
        for record in result.records:
            expect_failed(record, "MemoryError: no substitute fits")


def test_failing_poisoning_fails_all_its_episodes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: TangentNoise, *args: Any, **more: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(TangentNoise, "protect", fail)
    for result in Baton(2).run(lambda group: run_trial(spec_of(root, "noise", {"budget": 0.03}), group)):
        assert isinstance(result, TrialResult), result
        for record in result.records:
            expect_failed(record, "RuntimeError: out of memory")


def test_a_fit_that_fails_on_one_rank_alone_fails_the_trial_on_all(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error on one rank only, such as a GPU without memory: the ranks must agree on the seeds that run."""
    fit, failing = TangentNoise.fit, threading.local()

    def fail(self: TangentNoise, view: Any, *, rng: Any) -> None:
        if failing.rank == 1:
            raise MemoryError("on rank 1")
        fit(self, view, rng=rng)

    def work(group: Any) -> TrialResult:
        failing.rank = group.rank
        return run_trial(spec_of(root, "noise", {"budget": 0.04}), group)

    monkeypatch.setattr(TangentNoise, "fit", fail)
    for result in Baton(2).run(work):
        assert isinstance(result, TrialResult), repr(result)
        for record in result.records:
            expect_failed(record, "MemoryError: on rank 1")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_measurement_that_is_no_number_fails_the_episode(
    root: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    measure = worker.attack_and_measure

    def poisoned(episode: Any, *args: Any) -> Any:
        record, reconstructions = measure(episode, *args)
        return record | ({"ssim": value} if episode.attack == "passive" else {}), reconstructions

    monkeypatch.setattr(worker, "attack_and_measure", poisoned)
    result = run_trial(spec_of(root, scenes=(scene(0),)))
    expect_failed(result.records[0], f"FloatingPointError: ssim = {value}: not finite")
    assert result.records[1]["status"] == "ok"
    monkeypatch.setattr(worker, "attack_and_measure", measure)
    assert (
        run_trial(spec_of(root, scenes=(scene(0),))).records[0]["status"] == "ok"
    )  # a failed episode is not stored as finished


def test_a_scene_that_cannot_be_prepared_fails_its_seed_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = worker.scene_for

    def fail(config: SceneConfig, *args: Any) -> Any:
        if config.seed == 1:
            raise OSError("disk gone")
        return real(config, *args)

    monkeypatch.setattr(worker, "scene_for", fail)
    records = run_trial(spec_of(root, attackers=("passive",))).records
    assert [r["status"] for r in records] == ["ok", "failed"]
    assert records[1]["error"] == "OSError: disk gone"
    assert records[1]["split"] is None
