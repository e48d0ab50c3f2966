"""Whether a classifier can be attacked at all: chance by the hypergeometric law, weak and constant ones."""

from __future__ import annotations

import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.victims.ask import Classifier
from mipoison.victims.check import ENOUGH, PROBE, check_victim, permutation_p_value, spread
from tests.mipoison.victims.helpers import Around

# ------------------------------------------------------------------------------------ recognition


@pytest.mark.parametrize("right", [60, 70, 75, 80])
def test_the_chance_is_hypergeometric(right: int) -> None:
    """Two classes of 64, 64 answers of each: right answers to the first follow the hypergeometric law."""
    y, told = torch.arange(128) % 2, torch.arange(128) % 2
    wrong = (128 - right) // 2
    for k in (0, 1):
        told[torch.nonzero(y == k).flatten()[:wrong]] = 1 - k
    exact = float(scipy.stats.hypergeom.sf((told == y).sum().item() // 2 - 1, 128, 64, 64))
    assert permutation_p_value(told, y) == pytest.approx(exact, abs=4 * (exact / 9999) ** 0.5 + 2e-4)


HONEST = [([900, 10], 0.9), ([990, 5], 0.7), ([1000, 3], 0.85), ([3] * 10, 0.3), ([2] * 10, 0.4)]


class Told(nn.Module):
    """Answers with the label that is written into the image."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        k = int(x_NCHW.shape[1])
        return 4 * x_NCHW[:, :, 0, 0] - 0.1 * torch.arange(k)


def written(told: Tensor, k: int) -> Tensor:
    return nn.functional.one_hot(told, k).float()[:, :, None, None]


@pytest.mark.parametrize(("counts", "share"), HONEST, ids=str)
def test_weak_and_uneven_classifiers_pass(counts: list[int], share: float) -> None:
    """Each class recognised alike, the others mistaken for other classes in turn."""
    k = len(counts)
    y = torch.repeat_interleave(torch.arange(k), torch.tensor(counts))
    rank = torch.cat([torch.arange(n) for n in counts])
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(3))
    told = torch.where(rank < share * torch.tensor(counts)[y] - 0.01, y, (y + 1 + rank % (k - 1)) % k)
    check_victim(Classifier(Told()), written(told[order], k), y[order], k)


def untrained(y: Tensor, k: int, seed: int) -> Tensor:
    """One class is preferred, whatever the image."""
    drawn = torch.rand(len(y), k, generator=torch.Generator().manual_seed(seed)) + torch.linspace(0, 0.5, k)
    return drawn.argmax(1)


@pytest.mark.parametrize("counts", [[300, 300], [30] * 10, [900, 150], [1000, 3]], ids=str)
def test_answers_without_regard_to_the_image_do_not(counts: list[int]) -> None:
    k = len(counts)
    y = torch.repeat_interleave(torch.arange(k), torch.tensor(counts))
    several = [torch.full_like(y, 0), torch.full_like(y, k - 1), (y + 1) % k]
    if sum(counts) - max(counts) >= ENOUGH:
        several += [untrained(y, k, seed) for seed in range(3)]
    for told in several:
        with pytest.raises(ConfigError, match=r"no better than chance.*error 0\.001"):
            check_victim(Classifier(Told()), written(told, k), y, k)


def test_few_images_that_do_not_decide_are_said(caplog: pytest.LogCaptureFixture) -> None:
    y = torch.arange(6) % 3
    told = torch.tensor([0, 1, 2, 0, 2, 1])
    check_victim(Classifier(Told()), written(told, 3), y, 3)
    assert "do not decide" in caplog.text


def test_the_sample_is_spread_over_the_classes() -> None:
    sorted_labels = torch.arange(10).repeat_interleave(100)
    assert torch.bincount(sorted_labels[spread(sorted_labels, PROBE)]).tolist() == [26] * 6 + [25] * 4
    assert len(spread(torch.arange(40).repeat(2), PROBE)) == 80
    rare = torch.tensor([0] * 1000 + [1] * 3)
    assert torch.bincount(rare[spread(rare, PROBE)]).tolist() == [PROBE - 3, 3]


def test_weak_classifiers_pass_and_constant_ones_do_not(digits: tuple[Tensor, Tensor]) -> None:
    x = torch.rand(5000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = torch.arange(5000) % 2
    x[:, 0, 0, 0] = torch.where(torch.arange(5000) % 9 < 5, y, 1 - y).float()  # right in five of nine

    class Weak(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([1 - x[:, 0, 0, 0], x[:, 0, 0, 0]], 1) * 4 - 1

    check_victim(Classifier(Weak()), x, y, 2)
    constant = Around(nn.Identity(), lambda _, x: torch.zeros(len(x), 10) + torch.arange(10))
    with pytest.raises(ConfigError, match=r"no better than chance.*class 9, was given to"):
        check_victim(Classifier(constant), *digits, 10)
    with pytest.raises(ConfigError, match="Classes without an image: 4"):
        check_victim(Classifier(constant), digits[0][digits[1] != 4], digits[1][digits[1] != 4], 10)
    with pytest.raises(ConfigError, match="answers all of 256 private images alike"):
        check_victim(Classifier(constant), digits[0], None, 10)
    with pytest.raises(ConfigError, match="cannot be judged by one class"):
        check_victim(Classifier(constant), digits[0], torch.zeros(600).long(), 10)
