"""The closed-form attacker of study/examples: reads what tail noise leaves, and never beats a certificate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mipoison.certificates.pool import within_variance
from mipoison.defenses.label_only import LabelOnlyConfig
from mipoison.defenses.rounding import RoundingConfig
from mipoison.defenses.tail_noise import TailNoiseConfig
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.scene import Scene
from mipoison.simplex import label_of
from study.examples.read_the_scores import SETTINGS, Choice, Reader, chosen, main, read

N = 300


def answers(seed: int) -> tuple[Tensor, Tensor]:
    """Vectors, and images as bright as the label's score is uncertain, with some noise."""
    rng = generator(seed, "scores")
    rest_N = torch.exp(-1 - 4 * torch.rand(N, generator=rng))
    label_N = torch.randint(0, 5, (N,), generator=rng)
    c_NK = (rest_N / 4)[:, None].expand(-1, 5).clone()
    c_NK[torch.arange(N), label_N] = 1 - rest_N
    noise_ND = 0.05 * torch.randn(N, 9, generator=rng)
    return c_NK, (0.5 + 0.1 * rest_N.log()[:, None] + 0.02 * label_N[:, None] + noise_ND).clamp(0, 1).double()


def released(config: TailNoiseConfig | RoundingConfig | LabelOnlyConfig, c_NK: Tensor) -> Tensor:
    x = torch.rand(len(c_NK), 1, 16, 16, generator=generator(0, "x"))
    rng = QueryRandomness(content_keys(x, b"secret"))
    return config.make().protect(c_NK, x, torch.ones(len(c_NK), dtype=torch.bool), rng=rng)


@pytest.mark.parametrize(
    ("config", "reads"),
    [(TailNoiseConfig(budget=0.01), True), (TailNoiseConfig(budget=0.5), True), (LabelOnlyConfig(), False)],
)
def test_it_reads_the_label_s_score_through_any_tail_noise(
    config: TailNoiseConfig | LabelOnlyConfig, reads: bool
) -> None:
    (own_c, own_x), (c, x) = answers(1), answers(2)
    own_c, c = released(config, own_c), released(config, c)
    reader = chosen(own_c, own_x, generator(0))
    error, floor = (float((f(c) - x).square().mean()) for f in (reader, Reader(Choice("mean"), own_c, own_x)))
    if reads:
        assert reader.choice.how != "mean"
        assert error < 0.5 * floor
    else:
        assert error == pytest.approx(floor, rel=1e-6)


@pytest.mark.parametrize("decimals", [0, 1, 2])
def test_not_even_who_knows_the_images_beats_the_certificate(decimals: int) -> None:
    c, x = answers(3)
    c = released(RoundingConfig(decimals=decimals), c)
    cell_N = torch.unique(c, dim=0, return_inverse=True)[1]
    bound = within_variance(cell_N, x)
    means = {k: x[cell_N == k].numpy().mean(0) for k in cell_N.tolist()}
    best = np.mean([(x[i].numpy() - means[int(cell_N[i])]) ** 2 for i in range(N)])
    assert bound == pytest.approx(best)
    assert float((Reader(Choice("kernel", 1e-3, 1e-3, 1.0), c, x)(c) - x).square().mean()) >= bound - 1e-12
    assert bound <= within_variance(label_of(c), x) + 1e-12


def test_a_setting_s_line_has_its_certificate(tiny_scene: Scene) -> None:
    row = read(tiny_scene, "rounding", RoundingConfig(decimals=1))
    numbers = {f"{what}, {part}" for what in ("excess", "certified") for part in ("train", "test")}
    assert set(row) == {"distortion", "rank correlation", *numbers}
    assert row["distortion"] > 0
    assert 0 <= row["certified, train"] < 1
    label_only = read(tiny_scene, "label-only", LabelOnlyConfig())
    assert label_only["certified, train"] == label_only["certified, test"] == 0
    assert abs(label_only["excess, train"]) < 1e-9


@pytest.mark.long
def test_the_command_prints_a_line_for_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1"]) == 0
    said = capsys.readouterr().out
    assert [name for name in SETTINGS if f"{name}: distortion" not in said] == []
