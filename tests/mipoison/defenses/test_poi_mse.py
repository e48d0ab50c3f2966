"""Poi-MSE: it lowers the distance that it is named after."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tests.mipoison.defenses.helpers import fitted, pictures, protect, vectors, view_of


def test_poi_mse_lowers_the_distance(make_decoder) -> None:
    from mipoison.alignment import norm_of, parameter_gradient

    net = make_decoder(5, width=4, features="raw")
    view = view_of(net, 5)
    c, x = vectors(12, sharpness=0.7), pictures(12)
    defense = fitted("poi-mse", view, budget=0.1, rounds=40, step=0.05)
    start = fitted("poi-mse", view, budget=0.1, rounds=0)

    def distance(z: Tensor) -> list[float]:
        gradients = [parameter_gradient(net, z[i : i + 1], x[i : i + 1]) for i in range(len(z))]
        return [
            float(norm_of([t - g for t, g in zip(defense.target, own, strict=True)])) for own in gradients
        ]

    before, after = distance(protect(start, c, x)), distance(protect(defense, c, x))
    assert np.mean(after) < np.mean(before)
    assert np.mean(np.array(after) < np.array(before)) > 0.9
