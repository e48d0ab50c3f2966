"""The contract of every entry of ATTACKS; then each option changes what it is supposed to change."""

import dataclasses
import gc
import math
import pickle
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mipoison.attacks.decoder as decoder_module
from mipoison.attacks import ATTACKS, PASSIVE
from mipoison.attacks.decoder import Decoder, DecoderConfig
from mipoison.attacks.sizes import DEFAULT_SIZES
from mipoison.attacks.views import VIEWS, adapted_strength
from mipoison.config import Config
from mipoison.defenses import DEFENSES
from mipoison.deployment import deploy
from mipoison.episode import at_scale
from mipoison.protocols import Attack, ThreatModel
from mipoison.randomness import generator
from mipoison.scene import Scene
from mipoison.service import DefendedService, MeteredOracle

SHAPE = (1, 16, 16)
KNOWN = ThreatModel("noise", {"budget": 0.01, "randomness": "keyed"}, SHAPE)
BLIND = ThreatModel(None, {}, SHAPE)
DRAWS_NOTHING = ("class-mean",)  # whatever its seed, it answers the same; one image is enough for it


class Spy:
    """An oracle that records its queries."""

    def __init__(self, answer, n_classes: int) -> None:
        self.answer, self.n_classes, self.asked = answer, n_classes, []

    @property
    def queries(self) -> int:
        return sum(len(x) for x in self.asked)

    def query(self, x_NCHW: Tensor) -> Tensor:
        self.asked.append(x_NCHW.clone())
        return self.answer(x_NCHW)


def brightness(x_NCHW: Tensor) -> Tensor:
    """An easy victim: two scores that tell how bright the image is."""
    b = x_NCHW.mean((1, 2, 3)).clamp(0.02, 0.98)
    return torch.stack([b, 1 - b], 1)


def grey(n: int, seed: int = 0) -> Tensor:
    """Flat grey images of any brightness."""
    rng = generator(seed, "grey")
    return (torch.rand(n, 1, 1, 1, generator=rng) + 0.02 * torch.randn(n, *SHAPE, generator=rng)).clamp(0, 1)


def small(config: Config, scene: Scene) -> Config:
    """Sizes of the tiny scene, but for the steps: a contract does not need a good attacker."""
    config = at_scale(config, scene.config)
    return dataclasses.replace(config, **{"steps": 15} if "steps" in config.field_kinds() else {})


def fit(config: Any, x_NCHW: Tensor, oracle: Any = None, known: ThreatModel = KNOWN, seed: int = 0) -> Attack:
    attack: Attack = config.make()
    attack.fit(oracle or Spy(brightness, 2), x_NCHW, known=known, rng=generator(seed, "attack"))
    return attack


def decoder(**changes: Any) -> DecoderConfig:
    return DecoderConfig(**{"width": 2, "steps": 15, "batch": 16, "lr": 5e-3, **changes})


# ------------------------------------------------------------------------------------------- the contract


@pytest.fixture(scope="module")
def played(tiny_scene: Scene) -> dict[str, tuple[Attack, MeteredOracle, Tensor]]:
    """Every attacker against lightly noised answers of the tiny scene's own service."""
    deployment = deploy(tiny_scene, "noise", DEFENSES["noise"]())
    known = ThreatModel("noise", deployment.config.flat(), tiny_scene.split.image_shape)
    out = {}
    for name, config in ATTACKS.items():
        oracle = MeteredOracle(deployment.service.answer, tiny_scene.split.n_classes)
        x = tiny_scene.split.attack_train.x_NCHW
        out[name] = (fit(small(config, tiny_scene), x, oracle, known), oracle, x)
    return out


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
        attack = played[name][0]
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
        out = played[name][0].reconstruct(torch.cat([torch.eye(k), torch.full((1, k), 1 / k)]))
        assert bool(((out >= 0) & (out <= 1)).all())

    def test_training_leaves_the_attacker_s_images(self, name, tiny_scene) -> None:
        x = tiny_scene.split.attack_train.x_NCHW[:20].clone()
        before = x.clone()
        spy = Spy(brightness, 2)
        fit(small(ATTACKS[name], tiny_scene), x, spy)
        assert torch.equal(x, before)

    def test_repeats_under_one_seed(self, name, played, tiny_scene) -> None:
        deployment = deploy(tiny_scene, "noise", DEFENSES["noise"]())
        c, x = tiny_scene.clean["private_train"][:9], tiny_scene.split.attack_train.x_NCHW[:30]
        known = ThreatModel("noise", deployment.config.flat(), tiny_scene.split.image_shape)
        config = small(ATTACKS[name], tiny_scene)
        runs = []
        for seed, global_seed in ((0, 1), (0, 2), (1, 1)):
            oracle = MeteredOracle(deployment.service.answer, tiny_scene.split.n_classes)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(global_seed)
                runs.append(fit(config, x, oracle, known, seed).reconstruct(c))
        assert torch.equal(runs[0], runs[1])
        assert torch.equal(runs[0], runs[2]) == (name in DRAWS_NOTHING)

    def test_leaves_the_global_random_state(self, name, tiny_scene) -> None:
        before = torch.get_rng_state()
        attack = fit(small(ATTACKS[name], tiny_scene), grey(12))
        attack.reconstruct(brightness(grey(3)))
        assert torch.equal(torch.get_rng_state(), before)

    def test_pickles_after_fit(self, name, played, tiny_scene) -> None:
        c = tiny_scene.clean["private_train"][:9]
        again = pickle.loads(pickle.dumps(played[name][0]))
        attack = pickle.loads(pickle.dumps(played[name][0]))
        assert torch.equal(again.reconstruct(c), attack.reconstruct(c))

    def test_queries_are_metered(self, name, played) -> None:
        _, oracle, x = played[name]
        assert oracle.queries >= len(x)

    def test_too_few_images_are_refused(self, name, tiny_scene) -> None:
        config = small(ATTACKS[name], tiny_scene)
        for n in (0,) if name in DRAWS_NOTHING else (0, 1, 3):
            with pytest.raises(ValueError, match=rf"at least \d+ images?\b.*got {n}"):
                fit(config, grey(n))
        fit(config, grey(12))

    def test_asks_its_own_images_only(self, name, tiny_scene) -> None:
        """Images that the attacker holds, or derived from them; never the private ones."""
        spy = Spy(lambda x: torch.full((len(x), 5), 0.2), 5)
        fit(small(ATTACKS[name], tiny_scene), tiny_scene.split.attack_train.x_NCHW[:30], spy)
        private = {row.numpy().tobytes() for row in tiny_scene.split.private_train.x_NCHW}
        assert not private & {row.numpy().tobytes() for x in spy.asked for row in x}

    def test_holds_nothing_of_the_defender(self, name, played, tiny_scene) -> None:
        attack, _, _ = played[name]
        things = reachable(attack)
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


def test_the_oracle_offers_three_things(tiny_scene: Scene) -> None:
    oracle = MeteredOracle(deploy(tiny_scene, "none", DEFENSES["none"]()).service.answer, 5)
    assert sorted(n for n in dir(oracle) if not n.startswith("_")) == ["n_classes", "queries", "query"]
    assert not hasattr(oracle, "__dict__")
    for name in ("n_classes", "queries", "victim"):
        with pytest.raises(AttributeError):
            setattr(oracle, name, 0)


def test_threat_model_prints_itself() -> None:
    assert "noise" in str(KNOWN)
    assert "0.01" in str(KNOWN)
    assert "nothing of the defense" in str(BLIND)
    assert "(1, 16, 16)" in str(BLIND)


def test_the_passive_attacker_is_in_the_suite() -> None:
    assert ATTACKS[PASSIVE] == DecoderConfig()


# ------------------------------------------------------------------------------------------- the decoder


@pytest.mark.parametrize("features", ["log", "raw"])
def test_decoder_beats_the_mean_image_on_an_easy_oracle(features: str) -> None:
    x, private = grey(120), grey(60, seed=1)
    attack = fit(decoder(features=features, steps=250, width=4, lr=1e-2), x)
    error = (attack.reconstruct(brightness(private)) - private).square().mean()
    mean_error = (x.mean(0) - private).square().mean()
    assert float(error) < 0.2 * float(mean_error)


def test_label_only_view_cannot_see_the_brightness() -> None:
    """A single bit is left of each vector, so a bright and a brighter image give the same reconstruction."""
    attack = fit(decoder(view="label-only", features="raw", steps=100, width=4, lr=1e-2), grey(120))
    out = attack.reconstruct(torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]]))
    assert torch.equal(out[0], out[1])
    assert float(out[0].mean()) > float(out[2].mean()) + 0.1


def model_of(attack: Attack) -> Any:
    assert isinstance(attack, Decoder)
    return attack.model


def test_features_extra_blocks_and_width_shape_the_model() -> None:
    x = grey(12)
    plain = model_of(fit(decoder(), x))
    assert model_of(fit(decoder(features="raw"), x)).kind == "raw"
    assert plain.kind == "log"
    assert len(model_of(fit(decoder(extra_blocks=1), x)).layers) == len(plain.layers) + 3
    assert model_of(fit(decoder(width=3), x)).layers[-1].in_channels == 3
    assert plain.layers[0].in_channels == 2  # the number of classes


@pytest.fixture
def training_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Arguments of every call of the training loop, which still runs."""
    calls: list[dict[str, Any]] = []
    original = decoder_module.train

    def spy(model: nn.Module, inputs: Tensor, targets: Tensor, loss: Any, **kwargs: Any) -> nn.Module:
        calls.append({"inputs": inputs, "targets": targets, "loss": loss, **kwargs})
        return original(model, inputs, targets, loss, **kwargs)

    monkeypatch.setattr(decoder_module, "train", spy)
    return calls


def test_training_settings_reach_the_loop(training_calls: list[dict[str, Any]]) -> None:
    x = grey(12)
    fit(decoder(steps=7, batch=5, lr=3e-3, loss="psnr"), x)
    (call,) = training_calls
    assert (call["steps"], call["batch"], call["lr"]) == (7, 5, 3e-3)
    assert (call["betas"], call["amsgrad"], call["validation"]) == ((0.5, 0.999), True, None)
    a, b = torch.tensor([0.5]), torch.tensor([0.4])
    assert float(call["loss"](a, b)) == pytest.approx(10 * math.log10(0.01), abs=1e-4)
    assert torch.equal(call["targets"], x)
    torch.testing.assert_close(call["inputs"], brightness(x))


def test_the_loss_changes_the_result() -> None:
    x, c = grey(40), brightness(grey(5, seed=1))
    assert not torch.equal(fit(decoder(), x).reconstruct(c), fit(decoder(loss="psnr"), x).reconstruct(c))


@pytest.mark.parametrize(("share", "held"), [(0.25, 10), (0.5, 20), (0.001, 1)])
def test_validation_holds_out_pairs(training_calls: list[dict[str, Any]], share: float, held: int) -> None:
    x = grey(40)
    fit(decoder(validation=share, steps=50, patience=4), x)
    (call,) = training_calls
    validation = call["validation"]
    assert len(validation.targets) == held
    assert (validation.every, validation.patience) == (5, 4)
    rows = [row.numpy().tobytes() for part in (call["targets"], validation.targets) for row in part]
    assert sorted(rows) == sorted(row.numpy().tobytes() for row in x)  # every image once
    torch.testing.assert_close(validation.inputs, brightness(validation.targets))  # pairs stay pairs
    torch.testing.assert_close(call["inputs"], brightness(call["targets"]))


def test_early_stopping_keeps_the_best_validation_state(monkeypatch: pytest.MonkeyPatch) -> None:
    import mipoison.training as training

    scores = []
    original = training.held_out_loss

    def spy(model: nn.Module, loss: Any, validation: Any) -> float:
        scores.append((original(model, loss, validation), validation))
        return scores[-1][0]

    monkeypatch.setattr(training, "held_out_loss", spy)
    noise = torch.rand(12, *SHAPE, generator=generator(0))  # nothing to learn: training only overfits
    attack = fit(decoder(validation=0.5, steps=200, batch=6, lr=3e-2, patience=100, width=4), noise)
    values = [s for s, _ in scores]
    assert len(values) == 10
    assert min(values) < values[-1]
    validation = scores[0][1]
    out = model_of(attack)(validation.inputs)
    assert (out - validation.targets).square().mean().item() == pytest.approx(min(values), rel=1e-5)


def test_the_view_comes_before_training_and_before_reconstruction(
    training_calls: list[dict[str, Any]],
) -> None:
    x = grey(30)
    attack = fit(decoder(view="rounding", strength=1.0), x)
    tenths = training_calls[0]["inputs"] * 10
    torch.testing.assert_close(tenths, tenths.round())
    near = torch.tensor([[0.61, 0.39], [0.58, 0.42]])
    out = attack.reconstruct(near)
    assert torch.equal(out[0], out[1])
    plain = fit(decoder(), x).reconstruct(near)
    assert not torch.equal(plain[0], plain[1])


# ------------------------------------------------------------------------------------------------- views


def some_vectors(n: int = 30, k: int = 5) -> Tensor:
    return torch.softmax(torch.randn(n, k, generator=generator(0, "c")), 1)


@pytest.mark.parametrize("name", VIEWS)
def test_views_keep_shape_dtype_input_and_the_simplex(name: str) -> None:
    for c in (some_vectors(), some_vectors(1), some_vectors(0), some_vectors().double()):
        before = c.clone()
        z = VIEWS[name](c, 1.0, generator(0))
        assert z.shape == c.shape
        assert z.dtype == c.dtype
        assert bool((z >= 0).all())
        assert bool(((z.sum(1) - 1).abs() < 1e-5).all())
        assert torch.equal(c, before)


@pytest.mark.parametrize("name", VIEWS)
def test_views_repeat_under_one_seed(name: str) -> None:
    c = some_vectors()
    assert torch.equal(VIEWS[name](c, 0.1, generator(0)), VIEWS[name](c, 0.1, generator(0)))


def test_identity_and_label_only_views() -> None:
    c = some_vectors()
    assert torch.equal(VIEWS["identity"](c, 1.0, generator(0)), c)
    tied = torch.tensor([[0.4, 0.4, 0.2]])
    assert VIEWS["label-only"](tied, 1.0, generator(0)).tolist() == [[1, 0, 0]]


def test_noise_view_has_its_length_inside_the_simplex() -> None:
    c = torch.full((500, 5), 0.2, dtype=torch.float64)
    moved = VIEWS["noise"](c, 0.03, generator(0)) - c
    torch.testing.assert_close(
        moved.norm(dim=1), torch.full((500,), 0.03, dtype=torch.float64), rtol=1e-9, atol=0
    )
    assert float(moved.mean(0).norm()) < 4 * 0.03 / math.sqrt(500)
    assert torch.equal(
        VIEWS["noise"](some_vectors(), 0.1, generator(0)), VIEWS["noise"](some_vectors(), 0.1, generator(0))
    )
    assert not torch.equal(VIEWS["noise"](c, 0.1, generator(0)), VIEWS["noise"](c, 0.1, generator(1)))


def test_softmax_view_by_hand() -> None:
    z = VIEWS["softmax"](torch.tensor([[1.0, 0.0]]), 2.0, generator(0))
    assert z[0].tolist() == pytest.approx([math.e**2 / (math.e**2 + 1), 1 / (math.e**2 + 1)], rel=1e-6)


def test_rounding_view_removes_what_is_smaller_than_a_unit() -> None:
    c = torch.tensor([[0.6, 0.3, 0.1]])
    moved = c + torch.tensor([[0.003, -0.002, -0.001]])
    assert torch.equal(VIEWS["rounding"](moved, 2.0, generator(0)), VIEWS["rounding"](c, 2.0, generator(0)))


def test_top_k_view_by_hand() -> None:
    c = torch.tensor([[0.1, 0.5, 0.05, 0.35], [0.25, 0.25, 0.25, 0.25]])
    view = VIEWS["top-k"]
    torch.testing.assert_close(view(c, 2.0, generator(0))[0], torch.tensor([0.075, 0.5, 0.075, 0.35]))
    torch.testing.assert_close(view(c, 1.0, generator(0))[0], torch.tensor([1 / 6, 0.5, 1 / 6, 1 / 6]))
    for k in (4.0, 9.0):
        assert torch.equal(view(c, k, generator(0)), c)
    assert torch.equal(view(c, 1.0, generator(0))[1], c[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_view_keeps_the_label_where_scores_nearly_tie(k: int, dtype: torch.dtype) -> None:
    c = torch.full((200, 5), 0.2, dtype=dtype)
    c = c + torch.randint(-2, 3, c.shape, generator=generator(0)) * torch.finfo(dtype).eps / 8
    assert torch.equal(VIEWS["top-k"](c, float(k), generator(0)).argmax(1), c.argmax(1))


@pytest.mark.parametrize(
    ("budget", "decimals"),
    [
        (0.5, 0),
        (0.1, 0),
        (0.05, 1),
        (0.04, 1),
        (0.01, 1),
        (0.005, 2),
        (0.004, 2),
        (1e-4, 3),
        (1e-9, 6),
        (1.5, 0),
    ],
)
def test_rounding_adapts_to_the_public_budget(budget: float, decimals: int) -> None:
    """The largest number of decimals whose unit is at least twice the budget, 0 to 6."""
    known = ThreatModel("lpa", {"budget": budget}, SHAPE)
    strength = adapted_strength("rounding", known)
    assert strength == decimals
    assert type(strength) is float
    if 0 < decimals < 6:
        assert 10.0**-decimals >= 2 * budget * (1 - 1e-9)
        assert 10.0 ** -(decimals + 1) < 2 * budget


def test_strengths_without_a_budget_and_of_the_other_views() -> None:
    for known in (BLIND, ThreatModel("none", {}, SHAPE), ThreatModel("noise", {"budget": 0.0}, SHAPE)):
        assert adapted_strength("rounding", known) == 2.0
        assert adapted_strength("noise", known) == 0.01
        assert adapted_strength("softmax", known) == 1.0
        assert adapted_strength("top-k", known) == 3.0
    assert adapted_strength("noise", ThreatModel("lpa", {"budget": 0.07}, SHAPE)) == 0.07


def test_a_set_strength_wins_over_the_adapted_one() -> None:
    for strength, expected in ((None, 0.01), (0.2, 0.2), (0.0, 0.0)):
        attack = fit(decoder(view="noise", strength=strength), grey(12))
        assert isinstance(attack, Decoder)
        assert attack.strength == expected
