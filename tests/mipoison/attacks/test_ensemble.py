"""The stack against its members, and against the regression function, where that is known."""

import math

import pytest
import torch
from torch import Tensor

from mipoison.attacks.class_mean import ClassMeanConfig
from mipoison.attacks.ensemble import ASKING, CLOSED_FORMS, TRAINED, CheapStackConfig, Stack, StackConfig
from mipoison.config import Config, ConfigError
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator
from tests.mipoison.attacks.helpers import Spy

SHAPE = (1, 16, 16)
KNOWN = ThreatModel(None, {}, SHAPE)
SMALL = {"width": 4, "steps": 60, "batch": 32, "lr": 1e-2}


def world(n: int, told: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors over three labels, images, and the mean images given the vectors.

    The mean image is that of the label plus ``told`` times a fixed picture, by how large the label's score
    is; whatever else is in the image the vector does not tell.
    """
    rng = generator(seed, "world")
    label_N = torch.randint(0, 3, (n,), generator=rng)
    top_N = 0.5 + 0.49 * torch.rand(n, generator=rng)
    share_N = torch.rand(n, generator=rng)
    c_NK = torch.zeros(n, 3)
    rows = torch.arange(n)
    c_NK[rows, label_N] = top_N
    c_NK[rows, (label_N + 1) % 3] = (1 - top_N) * share_N
    c_NK[rows, (label_N + 2) % 3] = (1 - top_N) * (1 - share_N)
    fixed = generator(7, "pictures")
    picture, means = torch.randn(256, generator=fixed), torch.rand(3, 256, generator=fixed)
    known_ND = 0.5 + 0.1 * means[label_N] + told * (torch.sin(8 * top_N) * 0.2)[:, None] * picture / 3
    x_ND = known_ND + 0.1 * torch.randn(n, 256, generator=rng)
    return c_NK, x_ND.reshape(-1, *SHAPE), known_ND.reshape(-1, *SHAPE)


def fitted(config: Config, c_NK: Tensor, x_NCHW: Tensor, seed: int = 0) -> Stack:
    """An image that is not one of these gets the answer to the one that is most like it."""

    def answer(asked_NCHW: Tensor) -> Tensor:
        return c_NK[torch.cdist(asked_NCHW.flatten(1), x_NCHW.flatten(1)).argmin(1)]

    attack: Stack = config.make()
    attack.fit(Spy(answer, 3), x_NCHW, known=KNOWN, rng=generator(seed, "attack"))
    return attack


def error(attack: object, c_NK: Tensor, x_NCHW: Tensor) -> float:
    return float((attack.reconstruct(c_NK) - x_NCHW).square().mean())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (CheapStackConfig(folds=3), 0.0),
        (CheapStackConfig(folds=3), 1.0),
        (StackConfig(folds=2, **SMALL), 1.0),
    ],
    ids=["cheap, nothing told", "cheap", "all"],
)
def test_the_stack_is_about_as_good_as_its_best_member(config: CheapStackConfig, told: float) -> None:
    """Distances to the regression function, where the noise of the images cancels."""
    c, x, _ = world(240, told, 0)
    fresh_c, _, target = world(1000, told, 1)
    members = {"class-mean": ClassMeanConfig(), **config.members()}
    errors = {name: error(fitted(member, c, x), fresh_c, target) for name, member in members.items()}
    stack = error(fitted(config, c, x), fresh_c, target)
    unknowable = 0.01  # variance of what the vector does not tell
    assert stack < min(errors.values()) + 0.005 * unknowable
    if told:
        assert stack < 0.5 * errors["class-mean"]


def test_nothing_is_told_and_the_stack_answers_with_the_label_s_mean() -> None:
    c, x, target = world(240, 0.0, 2)
    mean = error(fitted(ClassMeanConfig(), c, x), c, target)
    assert error(fitted(CheapStackConfig(folds=2), c, x), c, target) < mean + 1e-4


def test_each_image_is_asked_once_whatever_the_members() -> None:
    """Beside its images, which all members share, ``mixtures`` asks four questions of each of its fold's."""
    c, x, _ = world(40, 1.0, 0)
    for config, asked in ((CheapStackConfig, [40]), (StackConfig, [40, 80, 80])):
        spy = Spy(lambda asked: c[torch.arange(len(asked)) % 40], 3)
        config(folds=2, **SMALL | {"steps": 3}).make().fit(spy, x, known=KNOWN, rng=generator(0))
        assert [len(request) for request in spy.asked] == asked
        assert torch.equal(spy.asked[0], x)


def test_members_and_their_sizes() -> None:
    members = StackConfig(**SMALL).members()
    assert set(members) == set(CLOSED_FORMS) | set(TRAINED) | set(ASKING)
    assert set(CheapStackConfig().members()) == set(CLOSED_FORMS)
    assert members["passive"].steps == 60  # type: ignore[attr-defined]
    assert CheapStackConfig.COST < StackConfig.COST


def test_equal_vectors_get_equal_images_and_a_batch_is_no_more_than_its_rows() -> None:
    c, x, _ = world(60, 1.0, 0)
    attack = fitted(CheapStackConfig(folds=2), c, x)
    whole = attack.reconstruct(c[:9])
    rows = torch.cat([attack.reconstruct(row[None]) for row in c[:9]])
    torch.testing.assert_close(whole, rows, atol=1e-6, rtol=0)
    assert torch.equal(attack.reconstruct(c[[3, 3]])[0], attack.reconstruct(c[[3, 3]])[1])


def test_a_label_that_was_never_seen() -> None:
    c, x, _ = world(60, 1.0, 0)
    seen = c.argmax(1) != 2
    attack = fitted(CheapStackConfig(folds=2), c[seen], x[seen])
    assert bool(attack.reconstruct(torch.tensor([[0.1, 0.1, 0.8]])).isfinite().all())


@pytest.mark.parametrize(
    "changes", [{"folds": 1}, {"folds": 21}, {"data": "D3"}, {"steps": 0}, {"lr": 0.0}, {"lr": math.nan}]
)
def test_bounds(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        StackConfig(**changes)  # type: ignore[arg-type]
