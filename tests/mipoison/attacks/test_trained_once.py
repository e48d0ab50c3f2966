"""Decoders that see the same vectors behind two settings: one training, the same numbers bit by bit."""

import torch

from mipoison.attacks.averaging import AveragingConfig
from mipoison.attacks.class_mean import ClassMeanConfig
from mipoison.attacks.decoder import Decoder
from mipoison.attacks.robust import RobustConfig
from mipoison.attacks.trained_once import fit_once, is_shared
from mipoison.attacks.views import LOSSY, VIEWS
from mipoison.protocols import train_anew
from mipoison.randomness import generator
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage
from tests.mipoison.attacks.helpers import KNOWN, Spy, brightness, decoder, fit, grey

X = grey(40)


def less_sure(x_NCHW):
    """The labels of ``brightness``, other scores."""
    c_NK = brightness(x_NCHW)
    return 0.9 * c_NK + 0.05


def flipped(x_NCHW):
    """One label is another."""
    c_NK = brightness(x_NCHW)
    return torch.cat([c_NK[:1].flip(1), c_NK[1:]])


def fitted(config, answer, store, seed=0):
    """The attacker's reconstructions behind a defense that answers like this, and the seconds told."""
    attack, oracle = config.make(), Spy(answer, 2)
    seconds = fit_once(attack, oracle, X, known=KNOWN, rng=generator(seed, "attack"), trained=store.tensors)
    assert oracle.queries == len(X)
    return attack.reconstruct(answer(grey(30, seed=9))), seconds


def test_label_only_trains_once_behind_two_defenses_that_keep_labels(tmp_path):
    store, config = ArtifactStore(Storage(tmp_path)), decoder(view="label-only", features="raw")
    first, seconds = fitted(config, brightness, store)
    assert (store.made, store.reused) == (1, 0)
    second, told = fitted(config, less_sure, store)
    assert (store.made, store.reused) == (1, 1)
    for got, answer in ((first, brightness), (second, less_sure)):
        alone = fit(config, X, Spy(answer, 2)).reconstruct(answer(grey(30, seed=9)))
        assert torch.equal(got, alone)
    assert abs(told - seconds) < seconds  # the time of the training, not that of loading its network


def test_other_vectors_settings_or_seeds_are_trained_anew(tmp_path):
    store, config = ArtifactStore(Storage(tmp_path)), decoder(view="label-only", features="raw")
    fitted(config, brightness, store)
    for made, (changed, answer, seed) in enumerate(
        [(config, flipped, 0), (decoder(view="label-only", features="raw", steps=16), brightness, 0),
         (config, brightness, 1)], start=2,
    ):  # fmt: skip
        got, _ = fitted(changed, answer, store, seed)
        assert (store.made, store.reused) == (made, 0)
        alone = fit(changed, X, Spy(answer, 2), seed=seed).reconstruct(answer(grey(30, seed=9)))
        assert torch.equal(got, alone)


def test_held_out_images_and_later_randomness_are_as_if_trained(tmp_path):
    store, config = ArtifactStore(Storage(tmp_path)), decoder(view="top-k", strength=1, validation=0.2)
    runs = []
    for _ in range(2):
        attack, rng = config.make(), generator(0, "attack")
        fit_once(attack, Spy(brightness, 2), X, known=KNOWN, rng=rng, trained=store.tensors)
        runs.append((attack.later, rng.get_state()))
    plain, rng = config.make(), generator(0, "attack")
    plain.fit(Spy(brightness, 2), X, known=KNOWN, rng=rng)
    assert store.reused == 1
    assert all(later == plain.later and torch.equal(state, rng.get_state()) for later, state in runs)


def test_which_attackers_are_shared(tmp_path):
    assert set(LOSSY) <= set(VIEWS)
    shared = [is_shared(decoder(view=view).make()) for view in LOSSY]
    assert all(shared)
    assert is_shared(AveragingConfig(view="rounding").make())
    own = [decoder(), decoder(view="noise"), decoder(view="softmax"), RobustConfig(), ClassMeanConfig()]
    assert not any(is_shared(config.make()) for config in own)
    store = ArtifactStore(Storage(tmp_path))
    got, seconds = fitted(decoder(), brightness, store)
    assert (store.made, store.reused) == (0, 0)
    assert seconds > 0
    assert torch.equal(got, fit(decoder(), X).reconstruct(brightness(grey(30, seed=9))))


class OwnLoss(Decoder):
    """An attacker of another package: when its code changes, so does what it learns from the same vectors."""

    factor = 1.0

    def loss(self, output_NCHW, x_NCHW):
        return self.factor * (output_NCHW - x_NCHW).abs().mean()


def test_a_plug_in_is_trained_anew_after_its_code_has_changed(tmp_path, monkeypatch):
    store, config = ArtifactStore(Storage(tmp_path)), decoder(view="label-only", features="raw")
    assert not is_shared(OwnLoss(config))
    runs = []
    for factor in (1.0, -1.0):
        monkeypatch.setattr(OwnLoss, "factor", factor)
        attack = OwnLoss(config)
        arguments = {"known": KNOWN, "rng": generator(0, "attack")}
        fit_once(attack, Spy(brightness, 2), X, **arguments, trained=store.tensors)
        runs.append(attack.reconstruct(brightness(X)))
    assert store.made == 0
    assert not torch.equal(*runs)


def test_without_a_store_it_is_trained():
    attack = decoder(view="label-only").make()
    fit_once(attack, Spy(brightness, 2), X, known=KNOWN, rng=generator(0, "attack"), trained=train_anew)
    again = fit(decoder(view="label-only"), X)
    c_NK = brightness(grey(30, seed=9))
    assert torch.equal(attack.reconstruct(c_NK), again.reconstruct(c_NK))
