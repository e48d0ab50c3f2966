"""One image per request: LFP draws for each query whether it is perturbed, and the suite has such an
attacker."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mipoison.attacks import ATTACKS, SUITE
from mipoison.attacks.one_by_one import SingleRequests
from mipoison.defenses.lfp import LFP, LFPConfig
from mipoison.deployment import deploy, release
from mipoison.episode import at_scale, open_attack
from mipoison.models.inversion import InversionConfig
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.scene import Scene
from mipoison.service import MeteredOracle

N, K, THRESHOLD = 500, 5, 0.5


def vectors(seed: int, sharpness: float = 0.7) -> Tensor:
    return torch.softmax(sharpness * torch.randn(N, K, generator=generator(seed, "c")), 1)


def pictures(seed: int) -> Tensor:
    return torch.rand(N, 1, 16, 16, generator=generator(seed, "x"))


def fitted(public: Tensor, **changes: Any) -> LFP:
    """LFP whose public images are answered with ``public``; reversed ranks only, unless changed."""
    decoder = InversionConfig(width=4).make((1, 16, 16), K).eval().requires_grad_(False)
    view = DefenderView(
        x_private_NCHW=pictures(5),
        c_private_NK=vectors(5),
        y_private_N=vectors(5).argmax(1),
        substitute=lambda config: decoder,
        substitute_data=lambda config: (public, pictures(6)),
        n_classes=K,
    )
    defense = LFPConfig(**{"threshold": THRESHOLD, "budget": 0.0, **changes}).make()
    defense.fit(view, rng=generator(0))
    return defense


def answers(defense: LFP, c_NK: Tensor, x_NCHW: Tensor, secret: bytes = b"secret") -> Tensor:
    rng = QueryRandomness(content_keys(x_NCHW, secret))
    return defense.protect(c_NK, x_NCHW, defense.pick(c_NK), rng=rng)


def singly(defense: LFP, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
    return torch.cat([answers(defense, c_NK[i : i + 1], x_NCHW[i : i + 1]) for i in range(len(c_NK))])


@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.45])
def test_single_requests_are_poisoned_as_batches_are(ratio: float) -> None:
    c, x = vectors(0), pictures(0)
    defense = fitted(vectors(1), ratio=ratio)
    assert not defense.couples
    single, order = singly(defense, c, x), torch.randperm(N, generator=generator(0))
    assert torch.equal(single, answers(defense, c, x))
    assert torch.equal(single[order], answers(defense, c[order], x[order]))
    touched = (single != c).any(1)
    assert not bool((touched & (c.amax(1) >= THRESHOLD)).any())
    # Four standard deviations of two binomial shares: of the queries, and of the public images.
    assert abs(float(touched.double().mean()) - ratio) < 4 * math.sqrt(2 * ratio * (1 - ratio) / N)


def test_fine_tuned_answers_do_not_depend_on_the_batch_either() -> None:
    c, x = vectors(0)[:60], pictures(0)[:60]
    defense = fitted(vectors(1), ratio=0.4, budget=0.05, rounds=4)
    whole, single = answers(defense, c, x), singly(defense, c, x)
    torch.testing.assert_close(single, whole, rtol=0, atol=1e-5)
    assert bool((whole != answers(fitted(vectors(1), ratio=0.4), c, x)).any())  # it is tuned


@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.45])
def test_the_paper_s_choice_answers_single_requests_cleanly(ratio: float) -> None:
    c, x = vectors(0), pictures(0)
    defense = fitted(vectors(1), ratio=ratio, picks="request")
    assert defense.couples
    assert torch.equal(singly(defense, c[:60], x[:60]), c[:60])
    assert int((answers(defense, c, x) != c).any(1).sum()) == round(ratio * N)


def test_the_coin_follows_secret_and_image() -> None:
    c, x = vectors(0)[:1].expand(N, -1).clone(), pictures(0)
    assert float(c[0].max()) < THRESHOLD
    defense = fitted(vectors(1), ratio=0.3)
    one, two, again = ((answers(defense, c, x, s) != c).any(1) for s in (b"one", b"two", b"one"))
    assert torch.equal(one, again)
    differ = float((one != two).double().mean())
    p = float(defense.coin)
    assert differ == pytest.approx(2 * p * (1 - p), abs=4 * math.sqrt(0.25 / N))


def test_where_no_public_image_is_a_candidate_all_that_come_are_poisoned() -> None:
    c, x = vectors(0), pictures(0)
    defense = fitted(torch.eye(K).repeat(N // K, 1), ratio=0.05)
    assert torch.equal((answers(defense, c, x) != c).any(1), c.amax(1) < THRESHOLD)


def test_records_from_before_the_choice_read_as_the_paper_s() -> None:
    """Their digest, which names trials, stays the same."""
    old = {k: v for k, v in LFPConfig(ratio=0.1).flat().items() if k != "picks"}
    read = LFPConfig.recorded(old)
    assert (read.picks, read.ratio) == ("request", 0.1)
    assert LFPConfig.recorded(LFPConfig(ratio=0.1).flat()).picks == "query"
    named = LFPConfig(ratio=0.05, substitute_data="all", picks="request").digest()
    assert named.startswith("5ecc90a7")  # the committed trial lfp-5ecc90a7
    assert LFPConfig(ratio=0.05, substitute_data="all").digest() != named


def oracle(scene: Scene, **changes: Any) -> tuple[MeteredOracle, Tensor]:
    """The API of an episode under LFP, all of whose parts were released; and what it should answer."""
    deployment = deploy(scene, "lfp", LFPConfig(budget=0.0, threshold=1.0, **changes))
    released = release(deployment)
    config = at_scale(ATTACKS["one-by-one"], scene.config)
    return open_attack(deployment, config).oracle, released.vectors["attack_train"]


def test_the_attacker_bypasses_the_paper_s_choice_and_not_the_coin(tiny_scene: Scene) -> None:
    """Answers to a batch that the service remembers are not used for single requests."""
    x, clean = tiny_scene.split.attack_train.x_NCHW, tiny_scene.clean["attack_train"]
    for picks in ("request", "query"):
        behind, released = oracle(tiny_scene, picks=picks, ratio=0.4)
        single = SingleRequests(behind).query(x)
        assert behind.queries == len(x)
        assert bool((released != clean).any())
        expected = clean if picks == "request" else released
        torch.testing.assert_close(single, expected, rtol=0, atol=1e-5)
        assert torch.equal(behind.query(x), released)  # the batch, asked again, is still remembered


def test_the_attacker_is_in_the_suite_and_asks_for_one_image_per_request(tiny_scene: Scene) -> None:
    class Spy:
        n_classes, queries = K, 0
        sizes: list[int] = []  # noqa: RUF012

        def query(self, x_NCHW: Tensor) -> Tensor:
            self.sizes.append(len(x_NCHW))
            return torch.full((len(x_NCHW), K), 1 / K)

    assert "one-by-one" in SUITE
    deployment = deploy(tiny_scene, "lfp", LFPConfig(budget=0.0))
    inputs = open_attack(deployment, at_scale(ATTACKS["one-by-one"], tiny_scene.config))
    spy = Spy()
    inputs.attack.fit(spy, inputs.x_NCHW[:9], known=inputs.known, rng=inputs.rng)
    assert spy.sizes == [1] * 9
