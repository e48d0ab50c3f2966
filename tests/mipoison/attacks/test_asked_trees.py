"""A forest on images and questions votes with the mixing attacker, judged on images that it has not seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mipoison.attacks.asked_pairs import Data
from mipoison.attacks.asked_trees import AskedTrees, AskedTreesConfig, Forest, predicted
from mipoison.attacks.mixtures import JUDGED_FOLDS, MixturesConfig
from mipoison.config import ConfigError
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator
from tests.mipoison.attacks.helpers import Spy

SHAPE = (1, 8, 8)
SMALL: dict[str, Any] = {"each": 3, "simulated": 0}


def grey(n: int, seed: int = 0) -> Tensor:
    """Images of one brightness each."""
    b_N = torch.rand(n, generator=generator(seed, "grey")) * 0.8 + 0.1
    return b_N[:, None, None, None].expand(-1, *SHAPE).contiguous()


STEPS = torch.tensor([3, 0, 5, 1, 4, 2])


def stepped(x_NCHW: Tensor) -> Tensor:
    """One label of seven. One small score tells which of six bands the brightness lies in, bands in any
    order; five others jump from image to image."""
    b_N = x_NCHW.mean((1, 2, 3)).double()
    band_N = STEPS[(b_N * 6).long().clamp(0, 5)]
    jumps_NK = torch.stack([(b_N * 10_007 * (k + 1)) % 1 for k in range(5)], 1)
    rest_NK = torch.cat([0.004 + 0.002 * band_N[:, None], 0.01 + 0.05 * jumps_NK], 1)
    return torch.cat([1 - rest_NK.sum(1, keepdim=True), rest_NK], 1).float()


def fitted(config: MixturesConfig, answers: Any, x: Tensor) -> Any:
    attack = config.make()
    attack.fit(Spy(answers, 7), x, known=ThreatModel(None, {}, SHAPE), rng=generator(0, "attack"))
    return attack


def test_where_answers_jump_the_forest_has_a_vote_and_reads_more() -> None:
    x, stolen = grey(80), grey(200, 1)
    mine, plain = (fitted(c, stepped, x) for c in (AskedTreesConfig(**SMALL), MixturesConfig(**SMALL)))
    assert len(mine.further) == 1
    error = [float((a.reconstruct(stepped(stolen)) - stolen).square().mean()) for a in (mine, plain)]
    assert error[0] < 0.9 * error[1]
    torch.testing.assert_close(mine.weight_VP.sum(0), torch.ones(mine.weight_VP.shape[1]).double())


def test_where_answers_say_nothing_it_is_the_mean_image() -> None:
    x, stolen = grey(80), grey(200, 1)

    def same(x_NCHW: Tensor) -> Tensor:
        return torch.tensor([[0.7, *[0.05] * 6]]).expand(len(x_NCHW), -1)

    mine = fitted(AskedTreesConfig(**SMALL), same, x)
    error = float((mine.reconstruct(same(stolen)) - stolen).square().mean())
    assert error < 1.02 * float((x.mean(0) - stolen).square().mean())


def test_no_forest_has_seen_what_it_is_judged_on(monkeypatch: pytest.MonkeyPatch) -> None:
    n, m = 20, 60
    rng = generator(0, "data")
    y, c = torch.arange(n).double()[:, None], torch.softmax(torch.randn(n, 3, generator=rng), 1)
    parent = torch.randint(n, (m, 2), generator=rng)
    data = Data(c, y, c[parent[:, 0]], y[parent[:, 0]], parent, torch.zeros(m).double())
    fold_n, seen = torch.arange(n) % 5, []

    def grown(self: AskedTrees, train: Data, mean_KP: Tensor, seed: int) -> None:
        seen.append(train)

    monkeypatch.setattr(AskedTrees, "_grown", grown)
    (judged,) = AskedTreesConfig().make().more(data, data, fold_n, rng)
    assert len(seen) == JUDGED_FOLDS
    for fold, train in enumerate(seen):
        out = set(y[fold_n == fold, 0].tolist())
        assert set(train.y_NP[:, 0].tolist()) == set(y[:, 0].tolist()) - out
        asked = {tuple(p) for p in train.parent_M2.tolist()}
        assert asked == {tuple(p) for p in parent.tolist() if not out & {float(i) for i in p}}
    assert len(judged.error_nP) == int((fold_n < JUDGED_FOLDS).sum())


def test_the_forest_weighs_images_more_and_predicts_the_leading_components() -> None:
    rng = generator(3, "grown")
    c = torch.softmax(torch.randn(60, 3, generator=rng), 1)
    y = torch.randn(60, 20, generator=rng, dtype=torch.float64)
    none = torch.zeros(0, 2, dtype=torch.int64)
    data = Data(c, y, c[:0], y[:0], none, torch.zeros(0).double())
    attack = AskedTreesConfig(trees=10).make()
    forest = attack._grown(data, torch.zeros(3, 20).double(), 0)
    found = predicted(forest, c, 20)
    assert bool((found[:, :16].std(0) > 0).all())
    assert bool((found[:, 16:] == 0).all())
    weight = torch.linspace(0, 1, 20).double()
    torch.testing.assert_close(Forest(forest, weight)(c), weight * found)
    assert predicted(None, c, 4).abs().max() == 0


def test_too_few_trees_are_refused() -> None:
    with pytest.raises(ConfigError, match="trees"):
        AskedTreesConfig(trees=9)
