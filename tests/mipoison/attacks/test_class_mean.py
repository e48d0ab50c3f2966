"""The class-mean attacker, against a slow loop, and what makes it the floor of every suite."""

import pytest
import torch
from torch import Tensor

from mipoison.attacks import ATTACKS, LABEL_ATTACKER, SUITE
from mipoison.attacks.class_mean import ClassMeanConfig
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator

KNOWN = ThreatModel(None, {}, (1, 2, 3))


class Answers:
    """Releases what it was given, row by row."""

    def __init__(self, c_NK: Tensor) -> None:
        self.c_NK, self.n_classes, self.queries = c_NK, c_NK.shape[1], 0

    def query(self, x_NCHW: Tensor) -> Tensor:
        self.queries += len(x_NCHW)
        return self.c_NK[: len(x_NCHW)]


def test_answers_are_the_means_of_its_own_images_by_label() -> None:
    rng = generator(3, "class mean")
    c_NK = torch.softmax(3 * torch.randn(40, 5, generator=rng), 1)
    c_NK[c_NK.argmax(1) == 2] = torch.tensor([0.5, 0.2, 0.1, 0.1, 0.1])  # nobody answers label 2
    x = torch.rand(40, 1, 2, 3, generator=rng)
    attack = ClassMeanConfig().make()
    oracle = Answers(c_NK)
    attack.fit(oracle, x, known=KNOWN, rng=rng)
    assert oracle.queries == 40
    asked = torch.softmax(3 * torch.randn(30, 5, generator=rng), 1)
    rec = attack.reconstruct(asked)
    for row, c_K in zip(rec, asked, strict=True):
        own = [image for image, c in zip(x, c_NK, strict=True) if int(c.argmax()) == int(c_K.argmax())]
        assert (len(own) == 0) == (int(c_K.argmax()) == 2)
        expected = torch.stack(own or list(x)).double().mean(0)
        torch.testing.assert_close(row.double(), expected, atol=1e-7, rtol=0)


def test_nothing_but_the_label_counts() -> None:
    rng = generator(4, "class mean")
    c_NK = torch.softmax(3 * torch.randn(40, 5, generator=rng), 1)
    sharper = torch.softmax(9 * c_NK, 1)
    x = torch.rand(40, 1, 2, 3, generator=rng)
    answers = []
    for vectors in (c_NK, sharper):
        attack = ClassMeanConfig().make()
        attack.fit(Answers(vectors), x, known=KNOWN, rng=rng)
        answers.append(attack.reconstruct(vectors))
    assert torch.equal(*answers)


def test_refuses_an_empty_set_and_is_in_the_suite() -> None:
    attack = ClassMeanConfig().make()
    with pytest.raises(ValueError, match="at least 1 image"):
        attack.fit(Answers(torch.ones(1, 2)), torch.empty(0, 1, 2, 3), known=KNOWN, rng=generator(0))
    assert LABEL_ATTACKER in SUITE
    assert LABEL_ATTACKER in ATTACKS
