"""Episodes: one flat record, the same numbers again, and attackers that get what the threat model says."""

import dataclasses
import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from mipoison.attacks import ATTACKS
from mipoison.attacks.decoder import DecoderConfig
from mipoison.certificates import COLUMNS
from mipoison.config import Config, ConfigError
from mipoison.defenses import DEFENSES
from mipoison.defenses.lpa import LPAConfig
from mipoison.defenses.noise import NoiseConfig
from mipoison.deployment import PARTS, deploy, finish_release, release
from mipoison.episode import (
    EpisodeConfig,
    at_scale,
    attack_and_measure,
    attack_once,
    failed_record,
    run_episode,
)
from mipoison.metrics.estimated_limit import ESTIMATED_LIMIT_COLUMNS, SPACES, contributions
from mipoison.metrics.identification import IDENTIFICATION_COLUMNS, identification
from mipoison.metrics.ranking import tail_rank_correlation
from mipoison.metrics.scoring import SCORING_COLUMNS, log_loss
from mipoison.metrics.written_image import WRITTEN_COLUMNS
from mipoison.protocols import Oracle, ThreatModel
from mipoison.scene import Scene, SceneConfig, prepare
from mipoison.service import chunk_count
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage
from tests.mipoison.defenses.helpers import few_starts

CPU = torch.device("cpu")

MEASURED = [
    "model_accuracy",
    "protected_accuracy",
    "confidence_distortion",
    "label_agreement",
    "kl",
    "ece",
    "rank_correlation",
    "attack_accuracy",
    "cycle_accuracy",
    "open_accuracy",
    "reconstruction_error",
    "reconstruction_skill",
    "ssim",
    "clean_attack_accuracy",
    "clean_reconstruction_error",
    "tail_rank_correlation",
    "top2_agreement",
    *SCORING_COLUMNS,
    *ESTIMATED_LIMIT_COLUMNS,
    *IDENTIFICATION_COLUMNS,
    "poison_ms_per_sample",
    "inference_ms_per_sample",
    "seconds_prepare",
    "seconds_poison",
    "seconds_attack",
    "seconds_evaluate",
    "peak_memory_mb",
]
NULLABLE = [
    "reconstruction_error_paper_scale",
    "top5_agreement",
    "alignment_before",
    "alignment_after",
    "error",
]
IDENTITY = [
    "episode_id",
    "dataset",
    "auxiliary",
    "split",
    "seed",
    "victim",
    "defense",
    "attack",
    "status",
    "device",
    "versions",
]
SHARES = [
    "model_accuracy",
    "protected_accuracy",
    "label_agreement",
    "attack_accuracy",
    "attack_accuracy_test",
    "cycle_accuracy",
    "open_accuracy",
    "evaluator_accuracy",
    "clean_attack_accuracy",
]

GOLDEN_SPLIT = "e5476bd529088dd8"
GOLDEN_SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "noise": {"budget": 0.1},
    "lpa": {"budget": 0.1, "rounds": 3, "search": "descent"},
    "lfp": {"picks": "request"},
}
GOLDEN_ATTACK = DecoderConfig(features="raw", steps=120)
GOLDEN: dict[str, dict[str, float | None]] = {
    "none": {
        "confidence_distortion": 0,
        "attack_set_distortion": 0,
        "kl": 0,
        "ece": 0.10770163,
        "rank_correlation": 1,
        "mean_image_error": 0.074660884,
        "reconstruction_error": 0.047199397,
        "reconstruction_error_test": 0.043703448,
        "reconstruction_skill": 0.36781626,
        "attack_accuracy": 0.99,
        "cycle_accuracy": 1,
        "ssim": 0.58298157,
        "clean_reconstruction_error": 0.047199397,
        "alignment_before": None,
        "alignment_after": None,
    },
    "noise": {
        "confidence_distortion": 0.066746622,
        "attack_set_distortion": 0.067900944,
        "kl": 0.52297616,
        "ece": 0.12714734,
        "rank_correlation": 0.66641432,
        "mean_image_error": 0.074660884,
        "reconstruction_error": 0.04918449,
        "reconstruction_error_test": 0.044935055,
        "reconstruction_skill": 0.34122814,
        "attack_accuracy": 0.99,
        "cycle_accuracy": 1,
        "ssim": 0.57633852,
        "clean_reconstruction_error": 0.048021135,
        "alignment_before": None,
        "alignment_after": None,
    },
    "lpa": {
        "confidence_distortion": 0.073154884,
        "attack_set_distortion": 0.071468531,
        "kl": 0.42129448,
        "ece": 0.11991108,
        "rank_correlation": 0.60439857,
        "mean_image_error": 0.074660884,
        "reconstruction_error": 0.048728229,
        "reconstruction_error_test": 0.044834413,
        "reconstruction_skill": 0.34733925,
        "attack_accuracy": 1,
        "cycle_accuracy": 1,
        "ssim": 0.57724201,
        "clean_reconstruction_error": 0.047675495,
        "alignment_before": -0.28347939,
        "alignment_after": -0.20277448,
    },
    "lfp": {
        "confidence_distortion": 0.037367846,
        "attack_set_distortion": 0.046712669,
        "kl": 0.11536988,
        "ece": 0.12110188,
        "rank_correlation": 0.928,
        "mean_image_error": 0.074660884,
        "reconstruction_error": 0.050665955,
        "reconstruction_error_test": 0.047064272,
        "reconstruction_skill": 0.32138555,
        "attack_accuracy": 0.95,
        "cycle_accuracy": 0.95,
        "ssim": 0.56752014,
        "clean_reconstruction_error": 0.04807098,
        "alignment_before": -0.98230302,
        "alignment_after": -0.9710446,
    },
}
ALIGNED = {name for name in DEFENSES if name.startswith("lpa")} - {"lpa-amortised"} | {"lfp", "poi-mse"}
"""Defenses that have a target to be aligned with; the amortised one turns away from its own answers."""
ALWAYS_FRESH = {"noise-fresh"}
"""Defenses whose answers to one query differ by default."""
SENSITIVE = {"attack_set_distortion", "kl", "ece", "alignment_before", "alignment_after"}
"""Columns in which small scores speak: another convolution kernel or thread count moves them by up to 4e-4,
and the others by 2e-5 (measured: two threads; oneDNN off)."""
SENSITIVE_TOLERANCE = 2e-3
STEP_TOLERANCE = {"rank_correlation": 0.02, "alignment_after": 0.01}
"""Absolute, for columns that jump: two scores of one row that are zero but for rounding swap their ranks or
change which constraint of the projection binds (seen with another processor and torch: 0.004 and 0.003)."""


def is_cost(column: str) -> bool:
    return column.startswith("seconds_") or column.endswith("_ms_per_sample") or column == "peak_memory_mb"


def episode(
    scene: SceneConfig, defense: str = "noise", attack: str = "passive", **changes: Any
) -> EpisodeConfig:
    return EpisodeConfig(
        scene=scene,
        defense=defense,
        defense_config=DEFENSES[defense](**changes),
        attack=attack,
        attack_config=ATTACKS[attack],
    )


def numbers(record: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if not is_cost(k)}


@pytest.fixture(scope="module")
def records(tiny_config: SceneConfig, tiny_scene: Scene) -> dict[str, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        few_starts(patch)
        return {name: run_episode(episode(tiny_config, name), tiny_scene) for name in DEFENSES}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """For episodes that are compared with ``records``."""
    few_starts(monkeypatch)


# ------------------------------------------------------------------------------------------ golden numbers


@pytest.fixture(scope="module")
def golden_records(tiny_config: SceneConfig, tiny_scene: Scene) -> dict[str, dict[str, Any]]:
    """A decoder that learns, and in which rounding errors do not grow (log features amplify them)."""
    out = {}
    for name, changes in GOLDEN_SETTINGS.items():
        config = dataclasses.replace(
            episode(tiny_config, name, **changes), attack_config=at_scale(GOLDEN_ATTACK, tiny_config)
        )
        out[name] = run_episode(config, tiny_scene)
    return out


@pytest.mark.parametrize("defense", GOLDEN_SETTINGS)
def test_golden_episode(golden_records: dict[str, dict[str, Any]], defense: str) -> None:
    """Pinned numbers: a refactoring that changes one has changed what is measured.

    Where a change is meant, print the record of this episode and say in the log why it moved. The tolerance
    is what another build of torch changes (2.14 against 2.15: up to 1e-4).
    """
    record = golden_records[defense]
    assert record["split"] == GOLDEN_SPLIT
    for column, value in GOLDEN[defense].items():
        tolerance = SENSITIVE_TOLERANCE if column in SENSITIVE else 1e-3
        step = STEP_TOLERANCE.get(column, 1e-12)
        expected = None if value is None else pytest.approx(value, rel=tolerance, abs=step)
        assert record[column] == expected, column


def test_golden_episodes_tell_defenses_apart(golden_records: dict[str, dict[str, Any]]) -> None:
    """The pins would be worth little if every defense had the same numbers."""
    errors = {name: record["reconstruction_error"] for name, record in golden_records.items()}
    values = sorted(errors.values())
    assert errors["none"] == values[0]
    assert all(b / a > 1.001 for a, b in itertools.pairwise(values))
    assert golden_records["none"]["reconstruction_skill"] > 0.3


@pytest.mark.usefixtures("few")
def test_a_repeated_run_is_bit_identical(
    tiny_config: SceneConfig, tiny_scene: Scene, records: dict[str, dict[str, Any]]
) -> None:
    for defense in ("noise", "lpa", "lfp"):
        again = run_episode(episode(tiny_config, defense), tiny_scene)
        assert numbers(again) == numbers(records[defense])


@pytest.mark.usefixtures("few")
def test_a_run_from_an_empty_store_is_bit_identical(
    tiny_config: SceneConfig, records: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    store = ArtifactStore(Storage(tmp_path))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        scene = prepare(tiny_config, store, device=CPU)
        again = run_episode(episode(tiny_config, "lpa"), scene)
    assert store.made == 4  # victim, two evaluators, one substitute
    assert numbers(again) == numbers(records["lpa"])


def test_another_seed_is_another_episode(
    tiny_config: SceneConfig, tiny_store: ArtifactStore, records: dict[str, dict[str, Any]]
) -> None:
    config = dataclasses.replace(tiny_config, seed=1)
    other = run_episode(episode(config, "none"), prepare(config, tiny_store, device=CPU))
    for column in ("split", "episode_id", "victim", "reconstruction_error", "ece"):
        assert other[column] != records["none"][column]


# ---------------------------------------------------------------------------------------------- the record


@pytest.mark.parametrize("defense", DEFENSES)
def test_the_record_is_flat_typed_and_complete(records: dict[str, dict[str, Any]], defense: str) -> None:
    record = records[defense]
    assert not [c for c in (*IDENTITY, *MEASURED, *NULLABLE) if c not in record]
    assert all(type(v) in (str, int, float, bool, type(None)) for v in record.values())
    json.dumps(record, allow_nan=False)
    made = DEFENSES[defense]().make()
    reads = made.reads_image and not made.retrains and not made.asks_again
    assert all((record[column] is not None) == reads for column in WRITTEN_COLUMNS)
    assert record["status"] == "ok"
    assert record["error"] is None
    for column in MEASURED:
        assert math.isfinite(record[column])
    for column in SHARES:
        assert 0 <= record[column] <= 1
    assert all(record[c] >= 0 for c in record if is_cost(c))
    config = {**DEFENSES[defense]().flat("defense"), "attack.view": "identity", "scene.limit": 100}
    assert {k: record[k] for k in config} == config
    certified = {name + pool: record[name + pool] for pool in ("", "_test") for name in COLUMNS}
    none = record["certificate_none"]
    assert all((value is None) == (none is not None) for value in certified.values())
    if none is None:
        assert record["certified_error"] <= record["reconstruction_error"]
        assert record["certified_error_test"] <= record["reconstruction_error_test"]
    assert (
        (record["alignment_before"] is None)
        == (record["alignment_after"] is None)
        == (defense not in ALIGNED)
    )


def test_no_defense_and_zero_budget_are_the_same(tiny_config, tiny_scene, records) -> None:
    zero = run_episode(episode(tiny_config, "noise", budget=0.0), tiny_scene)
    aligned = run_episode(episode(tiny_config, "lpa", budget=0.0), tiny_scene)
    own = {"episode_id", "defense", "alignment_before", "alignment_after", "certificate_none"}
    own |= set(WRITTEN_COLUMNS)  # LPA reads the image; at budget 0 it writes nothing
    expected = {k: v for k, v in numbers(records["none"]).items() if k not in own}
    for record in (zero, aligned):
        assert {k: record[k] for k in expected} == expected
    assert {aligned[column] for column in WRITTEN_COLUMNS} == {0.0}
    assert expected["confidence_distortion"] == 0
    assert expected["label_agreement"] == 1
    assert expected["reconstruction_error"] == expected["clean_reconstruction_error"]
    assert aligned["alignment_before"] == aligned["alignment_after"]


def test_a_defense_that_keeps_labels_keeps_the_accuracy(records) -> None:
    for name in ("label-only", "rounding", "noise", "lpa"):
        assert records[name]["label_agreement"] == 1
        assert records[name]["protected_accuracy"] == records[name]["model_accuracy"]
        assert records[name]["confidence_distortion"] > 0
    assert records["lfp"]["attack_set_label_agreement"] < 1  # a twentieth, by coins: of 100 images some


def test_keyed_answers_repeat_and_fresh_ones_differ(tiny_config, tiny_scene, records) -> None:
    coupled = {"lpa-shuffled"}  # what they answer depends on the rest of the request
    assert all(records[name]["repeat_query_distance"] > 1e-3 for name in ALWAYS_FRESH)
    for name, record in records.items():
        if name not in coupled | ALWAYS_FRESH:
            assert (name, record["repeat_query_distance"]) == (name, pytest.approx(0, abs=1e-6))
    fresh = run_episode(episode(tiny_config, "noise", randomness="fresh"), tiny_scene)
    assert 0 < fresh["repeat_query_distance"] <= 2 * 0.01 + 1e-6


def test_measurements_match_numpy(tiny_config: SceneConfig, tiny_scene: Scene) -> None:
    config = episode(tiny_config, "noise", budget=0.05)
    deployment = deploy(tiny_scene, "noise", config.defense_config)
    released = release(deployment)
    record, reconstructions = attack_and_measure(config, deployment, released)
    split = tiny_scene.split
    x, rec = (
        t.numpy().astype(np.float64) for t in (split.private_train.x_NCHW, reconstructions["private_train"])
    )
    error = ((rec - x) ** 2).mean()
    mean_error = ((split.attack_train.x_NCHW.numpy().astype(np.float64).mean(0) - x) ** 2).mean()
    assert record["reconstruction_error"] == pytest.approx(error, rel=1e-9)
    assert record["mean_image_error"] == pytest.approx(mean_error, rel=1e-9)
    assert record["reconstruction_skill"] == pytest.approx(1 - error / mean_error, rel=1e-9)
    clean, out = (
        t.numpy().astype(np.float64)
        for t in (tiny_scene.clean["private_test"], released.vectors["private_test"])
    )
    assert record["confidence_distortion"] == pytest.approx(
        np.linalg.norm(out - clean, axis=1).mean(), rel=1e-9
    )
    y = split.private_test.y_N.numpy()
    assert record["model_accuracy"] == (clean.argmax(1) == y).mean()
    with torch.no_grad():
        for column, model in (
            ("attack_accuracy", tiny_scene.evaluator),
            ("cycle_accuracy", tiny_scene.victim),
            ("open_accuracy", tiny_scene.open_evaluator),
        ):
            hit = model(reconstructions["private_train"]).argmax(1) == split.private_train.y_N
            assert record[column] == hit.double().mean().item()


def test_what_is_measured_is_of_the_named_images_and_vectors(
    tiny_config: SceneConfig, tiny_scene: Scene
) -> None:
    """Train columns of train, test ones of test; released labels may flip, the victim's own are the pool."""
    config = episode(tiny_config, "lfp", picks="request", ratio=0.3)
    deployment = deploy(tiny_scene, "lfp", config.defense_config)
    released = release(deployment)
    record, reconstructions = attack_and_measure(config, deployment, released)
    split, clean = tiny_scene.split, tiny_scene.clean
    for part, suffix in (("private_train", ""), ("private_test", "_test")):
        x = getattr(split, part).x_NCHW
        found = identification(reconstructions[part], x, clean[part].argmax(1))
        assert {c: record[c] for c in found.columns(suffix)} == found.columns(suffix)
        from_clean = identification(reconstructions[f"clean{suffix}"], x, clean[part].argmax(1))
        assert record[f"clean_identification_rate{suffix}"] == from_clean.rate
        assert record[f"clean_identification_auc{suffix}"] == from_clean.auc
        c = released.vectors[part].double()
        limits = [contributions(space(c), x.double().flatten(1)).mean() for space in SPACES.values()]
        assert record[f"estimated_limit{suffix}"] == pytest.approx(min(limits), rel=1e-12)
        low, high = record[f"estimated_limit_low{suffix}"], record[f"estimated_limit_high{suffix}"]
        assert low <= record[f"estimated_limit{suffix}"] <= high
    y, out = split.private_test.y_N, released.vectors["private_test"]
    assert record["log_loss"] == log_loss(out, y)
    assert record["clean_log_loss"] == log_loss(clean["private_test"], y)
    assert record["tail_rank_correlation"] == tail_rank_correlation(clean["private_test"], out)


def test_under_label_only_identification_is_chance(records: dict[str, dict[str, Any]]) -> None:
    record = records["label-only"]
    for suffix in ("", "_test"):
        assert record[f"identification_rate{suffix}"] == pytest.approx(
            record[f"identification_chance{suffix}"]
        )
        assert record[f"identification_auc{suffix}"] == pytest.approx(0.5)
    assert record["tail_rank_correlation"] == 0
    assert record["top2_agreement"] == pytest.approx(1 / 4)
    assert records["none"]["tail_rank_correlation"] == pytest.approx(1)
    assert records["none"]["top2_agreement"] == 1
    assert records["none"]["log_loss"] == records["none"]["clean_log_loss"]


# ---------------------------------------------------------------------------------- release and its shards


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("defense", ["noise", "lpa", "lfp"])
def test_a_sharded_release_is_the_same_episode(
    tiny_config: SceneConfig, tiny_scene: Scene, records: dict[str, dict[str, Any]], defense: str
) -> None:
    config = episode(tiny_config, defense)
    deployment = deploy(tiny_scene, defense, config.defense_config)
    vectors = {}
    for part in PARTS:
        x = getattr(tiny_scene.split, part).x_NCHW
        ranks = [deploy(tiny_scene, defense, config.defense_config).service for _ in range(2)]
        chunks: dict[int, Tensor] = {}
        for r, rank in enumerate(ranks):
            chunks |= rank.release_chunks(x, range(r, chunk_count(len(x)), 2))
        vectors[part] = torch.cat([chunks[k] for k in sorted(chunks)])
    record, _ = attack_and_measure(config, deployment, finish_release(deployment, vectors, 0.5, 0.25))
    assert record["seconds_poison"] == 0.5
    queries = sum(len(c) for c in tiny_scene.clean.values())
    assert record["inference_ms_per_sample"] == record["poison_ms_per_sample"] == 250 / queries
    assert numbers(record) == numbers(records[defense])


@pytest.mark.parametrize("randomness", ["keyed", "fresh"])
def test_attackers_of_one_deployment_do_not_disturb_each_other(
    tiny_config: SceneConfig, tiny_scene: Scene, randomness: str
) -> None:
    """What an earlier attacker asked does not change what a later one is answered."""
    first, second = (
        episode(tiny_config, "noise", attack, randomness=randomness) for attack in ("raw", "passive")
    )
    deployment = deploy(tiny_scene, "noise", first.defense_config)
    released = release(deployment)
    attack_and_measure(first, deployment, released)
    shared, _ = attack_and_measure(second, deployment, released)
    assert numbers(shared) == numbers(run_episode(second, tiny_scene))


# ------------------------------------------------------------------------------- what the attacker is given


@dataclass(frozen=True, kw_only=True)
class SpyConfig(Config):
    """An attacker that writes down what it was given and answers the mean of its images."""

    data: Literal["all", "D1", "D2"] = "all"

    def make(self) -> "Spy":
        return Spy()


class Spy:
    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        self.x, self.known, self.rng_state = x_NCHW, known, rng.get_state()
        self.c = oracle.query(x_NCHW)
        self.c_again = oracle.query(x_NCHW)
        self.n_classes = oracle.n_classes

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        return self.x.mean(0).expand(len(c_NK), *self.known.image_shape).clone()


def names_of(x_NCHW: Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in x_NCHW}


@pytest.mark.parametrize("data", ["all", "D1", "D2"])
def test_the_attacker_gets_its_share_of_the_images(tiny_scene: Scene, data: Any) -> None:
    deployment = deploy(tiny_scene, "lpa", LPAConfig())
    released = release(deployment)
    attacked = attack_once(deployment, released, SpyConfig(data=data))
    attack = attacked.fitted.attack
    assert isinstance(attack, Spy)
    everything = tiny_scene.split.attack_train.x_NCHW
    assert attacked.fitted.queries == 2 * len(attack.x)
    assert len(attack.x) == (len(everything) if data == "all" else len(everything) // 2)
    assert names_of(attack.x) <= names_of(everything)
    assert not names_of(attack.x) & names_of(tiny_scene.split.private_train.x_NCHW)
    if data != "all":
        other = tiny_scene.data_halves["D1" if data == "D2" else "D2"].x_NCHW
        assert not names_of(attack.x) & names_of(other)
    # The answers are those of the episode's own release: one attack_train request, remembered by the API.
    by_name = dict(
        zip([r.numpy().tobytes() for r in everything], released.vectors["attack_train"], strict=True)
    )
    assert torch.equal(attack.c, torch.stack([by_name[r.numpy().tobytes()] for r in attack.x]))
    assert torch.equal(attack.c_again, attack.c)
    assert attack.n_classes == tiny_scene.split.n_classes
    assert set(attacked.reconstructions) == {"private_train", "private_test", "clean", "clean_test"}


def test_the_substitute_did_not_see_the_attacker_s_half(tiny_scene: Scene) -> None:
    _, x = tiny_scene.view().substitute_data(LPAConfig().substitute())
    assert names_of(x) == names_of(tiny_scene.data_halves["D1"].x_NCHW)
    assert not names_of(x) & names_of(tiny_scene.data_halves["D2"].x_NCHW)


def test_half_the_images_is_half_the_queries(tiny_config: SceneConfig, tiny_scene: Scene) -> None:
    n = len(tiny_scene.split.attack_train)
    assert run_episode(episode(tiny_config, "none", "mismatched-data"), tiny_scene)["queries"] == n // 2
    assert run_episode(episode(tiny_config, "none", "passive"), tiny_scene)["queries"] == n


def test_the_attacker_knows_public_settings_only(tiny_scene: Scene) -> None:
    deployment = deploy(tiny_scene, "lpa", LPAConfig(budget=0.03))
    attack = attack_once(deployment, release(deployment), SpyConfig()).fitted.attack
    assert isinstance(attack, Spy)
    assert attack.known.defense == "lpa"
    assert attack.known.settings == LPAConfig(budget=0.03).flat()
    assert attack.known.image_shape == (1, 16, 16)
    assert {f.name for f in dataclasses.fields(attack.known)} == {"defense", "settings", "image_shape"}


def test_attackers_are_paired_across_defenses(tiny_scene: Scene) -> None:
    """The same attacker draws the same numbers whatever the defense, another attacker draws others."""
    states = []
    for defense, data in (("none", "all"), ("noise", "all"), ("none", "D1")):
        deployment = deploy(tiny_scene, defense, DEFENSES[defense]())
        attack = attack_once(deployment, release(deployment), SpyConfig(data=data)).fitted.attack  # type: ignore[arg-type]
        assert isinstance(attack, Spy)
        states.append(attack.rng_state)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


# ------------------------------------------------------------------------------------------- configurations


def test_unknown_names_list_the_valid_ones(tiny_config: SceneConfig) -> None:
    good: dict[str, Any] = dict(
        scene=tiny_config,
        defense="noise",
        defense_config=NoiseConfig(),
        attack="passive",
        attack_config=DecoderConfig(),
    )
    with pytest.raises(ConfigError, match=r"unknown defense 'nois'.*label-only"):
        EpisodeConfig(**good | {"defense": "nois"})
    with pytest.raises(ConfigError, match=r"unknown attacker 'passiv'.*early-stopping"):
        EpisodeConfig(**good | {"attack": "passiv"})
    with pytest.raises(ConfigError, match="NoiseConfig"):
        EpisodeConfig(**good | {"defense_config": LPAConfig()})
    with pytest.raises(ConfigError, match="DecoderConfig"):
        EpisodeConfig(**good | {"attack_config": NoiseConfig()})


def test_unset_sizes_come_from_the_scene(tiny_config: SceneConfig) -> None:
    config = episode(tiny_config).attack_config
    assert isinstance(config, DecoderConfig)
    assert (config.width, config.steps, config.batch, config.lr) == (4, 60, 32, 1e-2)
    own = at_scale(DecoderConfig(width=9, lr=1.0), tiny_config)
    assert isinstance(own, DecoderConfig)
    assert (own.width, own.steps, own.lr) == (9, 60, 1.0)
    assert at_scale(NoiseConfig(), tiny_config) == NoiseConfig()


def test_the_id_follows_the_settings(tiny_config: SceneConfig) -> None:
    one = episode(tiny_config)
    assert one.episode_id == episode(tiny_config).episode_id
    assert len(one.episode_id) == 16
    others = [
        episode(tiny_config, budget=0.02),
        episode(tiny_config, "lpa"),
        episode(tiny_config, attack="raw"),
        episode(dataclasses.replace(tiny_config, seed=1)),
        episode(dataclasses.replace(tiny_config, decoder_steps=31)),
    ]
    assert len({e.episode_id for e in [one, *others]}) == 6
    explicit = dataclasses.replace(one, attack_config=DecoderConfig(width=4, steps=60, batch=32, lr=1e-2))
    assert explicit.episode_id == one.episode_id


def test_a_failed_episode_names_its_error_and_measures_nothing(tiny_config: SceneConfig, records) -> None:
    record = failed_record(episode(tiny_config), "0" * 16, ValueError("first line\nsecond line"))
    assert record["status"] == "failed"
    assert record["error"] == "ValueError: first line"
    assert record["episode_id"] == records["noise"]["episode_id"]
    assert all(record.get(c) is None for c in MEASURED)
    assert set(record) <= set(records["noise"])
    json.dumps(record, allow_nan=False)
    assert failed_record(episode(tiny_config), None, RuntimeError())["error"] == "RuntimeError: "
    assert len(failed_record(episode(tiny_config), None, RuntimeError("x" * 9999))["error"]) == 500
