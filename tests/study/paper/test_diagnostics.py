"""What a trial does while it runs: traced without disturbing it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mipoison.attacks.decoder import Decoder, DecoderConfig
from mipoison.protocols import ThreatModel
from mipoison.service import MeteredOracle
from study.paper.diagnostics import COSINE, VECTORS, Traced


def test_tracing_does_not_disturb_the_attack_and_measures_the_angle() -> None:
    config = DecoderConfig(steps=20, batch=8, width=4, lr=1e-3)
    rng = torch.Generator().manual_seed(3)
    c = torch.softmax(torch.randn(40, 5, generator=rng), 1)
    x = torch.rand(40, 1, 16, 16, generator=rng)
    known = ThreatModel("none", {}, (1, 16, 16))
    device = torch.device("cpu")

    def fitted(attack: Decoder) -> Decoder:
        attack.fit(MeteredOracle(lambda _: c, 5), x, known=known, rng=torch.Generator().manual_seed(1))
        return attack

    plain = fitted(Decoder(config, device))
    traced = Traced(config, (c, x), device)  # "private" data that are its own: its step descends on them
    fitted(traced)
    for a, b in zip(plain.model.state_dict().values(), traced.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert [p["step"] for p in traced.trace] == list(range(20))
    assert all(p["cosine"] == pytest.approx(-1, abs=1e-6) for p in traced.trace)


def test_diagnostics_hold_what_they_say(reproduced: Path) -> None:
    folder = reproduced / "reproduction" / "digits"
    vectors, cosine = pd.read_parquet(folder / VECTORS), pd.read_parquet(folder / COSINE)
    assert list(vectors["defense"].unique()) == list(cosine["defense"].unique())
    scores = vectors.drop(columns="defense").to_numpy()
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    assert cosine["cosine"].between(-1 - 1e-6, 1 + 1e-6).all()
    assert cosine["private_loss"].gt(0).all()
