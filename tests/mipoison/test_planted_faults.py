"""Planted faults, end to end: real episodes in which something cheats trip their check, others do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mipoison.attacks import ATTACKS
from mipoison.certificates import Observation, Uncertifiable
from mipoison.config import Config
from mipoison.defenses import DEFENSES
from mipoison.defenses.base import BaseDefense
from mipoison.deployment import Deployment, deploy, release
from mipoison.episode import EpisodeConfig, Fitted, at_scale, attack_and_measure, attack_once, run_episode
from mipoison.metrics.check_conditions import WRITTEN_Z
from mipoison.metrics.written_image import WRITTEN_COLUMNS
from mipoison.protocols import DefenderView, Oracle, ThreatModel
from mipoison.randomness import QueryRandomness, generator
from mipoison.scene import Scene
from mipoison.service import DefendedService
from mipoison.simplex import label_of
from mipoison.training import seeded, train
from study.trial.run import relate_to_anchors

BUDGET = 0.05
CHEAP = ("passive", "ridge", "label-only")
Record = dict[str, Any]


def run(scene: Scene, defense: str, deployment: Deployment, attacks: tuple[str, ...] = CHEAP) -> list[Record]:
    released = release(deployment)
    return [
        attack_and_measure(
            EpisodeConfig(
                scene=scene.config,
                defense=defense,
                defense_config=deployment.config,
                attack=name,
                attack_config=ATTACKS[name],
            ),
            deployment,
            released,
        )[0]
        for name in attacks
    ]


@pytest.fixture(scope="module")
def scene(tiny_scene: Scene) -> Scene:
    return tiny_scene


@pytest.fixture(scope="module")
def anchors(scene: Scene) -> list[Record]:
    names = ("none", "label-only")
    return [r for name in names for r in run(scene, name, deploy(scene, name, DEFENSES[name]()))]


def raised(record: Record) -> set[str]:
    return {k.removeprefix("check.") for k, v in record.items() if k.startswith("check.") and v}


FAULTS = {
    "asked_nothing",
    "training_unaffected",
    "label_recovered",
    "leaks_more_than_undefended",
    "unfit_judge",
    "writes_image",
}


@pytest.fixture(scope="module")
def honest(scene: Scene, anchors: list[Record]) -> list[Record]:
    rows = run(scene, "noise", deploy(scene, "noise", DEFENSES["noise"](budget=BUDGET)))
    return relate_to_anchors(rows, anchors)


def able(anchors: list[Record]) -> set[str]:
    """Attackers that learn something of undefended vectors; the scene's decoders hardly do, at 20 steps."""
    return {r["attack"] for r in anchors if r["defense"] == "none" and r["reconstruction_skill"] > 0}


def test_honest_episodes_trip_none_of_them(honest: list[Record], anchors: list[Record]) -> None:
    for record in [*honest, *relate_to_anchors(anchors, anchors)]:
        assert not raised(record) & FAULTS, record["attack"]
    told = {r["attack"]: r["check.training_unaffected"] for r in honest}
    learned = able(anchors)
    assert "ridge" in learned
    assert told == {name: False if name in learned - {"label-only"} else None for name in CHEAP}


# ---------------------------------------------------------------- an attacker wired to the clean vectors


class CleanSession(DefendedService):
    """A service whose clients get the victim's own answers: the post-processing unit is bypassed."""

    def session(self) -> Callable[[Tensor], Tensor]:
        return self.clean


def test_an_attacker_wired_to_the_clean_vectors(scene: Scene, anchors: list[Record]) -> None:
    deployment = deploy(scene, "noise", DEFENSES["noise"](budget=BUDGET))
    deployment.service.__class__ = CleanSession
    wired = relate_to_anchors(run(scene, "noise", deployment), anchors)
    by_attack = {r["attack"]: raised(r) & FAULTS for r in wired}
    assert by_attack["ridge"] == {"training_unaffected"}
    expected = {"training_unaffected"} if "passive" in able(anchors) else set()
    assert by_attack["passive"] == expected  # who learns nothing of clean vectors cannot be told by them


@dataclasses.dataclass(frozen=True, kw_only=True)
class InsiderConfig(Config):
    """An attacker with the victim in its hands (class attribute: no setting carries a model)."""

    def make(self) -> Insider:
        return Insider()


class Insider:
    """Asks nobody: trains ridge on vectors that it computes itself."""

    scene: Scene

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: Any, rng: torch.Generator) -> None:
        class Own:
            n_classes, queries = self.scene.split.n_classes, 0

            def query(_, x: Tensor) -> Tensor:
                return torch.softmax(self.scene.victim(x), 1)

        self.inner = ATTACKS["ridge"].make()  # type: ignore[attr-defined]
        self.inner.fit(Own(), x_NCHW, known=known, rng=rng)

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        return self.inner.reconstruct(c_NK)


def test_an_attacker_that_asks_nothing(
    scene: Scene, anchors: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTACKS, "insider", InsiderConfig())
    monkeypatch.setattr(Insider, "scene", scene, raising=False)
    deployment = deploy(scene, "noise", DEFENSES["noise"](budget=BUDGET))
    (record,) = relate_to_anchors(run(scene, "noise", deployment, ("insider",)), anchors)
    assert raised(record) & FAULTS == {"asked_nothing"}


# ---------------------------------------------------------------- a defense that leaks into the tail


class Hidden(BaseDefense):
    """Answers the class after the label; the true label gets the second place: hidden in the tail."""

    keeps_label = False
    tells = True

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        n_classes = c_NK.shape[1]
        label_N = c_NK.argmax(1)
        second_N = label_N if self.tells else (label_N + 2) % n_classes
        wrong_N = (label_N + 1) % n_classes if self.tells else torch.zeros_like(label_N)
        if not self.tells:
            second_N = torch.ones_like(label_N)
        out_NK = torch.full_like(c_NK, 0.02)
        out_NK.scatter_(1, second_N[:, None], 0.1)
        out_NK.scatter_(1, wrong_N[:, None], 1.0)
        return out_NK / out_NK.sum(1, keepdim=True)


def with_defense(scene: Scene, defense: BaseDefense) -> Deployment:
    deployment = deploy(scene, "none", DEFENSES["none"]())
    service = DefendedService(
        scene.victim, defense, secret=b"s", n_classes=scene.split.n_classes, device=scene.device
    )
    return dataclasses.replace(deployment, defense=defense, service=service)


@pytest.mark.parametrize("tells", [True, False])
def test_a_defense_that_leaks_the_label_into_the_tail(
    scene: Scene, anchors: list[Record], tells: bool
) -> None:
    """The twin that hides the label for good answers the same to everything and is not accused."""
    defense = Hidden()
    defense.tells = tells
    rows = run(scene, "none", with_defense(scene, defense), ("ridge",))
    (record,) = relate_to_anchors(rows, [r for r in anchors if r["defense"] == "label-only"])
    assert record["label_agreement"] < 0.5
    assert (record["label_recovery"] > 0.99) is tells
    assert ("label_recovered" in raised(record)) is tells


def test_lfp_on_everything_leaves_the_label_readable(scene: Scene, anchors: list[Record]) -> None:
    """Reversed ranks tell the label by the last place: a finding, not a planted fault."""
    config = DEFENSES["lfp"](ratio=0.95, threshold=1.0, budget=0.0)
    rows = run(scene, "lfp", deploy(scene, "lfp", config), ("ridge",))
    (record,) = relate_to_anchors(rows, anchors)
    assert record["label_agreement"] < 0.5
    assert "label_recovered" in raised(record)


class Telltale(BaseDefense):
    """Keeps the label and writes the image's principal components into the tail: more than the victim's."""

    reads_image = True

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        x_NP = view.x_private_NCHW.flatten(1)
        self.mean_P = x_NP.mean(0)
        self.basis_PK = torch.linalg.svd(x_NP - self.mean_P, full_matrices=False)[2][: view.n_classes].T
        self.scale_K = ((x_NP - self.mean_P) @ self.basis_PK).std(0)

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        code_NK = torch.sigmoid((x_NCHW.flatten(1) - self.mean_P) @ self.basis_PK / self.scale_K) * 0.1
        label_N = c_NK.argmax(1)
        tail_NK = code_NK.scatter(1, label_N[:, None], 0.0)
        return tail_NK.scatter(1, label_N[:, None], 1 - tail_NK.sum(1, keepdim=True))


def test_a_defense_that_writes_the_image_into_the_tail(scene: Scene, anchors: list[Record]) -> None:
    telltale = Telltale()
    telltale.fit(scene.view(), rng=generator(0, "telltale"))
    (row,) = run(scene, "none", with_defense(scene, telltale), ("ridge",))
    (record,) = relate_to_anchors([row | {"defense": "telltale"}], anchors)
    assert record["label_agreement"] == 1
    assert {"leaks_more_than_undefended", "writes_image"} <= raised(record)
    assert record["written_excess"] > 0.1


class Pixel(BaseDefense):
    """The victim's vector, with up to 1e-4 moved by a pixel between the two scores after the label."""

    reads_image = True

    def __init__(self, pixel: int) -> None:
        self.pixel = pixel

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        n_classes, label_N1 = c_NK.shape[1], c_NK.argmax(1, keepdim=True)
        first_N1, second_N1 = (label_N1 + 1) % n_classes, (label_N1 + 2) % n_classes
        moved_N1 = c_NK.gather(1, first_N1).clamp_max(1e-4) * x_NCHW.flatten(1)[:, self.pixel, None]
        return c_NK.scatter_add(1, first_N1, -moved_N1).scatter_add(1, second_N1, moved_N1)


def loudest_pixel(scene: Scene) -> int:
    """The pixel that explains most of the variance of the images of one label."""
    x_ND, label_N = scene.split.attack_train.x_NCHW.flatten(1), scene.clean["attack_train"].argmax(1)
    r_ND = torch.cat([x_ND[label_N == k] - x_ND[label_N == k].mean(0) for k in label_N.unique()])
    return int((r_ND.mT @ r_ND).square().sum(1).div(r_ND.square().sum(0).clamp_min(1e-3)).argmax())


def test_a_defense_that_writes_one_pixel_into_the_tail(scene: Scene, anchors: list[Record]) -> None:
    """The audit finds it, and ridge regression reads it in the shares of what the top score leaves."""
    (row,) = run(scene, "none", with_defense(scene, Pixel(loudest_pixel(scene))), ("ridge",))
    (record,) = relate_to_anchors([row | {"defense": "pixel"}], anchors)
    assert record["confidence_distortion"] < 2e-4
    assert raised(record) & FAULTS == {"writes_image", "leaks_more_than_undefended"}
    assert record["written_excess"] > 0.02


WRITES_NOTHING: list[tuple[str, dict[str, Any]]] = [
    ("noise", {}),
    ("noise", {"law": "gaussian", "budget": 0.05}),
    ("noise-fresh", {"budget": 0.05}),
    ("rounding", {}),
    ("rounding", {"decimals": 1}),
    ("label-only", {}),
    ("tail-noise", {}),
    ("tail-noise", {"label_steps": 5, "law": "gaussian"}),
    ("lpa-blind", {}),
]


@pytest.mark.parametrize(("defense", "knobs"), WRITES_NOTHING)
def test_defenses_that_do_not_read_the_image_are_not_accused_even_if_they_are_audited(
    scene: Scene, defense: str, knobs: dict[str, Any]
) -> None:
    deployment = deploy(scene, defense, DEFENSES[defense](**knobs))
    columns = release(deployment).columns
    assert {columns[name] for name in WRITTEN_COLUMNS} == {None}
    deployment.defense.reads_image = True
    columns = release(deployment).columns
    assert max(columns["written_z"], columns["written_z_test"]) < WRITTEN_Z
    assert max(columns["written_excess"], columns["written_excess_test"]) < 0.02


class SignedZeros(BaseDefense):
    """Answers one-hot vectors; the sign of each zero tells a bit of the image."""

    reads_image = True

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        one_hot_NK = torch.nn.functional.one_hot(c_NK.argmax(1), c_NK.shape[1]).to(c_NK)
        zones_NK = torch.stack([part.flatten(1).mean(1) for part in x_NCHW.tensor_split(c_NK.shape[1], 2)], 1)
        return torch.where((one_hot_NK == 0) & (zones_NK > zones_NK.median()), -0.0, one_hot_NK)


def test_a_defense_that_writes_the_image_into_the_signs_of_zeros(scene: Scene, anchors: list[Record]) -> None:
    """No attacker sees it, and the record says that its leakage is not to be trusted."""
    (row,) = run(scene, "none", with_defense(scene, SignedZeros()), ("ridge",))
    (record,) = relate_to_anchors([row | {"defense": "signed zeros"}], anchors)
    assert "hidden_channel" in raised(record)
    assert "leaks_more_than_undefended" not in raised(record)
    assert not any("hidden_channel" in raised(r) for r in relate_to_anchors(anchors, anchors))


# ---------------------------------------------------------------- an evaluator trained on reconstructions


def test_an_evaluator_trained_on_reconstructions(scene: Scene, anchors: list[Record]) -> None:
    deployment = deploy(scene, "noise", DEFENSES["noise"](budget=BUDGET))
    released = release(deployment)
    rng = generator(0, "planted")
    config = at_scale(ATTACKS["ridge"], scene.config)
    attacked = attack_once(deployment, released, config)
    images, labels = attacked.reconstructions["private_train"], scene.split.private_train.y_N
    with seeded(rng, scene.device):
        judge = scene.config.classifier("evaluator").make(scene.split.image_shape, scene.split.n_classes)
    train(judge, images, labels, torch.nn.functional.cross_entropy, steps=200, batch=32, lr=1e-2, rng=rng)
    biased = dataclasses.replace(scene, evaluator=judge.requires_grad_(False).eval())
    rows = run(biased, "noise", deploy(biased, "noise", deployment.config))
    checked = relate_to_anchors(rows, anchors)
    ridge = next(r for r in checked if r["attack"] == "ridge")
    assert ridge["attack_accuracy"] > 0.9
    assert "unfit_judge" in raised(ridge)


# ---------------------------------------------------------------- what nobody can do with the answers alone


class Thief:
    """Answers the true private images, somewhat blurred with the mean: it was handed what no attacker has."""

    def __init__(self, scene: Scene, truth: float) -> None:
        self.scene, self.truth = scene, truth
        self.mean_CHW = scene.split.attack_train.x_NCHW.mean(0)

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """It needs no answer."""

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        parts = (self.scene.split.private_train, self.scene.split.private_test)
        x_NCHW = next(part.x_NCHW for part in parts if len(part.x_NCHW) == len(c_NK))
        return self.truth * x_NCHW + (1 - self.truth) * self.mean_CHW


@pytest.mark.parametrize(("truth", "caught"), [(0.0, False), (0.5, True), (1.0, True)])
@pytest.mark.parametrize(
    ("defense", "knobs"),
    [
        ("label-only", {}),
        ("rounding", {"decimals": 1}),
        ("noise", {"law": "gaussian", "budget": 0.1}),
        ("noise", {"law": "gaussian", "budget": 1.5}),
    ],
)
def test_an_attacker_that_was_handed_the_private_images(
    scene: Scene, anchors: list[Record], defense: str, knobs: dict[str, Any], truth: float, caught: bool
) -> None:
    deployment = deploy(scene, defense, DEFENSES[defense](**knobs))
    config = EpisodeConfig(
        scene=scene.config,
        defense=defense,
        defense_config=deployment.config,
        attack="ridge",
        attack_config=ATTACKS["ridge"],
    )
    fitted = Fitted(Thief(scene, truth), 0.0, 100)
    row, _ = attack_and_measure(config, deployment, release(deployment), fitted)
    (record,) = relate_to_anchors([row], anchors)
    assert record["certified_error"] > 0
    assert ("beats_certificate" in raised(record)) is caught


@pytest.mark.parametrize(("defense", "knobs"), [("label-only", {}), ("rounding", {"decimals": 1})])
def test_no_attacker_of_ours_beats_a_certificate(
    scene: Scene, anchors: list[Record], defense: str, knobs: dict[str, Any]
) -> None:
    deployment = deploy(scene, defense, DEFENSES[defense](**knobs))
    records = relate_to_anchors(run(scene, defense, deployment, (*CHEAP, "knn")), anchors)
    assert len(records) == len(CHEAP) + 1
    for record in records:
        assert record["check.beats_certificate"] is False
        assert record["certified_error"] <= record["reconstruction_error"]
        assert record["certified_error_test"] <= record["reconstruction_error_test"]
        assert record["certificate_none"] is None


class Liar(Telltale):
    """States that its answers tell the label alone, while it writes the image into the tail."""

    def observation(self, c_NK: Tensor, released_NK: Tensor) -> Observation | Uncertifiable:
        return Observation(label_of(c_NK)[:, None])


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiarConfig(Config):
    """``tells``: whether the tail is released."""

    tells: bool = True

    def make(self) -> BaseDefense:
        return Liar() if self.tells else DEFENSES["label-only"]().make()


@pytest.mark.parametrize("tells", [True, False])
def test_an_episode_of_a_defense_whose_certificate_is_false(
    scene: Scene, tells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the oracle alone, with an attacker of the suite; where the tail is kept back nobody is accused."""
    monkeypatch.setitem(DEFENSES, "liar", LiarConfig)
    config = EpisodeConfig(
        scene=scene.config,
        defense="liar",
        defense_config=LiarConfig(tells=tells),
        attack="ridge",
        attack_config=ATTACKS["ridge"],
    )
    (record,) = relate_to_anchors([run_episode(config, scene)], [])
    assert record["certified_excess"] == 0
    assert (record["reconstruction_error"] < record["certified_error"]) is tells
    assert record["check.beats_certificate"] is tells


def test_where_there_is_no_certificate_the_record_says_why(anchors: list[Record]) -> None:
    records = relate_to_anchors([r for r in anchors if r["defense"] == "none"], anchors)
    assert records
    for record in records:
        assert record["certified_error"] is None
        assert "hides nothing" in record["certificate_none"]
        assert record["check.beats_certificate"] is None
