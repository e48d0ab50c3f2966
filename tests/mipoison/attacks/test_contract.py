"""The contract of every entry of ATTACKS; then each option changes what it is supposed to change."""

import dataclasses
import gc
import pickle
import types
from typing import Any

import pytest
import torch
from torch import Tensor

from mipoison.attacks import ATTACKS, PASSIVE
from mipoison.attacks.decoder import DecoderConfig
from mipoison.attacks.sizes import DEFAULT_SIZES
from mipoison.config import Config
from mipoison.defenses import DEFENSES
from mipoison.deployment import deploy
from mipoison.episode import at_scale
from mipoison.protocols import Attack, ThreatModel
from mipoison.scene import Scene
from mipoison.service import DefendedService, MeteredOracle
from tests.mipoison.attacks.helpers import Spy, fit, grey

DRAWS_NOTHING = ("class-mean",)
"""Attackers that answer the same for every seed; one image is enough for them."""
MAY_DRAW_NOTHING = ("kernel", "mixtures", "trees")
"""Attackers whose draws may not show on few images: ``kernel`` draws only from more images than it can use,
and ``trees`` keeps no forest that is worse out of bag than the mean image of the label."""


def small(config: Config, scene: Scene) -> Config:
    """Sizes of the tiny scene, but few steps and folds: a contract does not need a good attacker."""
    config = at_scale(config, scene.config)
    few = {"steps": 15, "folds": 2, "each": 3, "mixed": 30, "simulated": 2000}
    return dataclasses.replace(config, **{k: n for k, n in few.items() if k in config.field_kinds()})


# ------------------------------------------------------------------------------------------- the contract


@dataclasses.dataclass
class Played:
    """One attacker, fitted three times to the same 30 images, and what was seen meanwhile.

    Attributes:
        attack: the first fit. oracle: what it asked, counted. asked: the images that it asked about.
        runs: what the three fits make of nine clean vectors; their seeds are 0, 0 and 1, and the global
            generator's state differs between the first two.
        images_stay, state_stays: whether the attacker's images and the global generator were left alone.
    """

    attack: Attack
    oracle: MeteredOracle
    asked: list[Tensor]
    runs: list[Tensor]
    images_stay: bool
    state_stays: bool


class PlayedOnce(dict[str, Played]):
    """Every attacker against lightly noised answers of the scene's own service, played when asked for."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.deployment = deploy(scene, "noise", DEFENSES["noise"]())
        self.known = ThreatModel("noise", self.deployment.config.flat(), scene.split.image_shape)

    def __missing__(self, name: str) -> Played:
        config, scene = small(ATTACKS[name], self.scene), self.scene
        c, x = scene.clean["private_train"][:9], scene.split.attack_train.x_NCHW[:30].clone()
        before, runs, fits, states = x.clone(), [], [], []
        for seed, global_seed in ((0, 1), (0, 2), (1, 1)):
            spy = Spy(self.deployment.service.answer, scene.split.n_classes)
            oracle = MeteredOracle(spy.query, scene.split.n_classes)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(global_seed)
                state = torch.get_rng_state()
                attack = fit(config, x, oracle, self.known, seed)
                runs.append(attack.reconstruct(c))
                states.append(torch.equal(torch.get_rng_state(), state))
            fits.append((attack, oracle, spy.asked))
        self[name] = Played(*fits[0], runs, torch.equal(x, before), all(states))
        return self[name]


@pytest.fixture(scope="module")
def played(tiny_scene: Scene) -> PlayedOnce:
    return PlayedOnce(tiny_scene)


def reachable(start: Any) -> list[Any]:
    """All objects that an object refers to, directly or not, except classes, modules and functions."""
    skip = (
        type,
        types.ModuleType,
        types.FunctionType,
        types.BuiltinFunctionType,
        types.CodeType,
        types.FrameType,
    )
    seen, queue, found = set(), [start], []
    while queue:
        item = queue.pop()
        if id(item) in seen or isinstance(item, skip):
            continue
        seen.add(id(item))
        found.append(item)
        queue += gc.get_referents(item)
        queue += list(getattr(item, "__dict__", {}).values())
    return found


@pytest.mark.parametrize("name", ATTACKS)
class TestContract:
    def test_reconstructions_are_images(self, name, played, tiny_scene) -> None:
        attack = played[name].attack
        for n in (0, 1, 7):
            c = tiny_scene.clean["private_train"][:n].clone()
            before = c.clone()
            out = attack.reconstruct(c)
            assert out.shape == (n, *tiny_scene.split.image_shape)
            assert out.dtype == torch.float32
            assert out.device.type == "cpu"
            assert not out.requires_grad
            assert bool(((out >= 0) & (out <= 1)).all())
            assert torch.equal(c, before)

    def test_one_hot_and_uniform_vectors(self, name, played, tiny_scene) -> None:
        k = tiny_scene.split.n_classes
        out = played[name].attack.reconstruct(torch.cat([torch.eye(k), torch.full((1, k), 1 / k)]))
        assert bool(((out >= 0) & (out <= 1)).all())

    def test_training_leaves_the_attacker_s_images(self, name, played) -> None:
        assert played[name].images_stay

    def test_repeats_under_one_seed(self, name, played) -> None:
        runs = played[name].runs
        assert torch.equal(runs[0], runs[1])
        if name not in MAY_DRAW_NOTHING:
            assert torch.equal(runs[0], runs[2]) == (name in DRAWS_NOTHING)

    def test_leaves_the_global_random_state(self, name, played) -> None:
        assert played[name].state_stays

    def test_pickles_after_fit(self, name, played, tiny_scene) -> None:
        c = tiny_scene.clean["private_train"][:9]
        again = pickle.loads(pickle.dumps(played[name].attack))
        attack = pickle.loads(pickle.dumps(played[name].attack))
        assert torch.equal(again.reconstruct(c), attack.reconstruct(c))

    def test_queries_are_metered(self, name, played) -> None:
        assert played[name].oracle.queries >= 30
        assert played[name].oracle.queries == sum(len(x) for x in played[name].asked)

    def test_too_few_images_are_refused(self, name, tiny_scene) -> None:
        config = small(ATTACKS[name], tiny_scene)
        for n in (0,) if name in DRAWS_NOTHING else (0, 1, 3):
            with pytest.raises(ValueError, match=rf"at least \d+ images?\b.*got {n}"):
                fit(config, grey(n))
        fit(config, grey(12))

    def test_asks_its_own_images_only(self, name, played, tiny_scene) -> None:
        """Images that the attacker holds, or derived from them; never the private ones."""
        private = {row.numpy().tobytes() for row in tiny_scene.split.private_train.x_NCHW}
        assert not private & {row.numpy().tobytes() for x in played[name].asked for row in x}

    def test_holds_nothing_of_the_defender(self, name, played, tiny_scene) -> None:
        things = reachable(played[name].attack)
        assert not any(isinstance(t, DefendedService | Scene) for t in things)
        models = [tiny_scene.victim, tiny_scene.evaluator, tiny_scene.open_evaluator]
        assert not any(t is m for t in things for m in models)
        held = {
            t.detach().cpu().numpy().tobytes() for t in things if isinstance(t, Tensor) and t.numel() > 20
        }
        secrets = [p for m in models for p in m.state_dict().values() if p.numel() > 20]
        for part in (tiny_scene.split.private_train, tiny_scene.split.private_test):
            secrets += [part.x_NCHW, *part.x_NCHW]
        secrets += [tiny_scene.clean["private_train"], tiny_scene.clean["private_test"]]
        assert not held & {s.numpy().tobytes() for s in secrets}

    def test_is_built_without_a_scene_with_stated_sizes(self, name) -> None:
        config = ATTACKS[name]
        open_sizes = [k for k in DEFAULT_SIZES if getattr(config, k, 0) is None]
        if not open_sizes:
            pytest.skip("has sizes of its own")
        built = config.make().config
        assert {k: getattr(built, k) for k in open_sizes} == {k: DEFAULT_SIZES[k] for k in open_sizes}


def test_the_walk_would_find_the_victim(tiny_scene: Scene) -> None:
    """The test above can fail: a closure or a bound method does not hide a model from it."""
    service = deploy(tiny_scene, "none", DEFENSES["none"]()).service
    holder = types.SimpleNamespace(inner=[{"f": service.answer}])
    assert any(isinstance(t, DefendedService) for t in reachable(holder))
    assert any(t is tiny_scene.victim for t in reachable(holder))


def test_the_passive_attacker_is_in_the_suite() -> None:
    assert ATTACKS[PASSIVE] == DecoderConfig()
