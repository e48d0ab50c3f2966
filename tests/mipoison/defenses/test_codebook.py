"""The codebook: what it is for, on planted images, and what it releases and keeps."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from mipoison.config import ConfigError
from mipoison.defenses.codebook import Codebook, CodebookConfig
from mipoison.models.inversion import InversionNet
from mipoison.protocols import DefenderView
from mipoison.randomness import generator
from mipoison.simplex import label_of
from tests.mipoison.defenses.helpers import pictures, protect, vectors


def planted(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Vectors of five classes, a fifth of them uncertain, and images: label, how uncertain, and much else.

    What an image shows of the uncertainty is a shift along one direction, half as large as the spread there.
    """
    draw = generator(seed, "planted")
    label = torch.randint(0, 5, (n,), generator=draw)
    second = (label + 1 + torch.randint(0, 4, (n,), generator=draw)) % 5
    doubt = torch.where(torch.rand(n, generator=draw) < 0.2, 0.45 * torch.rand(n, generator=draw), 0.004)
    c = torch.full((n, 5), 1e-4)
    c.scatter_(1, second[:, None], doubt[:, None]).scatter_(1, label[:, None], 1 - doubt[:, None] - 3e-4)
    x = 0.5 + 0.02 * torch.randn(n, 64, generator=draw)
    x[:, 0] += 0.1 * torch.randn(n, generator=draw) + 0.1 * (doubt > 0.1)
    x[:, 1] += 0.03 * label
    return c, x.clamp(0, 1).reshape(n, 1, 8, 8)


def view(private: tuple[Tensor, Tensor], public: tuple[Tensor, Tensor]) -> DefenderView:
    def unused(config: object) -> InversionNet:
        raise AssertionError("no substitute is needed")

    (c, x), shown = private, public
    return DefenderView(
        x_private_NCHW=x, c_private_NK=c, y_private_N=label_of(c), substitute=unused,
        substitute_data=lambda config: shown, n_classes=c.shape[1],
    )  # fmt: skip


def fitted(**changes: object) -> Codebook:
    codebook = CodebookConfig(**changes).make()  # type: ignore[arg-type]
    codebook.fit(view(planted(1500, 0), planted(1500, 1)), rng=torch.Generator())
    return codebook


def excess(z_NK: Tensor, c_NK: Tensor, x_NCHW: Tensor) -> float:
    """Share of the variance within labels that the cells explain, less what as many random cells would."""
    x, label, n = x_NCHW.flatten(1).double().numpy(), label_of(c_NK).numpy(), len(c_NK)
    cell = np.unique(z_NK.numpy(), axis=0, return_inverse=True)[1].ravel()

    def left(groups: np.ndarray) -> float:
        names = np.unique(groups)
        squares = sum(float(((x[groups == g] - x[groups == g].mean(0)) ** 2).sum()) for g in names)
        return squares / (n - len(names))

    return 1 - left(cell) / left(label)


def test_the_weight_trades_distortion_for_excess_on_new_images() -> None:
    c, x = planted(3000, 2)
    label_only = torch.eye(5)[label_of(c)]
    free, dear = (protect(fitted(weight=w), c, x) for w in (0.0, 20.0))
    base = float((label_only - c).norm(dim=1).mean())
    shares = [float((z - c).norm(dim=1).mean()) / base for z in (free, dear)]
    assert shares[0] < shares[1] < 0.7
    told = [excess(z, c, x) for z in (free, dear)]
    assert told[0] > 0.03  # the shift
    assert abs(told[1]) < told[0] / 4


def test_at_weight_zero_the_nearest_codeword_is_released() -> None:
    c, x = planted(300, 2)
    codebook = fitted(weight=0.0, steps=0)
    z = protect(codebook, c, x)
    for row, out in zip(c.double(), z, strict=True):
        own = codebook.own_LJK[int(row.argmax())]
        nearest = own[(own - row).norm(dim=1).argmin()]
        torch.testing.assert_close(out.double(), nearest, rtol=0, atol=2e-7)
    assert len(torch.unique(z, dim=0)) <= 5 * 4


def test_the_image_decides_among_codewords_unless_the_weight_is_zero() -> None:
    c, x = planted(800, 2)
    for weight, reads in ((5.0, True), (0.0, False)):
        codebook = fitted(weight=weight)
        assert codebook.reads_image
        assert torch.equal(protect(codebook, c, x), protect(codebook, c, x.roll(1, 0))) is not reads


def test_the_label_is_the_only_maximum_and_rows_sum_to_one() -> None:
    codebook = fitted(steps=3)
    c = torch.cat([vectors(300), planted(300, 4)[0], torch.tensor([[0.2] * 5, [0.4, 0.4, 0.2, 0, 0]])])
    z = protect(codebook, c, torch.rand(len(c), 1, 8, 8, generator=generator(3, "x")))
    top = z.topk(2, dim=1).values
    assert bool((top[:, 0] > top[:, 1]).all())
    assert torch.equal(label_of(z), label_of(c))
    assert float((z.double().sum(1) - 1).abs().max()) < 1e-6


def test_nothing_that_is_kept_is_a_private_vector_or_image() -> None:
    (c, x), public = planted(200, 0), planted(200, 1)
    codebook = CodebookConfig().make()
    codebook.fit(view((c, x), public), rng=torch.Generator())
    for name, tensor in codebook.state().items():
        rows = tensor.reshape(-1, tensor.shape[-1]) if tensor.ndim else tensor.reshape(1, 1)
        for private in (c.double(), x.flatten(1).double()):
            if rows.shape[1] == private.shape[1] and len(rows):
                assert float(torch.cdist(rows.double(), private).min()) > 1e-7, name


def test_a_stored_fit_of_the_same_settings_is_loaded_and_releases_the_same() -> None:
    store: dict[str, dict[str, Tensor]] = {}

    def trained(
        kind: str,
        settings: Mapping[str, Any],
        make: Callable[[], dict[str, Tensor]],
        like: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        key = f"{kind} {sorted(settings.items())}"
        if key not in store:
            store[key] = load(save(make()))
        return store[key]

    private, public = planted(60, 0), planted(60, 1)
    (c_NK, x_NCHW), seen = planted(40, 2), view(private, public)
    released = []
    for given in (seen, replace(seen, trained=trained), replace(seen, trained=trained)):
        defense = Codebook(CodebookConfig(weight=5.0, steps=4))
        defense.fit(given, rng=generator(0, "fit"))
        released.append(protect(defense, c_NK, x_NCHW))
    assert len(store) == 1
    assert torch.equal(released[0], released[1])
    assert torch.equal(released[0], released[2])
    Codebook(CodebookConfig(weight=6.0, steps=4)).fit(replace(seen, trained=trained), rng=generator(0, "fit"))
    assert len(store) == 2


def test_the_side_that_is_not_named_does_not_matter() -> None:
    one, two, other = planted(300, 0), planted(300, 1), planted(300, 5)
    for side, changed in (("private", (one, other)), ("public", (other, two))):
        states = []
        for private, public in ((one, two), changed):
            codebook = CodebookConfig(fitted_on=side).make()  # type: ignore[arg-type]
            codebook.fit(view(private, public), rng=torch.Generator())
            states.append(codebook.state())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({"weight": -1.0}, "between 0 and 10,000"),
        ({"steps": 1}, "0 .no grid. or between 2 and 1,000"),
        ({"crowding": 101.0}, "between 0 and 100"),
        ({"directions": 0}, "between 1 and 1,000"),
        ({"fitted_on": "all"}, "private, public, both"),
    ],
)
def test_bad_settings_are_named(changes: dict, bound: str) -> None:
    with pytest.raises(ConfigError, match=bound):
        CodebookConfig(**changes)


def test_few_images_and_flat_ones_are_no_fault(make_decoder: Callable[..., InversionNet]) -> None:
    c = vectors(7)
    for x in (pictures(7), torch.full((7, 1, 16, 16), 0.5)):
        codebook = CodebookConfig().make()
        codebook.fit(view((c, x), (c, x)), rng=torch.Generator())
        assert torch.equal(label_of(protect(codebook, c, x)), label_of(c))
