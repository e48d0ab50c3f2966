"""The mixing attacker: what it asks, what it learns from it, and that it is judged honestly."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mipoison.attacks.mixtures as module
from mipoison.attacks import two_levels
from mipoison.attacks.asked_pairs import Data
from mipoison.attacks.kernel import KernelConfig
from mipoison.attacks.kernel_ridge import PENALTIES, Kernel
from mipoison.attacks.mixtures import Mixtures, MixturesConfig
from mipoison.attacks.questions import mixture, warps_and_patches
from mipoison.attacks.selection import Standardised
from mipoison.config import ConfigError
from mipoison.models.label_means import label_means
from mipoison.randomness import generator
from mipoison.simplex import label_of
from tests.mipoison.attacks.helpers import KNOWN, SHAPE, Spy, brightness, fit, grey
from tests.mipoison.attacks.test_asked_pairs import data


def test_it_asks_its_images_and_then_mixtures_of_the_first() -> None:
    spy, x = Spy(brightness, 2), grey(60)
    fit(MixturesConfig(each=3, mixed=30, simulated=2000), x, spy)
    assert [len(images) for images in spy.asked] == [60, 90]  # three rotations of thirty images
    assert torch.equal(spy.asked[0], x)
    mixed = spy.asked[1]
    assert mixed.shape[1:] == SHAPE
    assert mixed.dtype == torch.float32
    assert float(mixed.min()) >= 0
    assert float(mixed.max()) <= 1


@pytest.mark.parametrize("levels", [1, 2])
def test_errors_are_those_of_a_refit_without_the_image(levels: int) -> None:
    """Against a slow loop that mixes and fits anew without each fold, and takes the best setting of all."""
    base = data()
    y = 0.5 + 0.2 * (base.y_NP - 0.5)  # no mixture leaves [0, 1]
    label_N, fold_N = label_of(base.c_NK), torch.arange(40) % module.FOLDS
    mixed = mixture(y, label_means(label_N, y, 3)[label_N], base.parent_M2, 0.3)
    share_M = torch.full((len(mixed),), 1 - math.cos(0.3) - math.sin(0.3), dtype=torch.float64)
    d = Data(base.c_NK, y, base.answer_MK, mixed, base.parent_M2, share_M)
    attack, kernel = Mixtures(MixturesConfig(made="mixtures", levels=levels)), Kernel("inverse", 0.5)
    standardise = Standardised(d.c_NK, "log")
    found = attack._tried(standardise, kernel, d, fold_N)
    errors = {}
    aparts = two_levels.APART if levels == 2 else (None,)
    penalties = two_levels.PENALTIES if levels == 2 else PENALTIES
    for apart, penalty in itertools.product(aparts, penalties):
        error = torch.zeros_like(y)
        for fold in range(module.JUDGED_FOLDS):
            kept = fold_N != fold
            mean = torch.stack([y[kept & (label_N == k)].mean(0) for k in range(3)])
            again = mixture(y, mean[label_N], base.parent_M2, 0.3)
            rest = Data(base.c_NK, y, base.answer_MK, again, base.parent_M2, share_M).without(~kept)
            (refit,) = rest.regressions(standardise, kernel, mean, 600, (apart,))
            for i in (~kept).nonzero()[:, 0].tolist():
                own = d.c_NK[i : i + 1]
                said = mean[label_of(own)] + refit.gram(own) @ refit.weights(penalty)
                error[i] = (y[i : i + 1] - said)[0]
        errors[apart, penalty] = error[fold_N < module.JUDGED_FOLDS]
    best = min(errors, key=lambda setting: float(errors[setting].square().sum()))
    assert (found.apart, found.penalty) == best
    torch.testing.assert_close(found.error_nP, errors[best])


def noisy(seed: int) -> Any:
    """A victim whose log-odds tell how bright an image is, behind noise drawn anew for each question."""
    rng = generator(seed, "noise")

    def answer(x_NCHW: Tensor) -> Tensor:
        b_N = torch.logit(brightness(x_NCHW)[:, 0]) + 1.5 * torch.randn(len(x_NCHW), generator=rng)
        return torch.softmax(torch.stack([b_N, -b_N], 1), 1)

    return answer


@pytest.mark.long
def test_mixtures_average_noise_out() -> None:
    """In the mean of five small data sets it is better than the attacker that asks its own images alone."""
    gains = []
    for seed in range(5):
        x, stolen = grey(24, seed), grey(400, seed + 100)
        c = noisy(seed + 50)(stolen)
        mine, plain = (
            float((fit(config, x, Spy(noisy(seed), 2)).reconstruct(c) - stolen).square().mean())
            for config in (MixturesConfig(each=30, mixed=24, angle=0.7), KernelConfig())
        )
        gains.append(1 - mine / plain)
    assert np.mean(gains) > 0.02


@pytest.mark.parametrize(
    ("made", "requests"), [("mixtures", [8]), ("warps", [8, 56]), ("rotations", [8, 32])]
)
def test_without_pairs_there_are_no_mixtures(made: Any, requests: list[int]) -> None:
    """Eight images of eight labels can only be warped; else the regressions are on the images alone."""
    x, eye = grey(8), torch.eye(8)
    spy = Spy(lambda images: eye[torch.arange(len(images)) % 8], 8)
    attack = fit(MixturesConfig(made=made), x, spy)
    assert [len(images) for images in spy.asked] == requests
    assert attack.reconstruct(eye).isfinite().all()


def test_many_images_keep_some_for_learning_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mipoison.attacks.kernel.EXACT", 50)
    monkeypatch.setattr("mipoison.attacks.kernel_choice.EXACT", 50)
    x = grey(150)
    attack = fit(MixturesConfig(judged=40, mixed=60, landmarks=30, most=120, simulated=2000), x)
    total_P = attack.weight_VP.sum(0)  # type: ignore[attr-defined]
    torch.testing.assert_close(total_P, torch.ones_like(total_P))
    new = grey(100, 7)
    assert float((attack.reconstruct(brightness(new)) - new).square().mean()) < 0.1 * float(new.var())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("each", 0),
        ("mixed", 19),
        ("angle", 0.0),
        ("angle", 0.8),
        ("angle", float("nan")),
        ("simulated", -1),
        ("levels", 0),
        ("levels", 3),
    ],
)
def test_bounds(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        MixturesConfig(**{name: value})
    with pytest.raises(ValueError, match="at least 4 images"):
        fit(MixturesConfig(), grey(3), known=KNOWN)


@pytest.mark.parametrize(("n", "each"), [(4, 4), (5, 4), (9, 4), (9, 1)])
def test_few_images_and_one_question_are_enough(n: int, each: int) -> None:
    """A stack of eight images gives each of its members six; an audit may have one question an image left."""
    attack = fit(MixturesConfig(each=each), grey(n))
    assert attack.reconstruct(brightness(grey(3, 1))).isfinite().all()


def test_half_of_the_questions_are_warps_the_others_patches_of_two() -> None:
    """Each is nearest to its parents: by images that are white in a place of their own."""
    x = torch.zeros(30, *SHAPE)
    for i in range(30):
        x[i, :, 2 * (i // 6) + 2 : 2 * (i // 6) + 5, 2 * (i % 6) + 2 : 2 * (i % 6) + 5] = 1
    spy = Spy(brightness, 2)
    fit(MixturesConfig(each=5, simulated=0, made="warps"), x, spy)
    made = spy.asked[1]
    assert len(made) == 60 + 90
    label_N = label_of(brightness(x))
    mean_ND = torch.zeros(30, x[0].numel()).double()
    asked = warps_and_patches(label_N, x.double(), mean_ND, 5, 0.3, generator(5))
    parent_M2, again = asked.parent_M2, asked.x_MD
    assert not asked.share_M.any()
    assert parent_M2[:60].tolist() == [[i, i] for i in [*range(30), *range(30)]]
    assert bool((parent_M2[60:, 0] != parent_M2[60:, 1]).all())
    assert torch.equal(label_N[parent_M2[60:, 0]], label_N[parent_M2[60:, 1]])
    between = again[60:].reshape(90, *SHAPE)
    low, high = torch.stack([x[parent_M2[60:, side]] for side in (0, 1)]).aminmax(dim=0)
    assert bool(((between >= low - 1e-6) & (between <= high + 1e-6)).all())


def test_what_a_patch_is_made_of_is_held_out_with_it() -> None:
    """Errors of a fold's images are those of a refit on the rest; patches' targets stay."""
    d, fold_N = data(), torch.arange(40) % module.FOLDS
    label_N, kernel = label_of(d.c_NK), Kernel("inverse", 0.5)
    found = Mixtures(MixturesConfig())._tried(Standardised(d.c_NK, "log"), kernel, d, fold_N)
    kept = fold_N != 0
    mean = torch.stack([d.y_NP[kept & (label_N == k)].mean(0) for k in range(3)])
    (refit,) = d.without(~kept).regressions(found.standardise, kernel, mean, 600, (found.apart,))
    said = mean[label_N[~kept]] + refit.gram(d.c_NK[~kept]) @ refit.weights(found.penalty)
    judged_n = fold_N[fold_N < module.JUDGED_FOLDS]
    torch.testing.assert_close(found.error_nP[judged_n == 0], d.y_NP[~kept] - said)


def lost(seed: int) -> float:
    """What the mixing attacker loses against the kernel attacker on fresh images, as a share of the error,
    where answers to mixtures and warps say nothing, and few of many images are judged."""
    rng = generator(seed)
    odds = 3 * torch.randn(480, 2, generator=rng)
    x = (0.5 + 0.15 * torch.sin(odds[:, :1]) + 0.1 * torch.randn(480, 256, generator=rng)).clamp(0, 1)
    vectors = torch.softmax(odds, 1)

    def answer(images: Tensor) -> Tensor:
        if len(images) == 300:
            return vectors[:300]
        return torch.softmax(3 * torch.randn(len(images), 2, generator=rng), 1)

    own, stolen = x.reshape(-1, *SHAPE)[:300], x.reshape(-1, *SHAPE)[300:]
    mine, plain = (
        float((fit(config, own, Spy(answer, 2)).reconstruct(vectors[300:]) - stolen).square().mean())
        for config in (MixturesConfig(judged=60, simulated=0), KernelConfig(judged=60))
    )
    return mine / plain - 1


@pytest.mark.long
@pytest.mark.parametrize("honest", [True, False])
def test_answers_that_say_nothing_cost_little(honest: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the mean of fifteen data sets; and the test sees it if voters are judged dishonestly.

    If the regressions on mixtures learned from all images where they are judged, and the kernel attacker
    from the judged ones alone, they would win without being better. Their weight tells nothing here: hardly
    any voter reads much, and theirs is above a half in half of the data sets.
    """
    monkeypatch.setattr("mipoison.attacks.kernel.EXACT", 50)
    monkeypatch.setattr("mipoison.attacks.kernel_choice.EXACT", 50)
    if not honest:
        tried = Mixtures._tried

        def of_all(self: Mixtures, s: Standardised, kernel: Kernel, d: Data, fold_n: Tensor) -> Any:
            never_n = torch.full((len(d.c_NK) - len(fold_n),), module.JUDGED_FOLDS)
            return tried(self, s, kernel, d, torch.cat([fold_n, never_n]))

        monkeypatch.setattr(Data, "first", lambda self, count: self)
        monkeypatch.setattr(Mixtures, "_tried", of_all)
    loss = np.mean([lost(seed) for seed in range(15)])
    assert (loss < 0.003) if honest else (loss > 0.003)


@pytest.mark.parametrize("apart", [0.0, 0.3])
def test_a_mixture_s_target_forgets_the_held_out_images(
    apart: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changing a held-out image changes no error of the other folds' held-out images: it is in no training
    set of its own fold, in no clamped pixel here, and its part in the mean image is taken out."""
    monkeypatch.setattr(two_levels, "APART", (apart,))  # one setting: the choice sees all errors
    monkeypatch.setattr(two_levels, "PENALTIES", (0.3,))
    base = data(pixels=4)
    label_N = label_of(base.c_NK)
    fold_N = torch.arange(40) % module.FOLDS

    def errors(y_NP: Tensor) -> Tensor:
        mean = label_means(label_N, y_NP, 3)[label_N]
        mixed = mixture(y_NP, mean, base.parent_M2, 0.3)
        share_M = torch.full((len(mixed),), 1 - math.cos(0.3) - math.sin(0.3), dtype=torch.float64)
        d = Data(base.c_NK, y_NP, base.answer_MK, mixed, base.parent_M2, share_M)
        attack = Mixtures(MixturesConfig())
        found = attack._tried(Standardised(d.c_NK, "log"), Kernel("inverse", 0.5), d, fold_N)
        return found.error_nP[(fold_N < module.JUDGED_FOLDS).nonzero()[:, 0] % module.FOLDS == 0]

    y = 0.5 + 0.2 * (base.y_NP - 0.5)  # no mixture leaves [0, 1]
    other = y.clone()
    other[5] += 0.1  # of fold 0
    changed = (errors(y) - errors(other)).abs().amax(1)
    assert float(changed[1]) > 0.05  # its own error
    assert float(changed[torch.arange(len(changed)) != 1].max()) < 1e-9


def stretched(seed: int) -> Any:
    """A victim whose top score tells how bright an image is, by a power of the label's own, with noise."""
    rng, power_K = generator(seed, "stretched"), torch.tensor([0.2, 3.0])

    def answer(x_NCHW: Tensor) -> Tensor:
        c_NK = brightness(x_NCHW)
        label_N, each_N = label_of(c_NK), torch.arange(len(c_NK))
        top_N = 0.5 + 0.5 * (2 * c_NK.amax(1) - 1).clamp(0, 1) ** power_K[label_N]
        top_N = (top_N + 0.002 * torch.randn(len(top_N), generator=rng)).clamp(0.5001, 1)
        out_NK = 1 - top_N[:, None].repeat(1, 2)
        out_NK[each_N, label_N] = top_N
        return out_NK

    return answer


def test_ranks_within_a_label_read_what_a_defense_stretched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two data sets' mean error is smaller with rotations than with warps, and with ranks than without."""

    def error(made: Any) -> float:
        found = []
        for seed in (3, 4):
            x, answer = grey(400, seed), stretched(seed)
            config = MixturesConfig(made=made, each=7, simulated=0)
            attack = fit(config, x[:200], Spy(answer, 2))
            found.append(float((attack.reconstruct(answer(x[200:])) - x[200:]).square().mean()))
        return sum(found)

    with_ranks, warps = error("rotations"), error("warps")
    monkeypatch.setattr(Mixtures, "_readings", lambda self, chosen, c_NK: chosen.sets[:3])
    assert with_ranks < error("rotations") < warps
