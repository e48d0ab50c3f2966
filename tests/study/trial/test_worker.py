"""A trial gives the same records on one rank and on several, and failures become records."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mipoison import scene as scenes_module
from mipoison.attacks.decoder import Decoder
from mipoison.defenses.lpa import LPA
from mipoison.defenses.noise import TangentNoise
from mipoison.deployment import PARTS
from mipoison.metrics import CHECKS
from mipoison.scene import SceneConfig
from mipoison.service import DefendedService, chunk_count
from mipoison.storage.artifacts import ArtifactStore
from study.records.schema import to_table
from study.trial import worker
from study.trial.preparation import prepare_scene
from study.trial.ranks import TorchGroup
from study.trial.run import outcome_of, relate_to_anchors
from study.trial.spec import TrialResult, TrialSpec
from study.trial.worker import failed_trial, run_trial

SEEDS = (0, 1)
TIMEOUT_S = 30
Record = dict[str, Any]


def scene(seed: int) -> dict[str, Any]:
    return SceneConfig(
        seed=seed,
        limit=150,
        victim_width=8,
        victim_hidden=16,
        victim_steps=30,
        decoder_width=4,
        decoder_steps=20,
    ).flat()


def spec_of(
    root: Path, defense: str = "noise", knobs: dict[str, Any] | None = None, **more: Any
) -> TrialSpec:
    values: dict[str, Any] = dict(
        study="s",
        max_accuracy_drop=0.02,
        trial="t0001-x",
        attempt=0,
        defense=defense,
        knobs=knobs or {},
        attackers=("passive", "label-only"),
        scenes=tuple(scene(s) for s in SEEDS),
        root=str(root),
        data_root=None,
    )
    return TrialSpec(**values | more)


def measured(records: list[Record]) -> list[Record]:
    """Records without the columns that differ between runs."""
    cost = ("seconds_", "peak_memory_mb")
    return [
        {k: v for k, v in r.items() if not k.startswith(cost) and not k.endswith("_ms_per_sample")}
        for r in records
    ]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage root with both seeds' victims, evaluators and substitutes, without episodes."""
    root = tmp_path_factory.mktemp("prepared")
    for seed in SEEDS:
        prepare_scene(scene(seed), str(root), None)
    return root


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "root"))


@pytest.fixture(scope="module")
def alone(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrialResult]:
    """The results of several defenses on one rank."""
    root = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("alone") / "root"))
    return {name: run_trial(spec_of(root, name, knobs)) for name, knobs in DEFENDED.items()}


DEFENDED: dict[str, dict[str, Any]] = {
    "noise": {"budget": 0.05, "randomness": "fresh"},
    "lpa": {"budget": 0.05, "rounds": 2},
}


def expect_same(one: TrialResult, other: TrialResult) -> None:
    assert measured(one.records) == measured(other.records)
    assert set(one.pictures) == set(other.pictures)
    for name, picture in one.pictures.items():
        np.testing.assert_array_equal(picture, other.pictures[name])


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


def gloo_rank(rank: int, size: int, folder: str, spec: TrialSpec) -> None:
    """One process of a real process group; at module level, so that it can be spawned."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/meet", size)
    timeout = timedelta(seconds=4 * TIMEOUT_S)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)
    result = run_trial(spec, TorchGroup())
    Path(folder, f"rank{rank}").write_bytes(pickle.dumps(result))
    torch.distributed.destroy_process_group()


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


def test_two_processes_give_the_records_of_one(
    root: Path, tmp_path: Path, alone: dict[str, TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    spec = spec_of(root, "lpa", DEFENDED["lpa"])
    other = torch.multiprocessing.get_context("spawn").Process(
        target=gloo_rank, args=(1, 2, str(tmp_path), spec)
    )
    other.start()
    try:
        gloo_rank(0, 2, str(tmp_path), spec)
        other.join(TIMEOUT_S)
        assert other.exitcode == 0
    finally:
        other.kill()
    for rank in range(2):
        expect_same(pickle.loads((tmp_path / f"rank{rank}").read_bytes()), alone["lpa"])


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


# ---------------------------------------------------------------- failures


def break_attack(monkeypatch: pytest.MonkeyPatch, view: str, error: BaseException) -> None:
    fit = Decoder.fit

    def fail(self: Decoder, *args: Any, **more: Any) -> None:
        if self.config.view == view:
            raise error
        fit(self, *args, **more)

    monkeypatch.setattr(Decoder, "fit", fail)


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


# ---------------------------------------------------------------- nothing is repeated


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The kinds of the artifacts that are made from now on."""
    found: list[str] = []
    store = ArtifactStore._store

    def seen(self: ArtifactStore, kind: str, *args: Any) -> None:
        found.append(kind)
        store(self, kind, *args)

    monkeypatch.setattr(ArtifactStore, "_store", seen)
    scenes_module._remembered.cache_clear()
    yield found
    scenes_module._remembered.cache_clear()


def test_a_second_run_reads_everything_back(
    root: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(root, "lpa", DEFENDED["lpa"])
    first = run_trial(spec)
    assert sorted(made) == ["episode"] * 4  # the models existed
    made.clear()
    scenes_module._remembered.cache_clear()
    monkeypatch.setattr(worker, "attack_and_measure", None)
    monkeypatch.setattr(LPA, "fit", None)
    second = run_trial(dataclasses.replace(spec, trial="t0002-y", study="other", attempt=3))
    assert made == []
    assert all(
        scenes_module.scene_for(SceneConfig(**s), str(root), None).store.made == 0 for s in spec.scenes
    )
    assert second.records == first.records  # including the seconds
    expect_same(second, first)


def test_an_interrupted_trial_goes_on_where_it_was(
    root: Path, alone: dict[str, TrialResult], made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(root, "noise", DEFENDED["noise"])
    with monkeypatch.context() as patch:
        break_attack(patch, "label-only", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_trial(spec)
    assert made == ["episode"]
    expect_same(run_trial(spec), alone["noise"])
    assert made == ["episode"] * 4


def test_a_lost_trial_keeps_what_it_had_finished(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(root, "noise", {"budget": 0.06})
    with monkeypatch.context() as patch:
        break_attack(patch, "label-only", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_trial(spec)
    lost = failed_trial(spec, "WorkerCrashedError: killed")
    assert [r["status"] for r in lost.records] == ["ok", "failed", "failed", "failed"]
    assert {r["error"] for r in lost.records[1:]} == {"LostError: WorkerCrashedError: killed"}
    assert [r["episode_id"] for r in lost.records] == [e.episode_id for e in spec.episodes()]
    assert set(lost.pictures) == {"truth", "passive"}


# ---------------------------------------------------------------- columns across records


def made_up(
    defense: str, attack: str, seed: int, error: float | None, accuracy: float | None = 0.5, **more: Any
) -> Record:
    status = (
        {"status": "ok", "error": None}
        if error is not None
        else {"status": "failed", "error": "RuntimeError: x"}
    )
    return (
        {
            "episode_id": f"{defense}-{attack}-{seed}",
            "dataset": "digits",
            "auxiliary": "same",
            "split": f"split{seed}",
            "victim": f"victim{seed}",
            "seed": seed,
            "defense": defense,
            "attack": attack,
            "reconstruction_error": error,
            "attack_accuracy": accuracy,
            "reconstruction_skill": None if error is None else 1 - error / 0.08,
            "label_agreement": 1.0,
            "attack_set_label_agreement": 1.0,
            "confidence_distortion": 0.01,
            "attack_set_distortion": 0.01,
            "repeat_query_distance": 0.0,
            "model_accuracy": 0.95,
            "protected_accuracy": 0.94,
            "mean_image_error": 0.08,
            "n_classes": 5,
        }
        | status
        | more
    )


# Label-only: passive is the worse one by its mean (0.050 against 0.052), though not on seed 1.
FLOOR = [
    made_up("label-only", "passive", 0, 0.040, 0.6), made_up("label-only", "passive", 1, 0.060, 0.8),
    made_up("label-only", "raw", 0, 0.050, 0.1), made_up("label-only", "raw", 1, 0.054, 0.2),
]  # fmt: skip
BARE = [made_up("none", a, s, 0.030 + 0.001 * s, confidence_distortion=0.0, attack_set_distortion=0.0)
        for a in ("passive", "raw") for s in SEEDS]  # fmt: skip


def test_excess_is_over_the_floors_own_worst_attacker() -> None:
    records = [made_up("noise", "passive", 0, 0.030, 0.7), made_up("noise", "raw", 1, 0.066, 0.7)]
    first, second = relate_to_anchors(records, [*FLOOR, *BARE])
    assert first["excess_leakage"] == pytest.approx(1 - 0.030 / 0.040)
    assert first["excess_attack_accuracy"] == pytest.approx(0.7 - 0.6)
    assert second["excess_leakage"] == pytest.approx(1 - 0.066 / 0.060)
    assert second["excess_attack_accuracy"] == pytest.approx(0.7 - 0.8)
    assert "excess_leakage" not in records[0]  # the given records are not changed
    floor = relate_to_anchors(FLOOR, [*FLOOR, *BARE])
    assert [r["excess_leakage"] for r in floor[:2]] == [0.0, 0.0]
    assert floor[2]["excess_leakage"] == pytest.approx(1 - 0.050 / 0.040)


def test_a_floor_attacker_that_failed_on_a_seed_is_compared_on_the_others() -> None:
    """On seed 0, the only shared one, raw is the worse attacker, and so it is the reference of both seeds."""
    anchors = [
        made_up("label-only", "passive", 0, 0.055),
        made_up("label-only", "passive", 1, None, None),
        *FLOOR[2:],
    ]
    rows = relate_to_anchors([made_up("noise", "raw", s, 0.04) for s in SEEDS], anchors)
    assert [r["excess_leakage"] for r in rows] == pytest.approx([1 - 0.04 / 0.050, 1 - 0.04 / 0.054])


def test_without_a_floor_nothing_is_claimed() -> None:
    failed = [r | {"status": "failed", "reconstruction_error": None, "attack_accuracy": None} for r in FLOOR]
    for anchors in ([], BARE, [*failed, *BARE]):
        (row,) = relate_to_anchors([made_up("noise", "passive", 0, 0.04)], anchors)
        assert row.get("excess_leakage") is None
        assert row["check.below_label_only"] is None


def test_checks_are_filled() -> None:
    records = [
        made_up("noise", "passive", 0, 0.030),
        made_up(
            "noise", "raw", 0, 0.090, repeat_query_distance=0.1
        ),  # worse than the mean image, and than passive
        made_up("noise", "passive", 1, None, None),
    ]
    fine, bad, failed = relate_to_anchors(records, [*FLOOR, *BARE])
    for row in (fine, bad, failed):
        assert {k for k in row if k.startswith("check.")} == {f"check.{name}" for name in CHECKS}
    assert not any(v for k, v in fine.items() if k.startswith("check."))
    assert bad["check.no_better_than_mean_image"] is True
    assert bad["check.adaptive_weaker_than_passive"] is True
    assert bad["check.repeated_queries_differ"] is True
    assert bad["check.below_label_only"] is False  # the suite's passive attacker gets below the floor
    assert {v for k, v in failed.items() if k.startswith("check.")} == {None}
    assert "excess_leakage" not in failed

    (under_trained,) = relate_to_anchors([made_up("noise", "passive", 0, 0.043)], [*FLOOR, *BARE])
    assert under_trained["check.below_label_only"] is True
    same = dict(confidence_distortion=0.0, attack_set_distortion=0.0)
    zero = relate_to_anchors(
        [made_up("noise", "passive", 0, 0.030, **same), made_up("noise", "raw", 0, 0.031, **same)],
        [*FLOOR, *BARE],
    )
    assert [r["check.zero_budget_differs"] for r in zero] == [False, True]


# ---------------------------------------------------------------- what the search is told


def test_the_outcome_is_the_worst_case_over_the_suite() -> None:
    records = [
        made_up("noise", "passive", 0, 0.04, 0.9, confidence_distortion=0.1),
        made_up("noise", "passive", 1, 0.06, 0.7, confidence_distortion=0.3),
        made_up("noise", "raw", 0, 0.03, 0.6, confidence_distortion=0.1),
        made_up("noise", "raw", 1, 0.05, 0.8, confidence_distortion=0.3),
    ]
    outcome = outcome_of(records, 0.02)
    assert outcome == pytest.approx(
        {
            "confidence_distortion": 0.2,
            "worst_attack_accuracy": 0.8,  # passive, by the mean over the seeds
            "worst_reconstruction_error": 0.04,  # raw
            "accuracy_drop": 0.01,
            "episodes": 4,
            "failed": 0,
            "cut": 0,
        }
    )


def test_an_outcome_that_cannot_be_told_is_none() -> None:
    failed = [made_up("noise", a, s, None, None) for a in ("passive", "raw") for s in SEEDS]
    gone = dict.fromkeys(("confidence_distortion", "model_accuracy", "protected_accuracy"))
    outcome = outcome_of([r | gone for r in failed], 0.02)
    assert outcome["failed"] == outcome["episodes"] == 4
    assert {
        outcome[k]
        for k in (
            "confidence_distortion",
            "worst_attack_accuracy",
            "worst_reconstruction_error",
            "accuracy_drop",
        )
    } == {None}


def test_an_attacker_that_failed_on_every_seed_is_not_left_out() -> None:
    """Without its strongest attacker a setting would look protected, so its outcome has no objectives."""
    failed = [made_up("noise", "raw", s, None, None) for s in SEEDS]
    some = outcome_of([made_up("noise", "passive", s, 0.04) for s in SEEDS] + failed, 0.02)
    assert some["failed"] == 2
    assert some["worst_attack_accuracy"] is None
