"""The pipeline against loops by hand: chunks, picks, keys, and who may draw random numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.defenses import DEFENSES
from mipoison.defenses.base import BaseDefense
from mipoison.defenses.pipeline import NoRandomness, Pipeline, chunk_rows, no_images, protect_chunks
from mipoison.protocols import CHUNK, Defense
from mipoison.randomness import QueryRandomness, content_keys, generator

CPU = torch.device("cpu")
K = 4
SECRET = b"secret"


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 2, 3, generator=generator(seed, "pipeline"))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, K))
    net[1].weight.data = 3 * torch.randn(K, 6, generator=generator(1))
    return net


class Mixing(BaseDefense):
    """Picks the surer half of a request, and adds a drawn number and the chunk's mean to what is picked."""

    draws = True

    def __init__(self, couples: bool = False, fresh: bool = False) -> None:
        self.couples, self.fresh = couples, fresh

    def pick(self, c_NK: Tensor) -> Tensor:
        top_N = c_NK.amax(1)
        return top_N > top_N.median() if len(top_N) else top_N > 0

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        z_NK = c_NK.double() + rng.uniform(K, "mixing") + (c_NK.mean(0) if self.couples else 0)
        return torch.where(picked_N[:, None], z_NK / z_NK.sum(1, keepdim=True), c_NK).float()


def by_hand(
    model: nn.Module, defense: Defense, requests: list[Tensor], asked: list[list[int]] | None = None
) -> list[Tensor]:
    """Each request alone, with plain torch: clean vectors, picks, keys, protected chunks."""
    out = []
    for number, x in enumerate(requests):
        with torch.no_grad():
            c = torch.cat([model(part).softmax(1) for part in x.split(CHUNK)])
        picked = defense.pick(c)
        for i in range(0, len(x), CHUNK):
            rows = slice(i, i + CHUNK)
            counts = None if asked is None else asked[number][rows]
            rng = QueryRandomness(content_keys(x[rows], SECRET, counts))
            out.append(defense.protect(c[rows], x[rows], picked[rows], rng=rng))
    return out


@pytest.mark.parametrize("couples", [False, True])
@pytest.mark.parametrize("n", [1, CHUNK, CHUNK + 1, 3 * CHUNK - 5])
def test_a_request_is_what_a_loop_by_hand_gives(model: nn.Module, couples: bool, n: int) -> None:
    defense, x = Mixing(couples), images(n)
    pipeline = Pipeline(model, defense, K, CPU)
    expected = by_hand(model, defense, [x])
    found = pipeline.release_chunks(x, secret=SECRET)
    assert list(found) == list(range(len(expected)))
    for k, rows in enumerate(expected):
        assert torch.equal(found[k], rows)
        assert torch.equal(pipeline.release_chunks(x, [k], secret=SECRET)[k], rows)
    assert torch.equal(pipeline.release(x, secret=SECRET), torch.cat(expected))


def test_fresh_draws_follow_the_counts(model: nn.Module) -> None:
    defense, x = Mixing(fresh=True), images(CHUNK + 9)
    counts = [i % 4 for i in range(len(x))]
    pipeline = Pipeline(model, defense, K, CPU)
    assert torch.equal(
        pipeline.release(x, secret=SECRET, asked_N=counts),
        torch.cat(by_hand(model, defense, [x], asked=[counts])),
    )
    never = torch.cat(by_hand(model, defense, [x], asked=[[0] * len(x)]))
    assert torch.equal(pipeline.release(x, secret=SECRET), never)


@pytest.mark.parametrize("couples", [False, True])
def test_requests_together_are_picked_and_coupled_each_alone(model: nn.Module, couples: bool) -> None:
    sizes = [30, 0, CHUNK + 40, 1, 90]
    x = images(sum(sizes))
    defense = Mixing(couples)
    released = Pipeline(model, defense, K, CPU).release(x, secret=SECRET, sizes=sizes)
    expected = torch.cat(by_hand(model, defense, [part for part in x.split(sizes) if len(part)]))
    torch.testing.assert_close(released, expected, rtol=0, atol=1e-6)  # other batches, other last bits


def test_chunks_cross_requests_only_where_nothing_is_coupled() -> None:
    sizes = [30, 0, CHUNK + 40, 1]
    assert chunk_rows(sizes, couples=False) == [slice(0, 128), slice(128, 199)]
    assert chunk_rows(sizes, couples=True) == [slice(0, 30), slice(30, 158), slice(158, 198), slice(198, 199)]
    assert chunk_rows([0], couples=False) == chunk_rows([], couples=True) == []


def test_drawing_without_a_declaration_or_a_secret_is_refused(model: nn.Module) -> None:
    undeclared = Mixing()
    undeclared.draws = False
    with pytest.raises(ConfigError, match="Mixing drew random numbers, but declares draws = False"):
        Pipeline(model, undeclared, K, CPU).release(images(3), secret=SECRET)
    with pytest.raises(ConfigError, match="Mixing draws keyed random numbers: give a secret"):
        Pipeline(model, Mixing(), K, CPU).release(images(3), secret=None)
    rounding = DEFENSES["rounding"]().make()
    assert Pipeline(model, rounding, K, CPU).release(images(3), secret=None).shape == (3, K)
    with pytest.raises(ConfigError, match="no reason"):
        NoRandomness(5, "no reason")[1:3].normal(2, "stream")
    assert len(NoRandomness(5, "no reason")[1:3]) == 2


class Peeking(BaseDefense):
    """Adds the image's first pixel, its mean or its largest pixel to the first score."""

    reads_image = True

    def __init__(self, how: str) -> None:
        self.how = how

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        pixel_N = {
            "pixel": lambda: x_NCHW[:, 0, 0, 0],
            "mean": lambda: x_NCHW.mean(),
            "moved": lambda: c_NK.new_zeros(len(c_NK)).to(x_NCHW),
            "rows": lambda: c_NK[x_NCHW.flatten(1).amax(1) > 0.5].sum(),
        }[self.how]()
        z_NK = c_NK.to(pixel_N) if self.how == "moved" else c_NK.clone()
        z_NK[:, 0] += pixel_N
        return z_NK


@pytest.mark.parametrize("how", ["pixel", "mean", "moved", "rows"])
def test_reading_the_image_without_a_declaration_is_refused(model: nn.Module, how: str) -> None:
    peeking = Peeking(how)
    assert Pipeline(model, peeking, K, CPU).release(images(3), secret=None).shape == (3, K)
    peeking.reads_image = False
    with pytest.raises(ConfigError, match="declares reads_image = False read the image"):
        Pipeline(model, peeking, K, CPU).release(images(3), secret=None)


def test_the_shape_of_images_is_no_secret() -> None:
    x = no_images(images(3))
    assert (len(x), x.shape, x.size(1), x.ndim, x.dim()) == (3, images(3).shape, images(3).shape[1], 4, 4)


def test_answers_as_if_the_classifier_had_said_something_else(model: nn.Module) -> None:
    """With the keys of the images; what the classifier does say plays no part."""
    c, x = torch.full((150, K), 1 / K), images(150)
    pipeline = Pipeline(model, Mixing(), K, CPU)
    found = pipeline.release_as_if(c, x, secret=SECRET)
    assert torch.equal(found, torch.cat(by_hand(lambda part: part.new_zeros(len(part), K), Mixing(), [x])))
    assert pipeline.release_as_if(c[:0], x[:0], secret=SECRET).shape == (0, K)


def test_no_queries(model: nn.Module) -> None:
    pipeline = Pipeline(model, Mixing(), K, CPU)
    assert pipeline.release(images(0), secret=SECRET).shape == (0, K)
    assert pipeline.clean(images(0)).shape == (0, K)
    assert protect_chunks(Mixing(), torch.empty(0, K), images(0), secret=SECRET, device=CPU) == {}
