"""Views of an answer: shape and simplex kept, each by hand, strengths adapted to the public budget."""

import math

import pytest
import torch
from torch import Tensor

from mipoison.attacks.decoder import Decoder
from mipoison.attacks.views import VIEWS, adapted_strength
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator
from tests.mipoison.attacks.helpers import BLIND, SHAPE, decoder, fit, grey

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
