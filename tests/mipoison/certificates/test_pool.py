"""The pool game against enumeration in slow loops, closed forms, and attackers who know everything."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor

from mipoison.certificates import Gaussian
from mipoison.certificates import pool as pool_module
from mipoison.certificates.pool import _posteriors, cells_of, exact, sampled, within_variance
from mipoison.metrics.check_conditions import CERTIFICATE_ROUNDING
from mipoison.randomness import generator


def pool(n: int, pixels: int = 7, dimensions: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = generator(seed, "pool")
    return torch.rand(n, pixels, generator=rng), torch.rand(n, dimensions, generator=rng)


def gaussian(means_NM: Tensor, sigma: float) -> Gaussian:
    return Gaussian(means_NM, sigma, lambda rows_ND, y_NM: y_NM)


# ------------------------------------------------------------------------------------------------ cells


def test_cells_are_rows_equal_to_the_bit() -> None:
    row = torch.tensor([0.1, 0.9])
    ends = torch.tensor([[0.0, 1.0], [-0.0, 1.0]])
    cell = cells_of(torch.cat([torch.stack([row, row.nextafter(torch.ones(2)), row]), ends]))
    assert cell[0] == cell[2]
    assert len(set(cell.tolist())) == 4  # one ulp off, and -0 for 0: an attacker can see either
    assert cells_of(torch.zeros(3, 0)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("pixels", [1, 7, 300])
def test_cells_against_enumeration(pixels: int) -> None:
    x, _ = pool(40, pixels)
    cell = torch.randint(0, 9, (40,), generator=generator(1, "cells"))
    cell[0] = 9  # alone
    cell = cells_of(cell[:, None])
    groups = [[i for i in range(40) if cell[i] == c] for c in range(int(cell.max()) + 1)]
    wide = x.numpy().astype(np.float64)
    total = sum(((wide[i] - wide[g].mean(0)) ** 2).sum() for g in groups for i in g)
    bound = exact(cell, x)
    assert bound.error == pytest.approx(total / 40 / pixels, rel=1e-12)
    # Whoever is told the cell names one of its images: right once per cell.
    assert bound.identification == pytest.approx(sum(1 / len(g) for g in groups for _ in g) / 40)
    assert bound.smallest_cell == min(map(len, groups)) == 1
    assert bound.share_in_small_cells == sum(len(g) for g in groups if len(g) < 5) / 40
    assert bound.tolerance == 0


def test_an_image_alone_in_its_cell_is_read_exactly() -> None:
    x, _ = pool(20)
    bound = exact(torch.arange(20), x)
    assert (bound.error, bound.identification, bound.share_in_small_cells) == (0.0, 1.0, 1.0)


# ------------------------------------------------------------------------------------------------ noise


@pytest.mark.parametrize("pairs", [2**17, 20])
@pytest.mark.parametrize(("pixels", "sigma"), [(3, 0.3), (40, 0.3), (40, 0.02), (40, 0.01), (3, 1e-9)])
def test_posteriors_against_enumeration(
    pixels: int, sigma: float, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More images than pixels and fewer: by the means themselves, and by the Gram matrix; all draws at once,
    and few; posteriors from one half to numbers below the smallest that there are."""
    monkeypatch.setattr(pool_module, "PAIRS", pairs)
    n = 12
    x, means = pool(n, pixels)
    x, means = x.double(), means.double()
    cell = torch.tensor([0] * 7 + [1] * 4 + [2])
    image = torch.arange(n).repeat_interleave(3)
    found = _posteriors(cell, image, means, sigma, x, generator(0, "noise"))
    noise = torch.randn(len(image), means.shape[1], dtype=torch.float64, generator=generator(0, "noise"))
    for s, i in enumerate(image.tolist()):
        y = means[i] + sigma * noise[s]
        members = [j for j in range(n) if cell[j] == cell[i]]
        log = [-sum((float(a) - float(b)) ** 2 for a, b in zip(y, means[j], strict=True)) / (2 * sigma**2)
               for j in members]  # fmt: skip
        weight = np.exp(np.array(log) - max(log))
        weight /= weight.sum()
        pictures = x[members].numpy()
        mean = weight @ pictures
        variance = float((weight * ((pictures - mean) ** 2).mean(1)).sum())
        error = float(((x[i].numpy() - mean) ** 2).mean())
        ours = [float(f[s]) for f in (found.variance_S, found.error_S, found.top_S)]
        assert ours == pytest.approx([variance, error, weight.max()], abs=1e-9)
    cells = [x[(cell == k).nonzero()[:, 0]].numpy() for k in (0, 1)]
    deviations = [c - c.mean(0) for c in cells]
    assert found.radius == pytest.approx(max((d**2).mean(1).max() for d in deviations))
    largest = max(np.linalg.eigvalsh(d.T @ d / len(d))[-1] for d in deviations) / pixels
    assert largest <= found.swing <= max((d**2).mean() for d in deviations)


@pytest.mark.parametrize(("apart", "sigma", "askings"), [(1.0, 0.5, 1), (1.0, 2.0, 1), (0.3, 1.0, 9)])
def test_two_images_in_one_dimension_have_a_closed_form(apart: float, sigma: float, askings: int) -> None:
    """The better guess is right with probability Phi(q^0.5 apart / 2 sigma), the error function."""
    x = torch.tensor([[0.0, 0.2], [1.0, 0.6]])
    bound = sampled(
        torch.zeros(2, dtype=torch.int64), gaussian(torch.tensor([[0.0], [apart]]), sigma), x,
        rng=generator(0, "two"), askings=askings, draws=40_000,
    )  # fmt: skip
    right = scipy.stats.norm.cdf(math.sqrt(askings) * apart / (2 * sigma))
    assert right <= bound.identification < right + 0.005

    # q answers, all of them kept: the likelihood ratio is that of their sum, no mean is taken here.
    def variance(total: float) -> float:
        log = (apart * total - askings * apart**2 / 2) / sigma**2
        p = scipy.special.expit(log)
        spread = sigma * math.sqrt(askings)
        density = sum(scipy.stats.norm.pdf(total, askings * m, spread) for m in (0.0, apart)) / 2
        return float(p * (1 - p) * density * ((1.0**2 + 0.4**2) / 2))

    width = 12 * sigma * math.sqrt(askings)
    error = scipy.integrate.quad(variance, -width, askings * apart + width, limit=200)[0]
    assert 0.98 * error < bound.error <= error


def test_the_limits_hold_as_often_as_they_say() -> None:
    """Noisy on purpose, 300 draws: the true values lie beyond a limit in one of a hundred at most."""
    x, means = pool(30, 5)
    cell, noise = torch.zeros(30, dtype=torch.int64), gaussian(means, 0.1)
    truth = _posteriors(cell, torch.arange(30).repeat_interleave(4000), means.double(), 0.1, x, generator(1))
    error, top = float(truth.variance_S.mean()), float(truth.top_S.mean())
    bounds = [sampled(cell, noise, x, rng=generator(seed, "cover"), draws=300) for seed in range(400)]
    for outside in ([b.error > error for b in bounds], [b.identification < top for b in bounds]):
        assert sum(outside) <= scipy.stats.binom.ppf(0.999, 400, 0.01)
    assert all(0.5 * error < b.error and b.identification < top + 0.15 for b in bounds)


@pytest.mark.parametrize("draws", [300, 900])
def test_the_limits_hold_where_a_rare_draw_matters(draws: int) -> None:
    """A crowd with one mean and one image apart: its posterior is large, and the crowd's never is. Few draws
    miss it altogether, or have it once, so that a normal limit of identification fails in up to half of all
    pools of draws; with fewer draws than images, and with more."""
    n, apart, sigma = 401, 3.0, 1.0
    means = torch.zeros(n, 1)
    means[-1] = apart
    x = torch.rand(n, 3, generator=generator(0, "crowd"))

    def largest(y: float) -> float:
        crowd, alone = scipy.stats.norm.pdf(y, 0, sigma), scipy.stats.norm.pdf(y, apart, sigma)
        return float(max(crowd, alone)) / n

    truth = scipy.integrate.quad(largest, -10, 14, points=[apart / 2], limit=200)[0]
    noise = gaussian(means, sigma)
    found = [
        sampled(torch.zeros(n, dtype=torch.int64), noise, x, rng=generator(seed, "rare"), draws=draws)
        for seed in range(200)
    ]
    assert sum(b.identification < truth for b in found) <= scipy.stats.binom.ppf(0.999, 200, 0.01)


def test_pools_too_large_for_two_draws_each_are_drawn_from() -> None:
    x, means = pool(3000, 5)
    cell = (torch.arange(3000) >= 1000).long()
    few = sampled(cell, gaussian(means, 0.1), x, rng=generator(0, "few"), draws=1500)
    many = sampled(cell, gaussian(means, 0.1), x, rng=generator(0, "many"), draws=9000)
    assert few.error < many.error < few.error * 1.05
    assert many.identification < few.identification < many.identification + 0.01
    assert few.tolerance >= 0.9 * many.tolerance


def test_without_noise_to_speak_of_the_images_are_told_and_with_much_of_it_the_cell_alone() -> None:
    x, means = pool(30, 5)
    cell = torch.arange(30) // 10
    told = sampled(cell, gaussian(means, 1e-12), x, rng=generator(0), draws=3000)
    assert (told.error, told.identification) == (0.0, 1.0)
    hidden = sampled(cell, gaussian(means, 1e6), x, rng=generator(0), draws=30_000)
    assert 0.998 * exact(cell, x).error < hidden.error <= within_variance(cell, x)
    assert 0.1 < hidden.identification < 0.1005  # 30,000 draws cannot rule out that one in 10,000 tells more


def test_images_with_one_mean_stay_hidden_at_any_noise() -> None:
    x, _ = pool(8, 5)
    bound = sampled(torch.zeros(8, dtype=torch.int64), gaussian(torch.ones(8, 3), 1e-9), x, rng=generator(0))
    variance = float((x.double() - x.double().mean(0)).square().mean())
    assert 0.998 * variance < bound.error <= variance
    assert 1 / 8 < bound.identification < 1 / 8 + 0.0005


def test_nobody_beats_it_and_one_run_stays_within_the_tolerance() -> None:
    """Bayes, the nearest mean, and the cell's mean image, each on 2,000 runs of one answer to each image."""
    n, sigma, runs = 25, 0.15, 2000
    x, means = pool(n, 6)
    cell = torch.zeros(n, dtype=torch.int64)
    bound = sampled(cell, gaussian(means, sigma), x, rng=generator(0, "bound"))
    rng = generator(1, "runs")
    y = means + sigma * torch.randn(runs, n, 2, generator=rng)
    away = torch.cdist(y, means.expand(runs, n, 2)).square()
    weight = torch.softmax(-away / (2 * sigma**2), 2)
    answers = {"Bayes": weight @ x, "nearest": x[away.argmin(2)], "mean": x.mean(0).expand(runs, n, 6)}
    errors = {name: (answer - x).square().mean((1, 2)) for name, answer in answers.items()}
    assert float(errors["Bayes"].mean()) == pytest.approx(bound.error, rel=0.02)
    for name, error in errors.items():
        assert float(error.mean()) >= bound.error, name
        below = float((error < bound.error - bound.tolerance).double().mean())
        assert below <= 0.004, name
    assert float((errors["Bayes"] < bound.error - bound.tolerance / 2).double().mean()) > 0.01  # and not idle
    hits = (away.argmin(2) == torch.arange(n)).double().mean()
    assert float(hits) <= bound.identification < float(hits) + 0.02


@pytest.mark.parametrize(("n", "sigma"), [(12, 50.0), (40, 50.0), (40, 1.0), (200, 50.0)])
def test_an_answer_that_swings_with_the_noise_stays_within_the_tolerance(n: int, sigma: float) -> None:
    """Where noise hides all, the Bayes attacker always answers the mean image and its error never varies. Who
    adds to it along the images' main direction, by a sign read off the noise, is lucky in many runs."""
    x, means = pool(n, 6)
    bound = sampled(torch.zeros(n, dtype=torch.int64), gaussian(means, sigma), x, rng=generator(0, "bound"))
    _, size, direction = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    swing = size[0] / math.sqrt(n) * direction[0]
    rng, runs = generator(1, "runs"), 4000
    y = means + sigma * torch.randn(runs, n, 2, generator=rng)
    weight = torch.softmax(-torch.cdist(y, means.expand(runs, n, 2)).square() / (2 * sigma**2), 2)
    for share in (0.0, 0.1, 0.2, 0.4, 0.8):
        answer = weight @ x + share * swing * (y[..., :1] - means.mean(0)[0]).sign()
        error = (answer - x).square().mean((1, 2))
        below = float((error < bound.error * (1 - CERTIFICATE_ROUNDING) - bound.tolerance).double().mean())
        assert below <= 0.004, share


def test_the_same_generator_gives_the_same_bound() -> None:
    x, means = pool(20)
    one, two = (
        sampled(torch.zeros(20, dtype=torch.int64), gaussian(means, 0.1), x, rng=generator(3), draws=500)
        for _ in range(2)
    )
    assert one == two


def test_copies_share_their_noise_and_widen_the_tolerance() -> None:
    """Ten copies of each image: the mean over one draw varies as that of a tenth of the images."""
    rng = generator(0, "copies")
    x_ND, c_NM = torch.rand(20, 9, generator=rng), torch.rand(20, 2, generator=rng)
    alone = sampled(torch.zeros(20, dtype=torch.long), Gaussian(c_NM, 0.1, lambda r, y: y), x_ND, rng=rng)
    often = sampled(
        torch.zeros(200, dtype=torch.long),
        Gaussian(c_NM.repeat(10, 1), 0.1, lambda r, y: y),
        x_ND.repeat(10, 1),
        rng=rng,
    )
    assert often.error == pytest.approx(alone.error, rel=0.1)
    assert often.tolerance == pytest.approx(alone.tolerance, rel=0.2)


def test_identification_is_told_the_clean_label_beside_the_cell() -> None:
    """A release that changes labels has cells of several labels; who names the image among those of its clean
    label is right once for each pair."""
    x = torch.rand(6, 3, generator=generator(0, "x"))
    cell, label = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 2, 1, 1])
    bound = exact(cell, x, label)
    assert bound.identification == pytest.approx(4 / 6)
    assert exact(cell, x).identification == pytest.approx(2 / 6)
    assert bound.error == exact(cell, x).error
