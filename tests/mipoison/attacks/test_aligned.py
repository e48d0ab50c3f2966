"""The aligning attacker: matched features by hand, and a planted shift that powers alone do not undo."""

import functools

import torch
from torch import Tensor

from mipoison.attacks.aligned import Aligned, AlignedConfig, matched_features
from mipoison.attacks.matched import LEAST, matched_powers
from mipoison.attacks.mixtures import Mixtures, MixturesConfig
from mipoison.attacks.selection import RankedByLabel, Standardised
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator
from mipoison.simplex import label_of
from tests.mipoison.attacks.helpers import Spy

SHAPE = (1, 16, 16)
KNOWN = ThreatModel(None, {}, SHAPE)
PICTURES = torch.rand(3, 256, generator=generator(7, "pictures")) - 0.5


def logits(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Logits of three classes, and images that show them."""
    z_NK = torch.randn(n, 3, generator=generator(seed, "world")) + 3 * torch.eye(3)[torch.arange(n) % 3]
    return z_NK, (0.5 + 0.05 * z_NK @ PICTURES).clamp(0, 1).reshape(-1, *SHAPE)


def answers(x_NCHW: Tensor) -> Tensor:
    """The API: it sees in an image the logits that the image shows."""
    shown_NK = (x_NCHW.flatten(1) - 0.5) @ torch.linalg.pinv(0.05 * PICTURES)
    return torch.softmax(shown_NK, 1)


@functools.cache
def fitted(config: MixturesConfig) -> Mixtures:
    """The attacker that learned from 150 images; fitted once, since reconstructing changes nothing in it."""
    attack = config.make()
    attack.fit(Spy(answers, 3), logits(150, 0)[1], known=KNOWN, rng=generator(0, "attack"))
    return attack


def error(attack: Mixtures, c_NK: Tensor, x_NCHW: Tensor) -> float:
    return float((attack.reconstruct(c_NK) - x_NCHW).square().mean())


ALIGNED, PLAIN = AlignedConfig(each=2), MixturesConfig(each=2)


def test_matched_features_by_hand() -> None:
    """Of each label and feature: the mean and standard deviation of those of the own answers."""
    stolen, own = torch.softmax(2 * logits(300, 1)[0], 1), torch.softmax(logits(300, 2)[0], 1)
    reading = Standardised(own, "raw")
    found = matched_features(reading, stolen, own) * reading.scale_F + reading.mean_F
    for k in range(3):
        z, own_z = (c[label_of(c) == k].double() for c in (stolen, own))
        expected = (z - z.mean(0)) / z.std(0) * own_z.std(0) + own_z.mean(0)
        expected = expected.clamp(own.double().amin(0), own.double().amax(0))
        torch.testing.assert_close(found[label_of(stolen) == k], expected, atol=1e-9, rtol=1e-7)


def test_ranks_are_those_among_stolen_vectors() -> None:
    """Any increasing map of a label's scores leaves them as they are."""
    stolen, own = torch.softmax(2 * logits(300, 1)[0], 1), torch.softmax(logits(300, 2)[0], 1)
    reading = RankedByLabel(own, "raw")
    found = matched_features(reading, stolen, own)
    torch.testing.assert_close(found, RankedByLabel(stolen, "raw")(stolen))
    assert not torch.allclose(found, reading(stolen), atol=0.1)


def test_own_answers_are_read_as_they_are() -> None:
    own = torch.softmax(logits(300, 2)[0], 1)
    for reading in (Standardised(own, "log"), RankedByLabel(own, "log")):
        torch.testing.assert_close(matched_features(reading, own, own), reading(own), atol=1e-7, rtol=1e-6)


def test_few_vectors_of_a_label_are_read_as_they_are() -> None:
    own = torch.softmax(logits(300, 2)[0], 1)
    stolen = torch.softmax(2 * logits(300, 1)[0], 1)
    of_one = stolen[label_of(stolen) == 0]
    for reading in (Standardised(own, "log"), RankedByLabel(own, "log")):
        few, many = of_one[: LEAST - 1], of_one[:LEAST]
        torch.testing.assert_close(matched_features(reading, few, own), reading(few))
        assert not torch.allclose(matched_features(reading, many, own), reading(many))
        assert len(matched_features(reading, of_one[:0], own)) == 0
        rare = torch.cat([own[label_of(own) != 0], own[label_of(own) == 0][: LEAST - 1]])
        torch.testing.assert_close(matched_features(reading, many, rare), reading(many))


def test_it_undoes_a_shift_of_the_logits() -> None:
    """Stolen vectors are surer, and one class is lower in all of them: powers alone do not undo that."""
    z_NK, x_NCHW = logits(240, 1)
    stolen, own = torch.softmax(1.5 * z_NK - torch.tensor([0.0, 1.0, 0.0]), 1), answers(logits(150, 0)[1])
    plain = error(fitted(PLAIN), stolen, x_NCHW)
    powers = error(fitted(PLAIN), matched_powers(stolen, own), x_NCHW)
    assert error(fitted(ALIGNED), stolen, x_NCHW) < 0.9 * powers < 0.9 * plain


def test_it_learns_as_the_mixing_attacker_does_and_costs_little_without_a_shift() -> None:
    x_NCHW = logits(240, 1)[1]
    aligned, plain = fitted(ALIGNED), fitted(PLAIN)
    torch.testing.assert_close(
        Mixtures.reconstruct(aligned, answers(x_NCHW)), plain.reconstruct(answers(x_NCHW))
    )
    assert error(aligned, answers(x_NCHW), x_NCHW) < 1.3 * error(plain, answers(x_NCHW), x_NCHW) + 1e-4


def test_no_row_knows_its_place_and_equal_vectors_get_equal_images() -> None:
    """What keeps the attacker within the scope of certificates without noise."""
    attack = fitted(ALIGNED)
    assert isinstance(attack, Aligned)
    stolen = (torch.softmax(2 * logits(90, 1)[0], 1) * 10).round() / 10
    stolen = stolen / stolen.sum(1, keepdim=True)
    order = torch.randperm(90, generator=generator(3))
    images = attack.reconstruct(stolen)
    torch.testing.assert_close(attack.reconstruct(stolen[order]), images[order], atol=1e-5, rtol=1e-4)
    distinct, cell_N = torch.unique(stolen, dim=0, return_inverse=True)
    assert len(distinct) < 90
    for cell in range(len(distinct)):
        same = images[cell_N == cell]
        torch.testing.assert_close(same, same[:1].expand_as(same), atol=1e-6, rtol=0)
