"""Columns of a certificate, pools of several sizes, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mipoison.certificates import (
    COLUMNS,
    Certificate,
    Gaussian,
    Observation,
    Uncertifiable,
    by_pool_size,
    certificate_columns,
    certify,
)
from mipoison.metrics.identification import identification
from mipoison.randomness import generator

N, K = 60, 3


@pytest.fixture(scope="module")
def pool() -> tuple[Tensor, Tensor, Tensor]:
    rng = generator(0, "pool")
    c = torch.softmax(2 * torch.randn(N, K, generator=rng), 1)
    return c, torch.rand(N, 1, 4, 4, generator=rng), c.argmax(1)


def certified(observation: Observation, x: Tensor, label: Tensor, **more: int) -> Certificate:
    found = certify(observation, x, label, rng=generator(0, "certificate"), **more)
    assert isinstance(found, Certificate)
    return found


def test_the_label_alone_has_no_excess_and_the_vector_itself_all_of_it(pool) -> None:
    c, x, label = pool
    alone = certified(Observation(label[:, None]), x, label)
    assert (alone.excess, alone.size) == (0.0, N)
    assert alone.bound.identification == K / N
    whole = certified(Observation(c), x, label)
    assert (whole.excess, whole.bound.error, whole.bound.identification) == (1.0, 0.0, 1.0)


def test_finer_grids_are_never_certified_for_less(pool) -> None:
    c, x, label = pool
    labelled = torch.cat([label[:, None].double(), c.double()], 1)
    excesses = [certified(Observation(labelled.mul(s).floor()), x, label).excess for s in (1, 2, 4, 8, 64)]
    assert excesses == sorted(excesses)
    assert excesses[0] < excesses[-1]


def test_noise_lies_between_the_label_and_the_vector_and_asking_again_tells_more(pool) -> None:
    c, x, label = pool
    noisy = Observation(label[:, None], Gaussian(c, 0.1, lambda rows, y: y))
    excesses = [certified(noisy, x, label, askings=q, draws=6000).excess for q in (1, 4, 100)]
    assert 0 < excesses[0] < excesses[1] < excesses[2] < 1


def test_labels_that_tell_everything_leave_nothing_to_certify(pool) -> None:
    _, x, _ = pool
    found = certify(
        Observation(torch.arange(N)[:, None]), x, torch.arange(N), rng=generator(0, "certificate")
    )
    assert isinstance(found, Uncertifiable)
    assert "the label tells everything" in found.reason


def test_columns(pool) -> None:
    c, x, label = pool
    grid = certified(Observation(c.mul(4).round()), x, label)
    columns = certificate_columns({"": grid, "_test": grid})
    assert set(columns) == {"certificate_none", *COLUMNS, *(f"{name}_test" for name in COLUMNS)}
    assert columns["certified_error_test"] == columns["certified_error"] == grid.bound.error
    assert columns["certified_excess"] == 1 - grid.bound.error / grid.floor
    assert (columns["pool_size"], columns["certified_tolerance"]) == (N, 0.0)
    assert isinstance(columns["smallest_cell"], int)
    assert columns["certificate_none"] is None
    none = certificate_columns({"": Uncertifiable("because"), "_test": Uncertifiable("because")})
    assert set(none) == set(columns)
    assert none.pop("certificate_none") == "because"
    assert set(none.values()) == {None}


def test_small_pools_overstate_what_leaks(pool) -> None:
    c, x, label = pool
    grid = Observation(c.mul(4).round())
    found = by_pool_size(grid, x, label, (10, 30, N), rng=generator(0, "sizes"))
    assert [f.size for f in found.values()] == [10, 30, N]
    assert found[10].bound.error < found[30].bound.error < found[N].bound.error
    assert found[N].bound.error == pytest.approx(certified(grid, x, label).bound.error)
    noisy = Observation(label[:, None], Gaussian(c, 0.1, lambda rows, y: y))
    part = by_pool_size(noisy, x, label, (10,), rng=generator(0, "sizes"), repeats=2)
    assert 0 < part[10].bound.error < certified(noisy, x, label).bound.error
    with pytest.raises(ValueError, match="size = 61: must be between 1 and the pool's 60"):
        by_pool_size(grid, x, label, (61,), rng=generator(0))


def test_parts_in_which_each_label_has_one_image_count_as_read(pool) -> None:
    _, x, label = pool
    found = by_pool_size(Observation(label[:, None]), x, label, (2, 3), rng=generator(0, "sizes"), repeats=40)
    whole = certified(Observation(label[:, None]), x, label)
    for size, certificate in found.items():
        assert certificate.size == size
        assert certificate.excess == pytest.approx(0)  # the label alone, in parts of any size
        assert 0 < certificate.floor < whole.floor
        assert 1 / size < certificate.bound.identification < 1
    with pytest.raises(ValueError, match="size = 1: in no part does a label have two different images"):
        by_pool_size(Observation(label[:, None]), x, label, (1,), rng=generator(0, "sizes"))


def test_identification_is_told_the_clean_label_beside_a_noisy_release(pool) -> None:
    """The release hides the label in noise, but identification is measured among the images of one label: an
    attacker who answers each label's mean image finds one image of each."""
    c, x, label = pool
    hidden = certified(Observation(torch.zeros(N, 1), Gaussian(c, 100.0, lambda rows, y: y)), x, label)
    means = torch.stack([x[label == k].mean(0) for k in range(K)])
    rate = identification(means[label], x, label).rate
    assert rate == pytest.approx(K / N)
    assert rate <= hidden.bound.identification < rate + 0.01
    assert hidden.excess < 0  # the label is hidden as well


def test_what_cannot_be_certified(pool) -> None:
    c, x, label = pool
    rng = generator(0)
    assert certify(Uncertifiable("because"), x, label, rng=rng) == Uncertifiable("because")
    assert isinstance(certify(Observation(c[:0]), x[:0], label[:0], rng=rng), Uncertifiable)
    with pytest.raises(ValueError, match="59 observed rows, 60 images and 60 labels"):
        certify(Observation(c[:-1]), x, label, rng=rng)
    with pytest.raises(ValueError, match="askings = 0"):
        certify(Observation(c), x, label, rng=rng, askings=0)
    with pytest.raises(ValueError, match=r"sigma = 0\.0"):
        Gaussian(c, 0.0, lambda rows, y: y)
    with pytest.raises(ValueError, match="59 means for 60"):
        Observation(c, Gaussian(c[:-1], 0.1, lambda rows, y: y))
    with pytest.raises(ValueError, match="shape"):
        Observation(label)
    with pytest.raises(ValueError, match="finite"):
        Gaussian(c * torch.nan, 0.1, lambda rows, y: y)
