"""Votes by groups of components: each is the vote on its own columns, and errors do not grow."""

import numpy as np
import pytest
import torch

from mipoison.attacks.group_votes import group_votes
from mipoison.attacks.kernel import LEAST_VOTE, votes
from mipoison.randomness import generator


def errors(components: int = 20) -> list[torch.Tensor]:
    """Three voters of 50 images; the second is better on the first four components, the third on others."""
    truth_3NP = torch.randn(3, 50, components, generator=generator(0, "errors"), dtype=torch.float64)
    truth_3NP[1, :, :4] *= 0.4
    truth_3NP[2, :, 4:] *= 0.4
    return list(truth_3NP)


def test_each_group_has_the_weights_of_least_error() -> None:
    """Against all weights on a grid of the simplex."""
    found_VP = group_votes(errors(), 20)
    assert found_VP.shape == (3, 20)
    assert found_VP.dtype == torch.float64
    torch.testing.assert_close(found_VP.sum(0), torch.ones(20, dtype=torch.float64))
    for start, end in ((0, 4), (4, 16), (16, 20)):
        w_V1 = found_VP[:, start : start + 1]
        assert torch.equal(found_VP[:, start:end], w_V1.expand(3, end - start))
        part = np.stack([e[:, start:end].numpy() for e in errors()])
        mine = float(np.square(np.tensordot(w_V1[:, 0].numpy(), part, 1)).sum())
        grid = [(a, b, 1 - a - b) for a in np.linspace(0, 1, 41) for b in np.linspace(0, 1 - a, 41)]
        least = min(float(np.square(np.tensordot(w, part, 1)).sum()) for w in grid)
        assert mine <= least * 1.01
    assert float(found_VP[1, 0]) > 0.6
    assert float(found_VP[2, 10]) > 0.6
    assert not bool(((found_VP > 0) & (found_VP < LEAST_VOTE)).any())


@pytest.mark.parametrize("judged", [0, 1, 4, 5, 16, 17])
@pytest.mark.parametrize("predicted", [0, 3, 4, 20])
def test_components_that_were_not_judged_have_the_weights_of_the_last(judged: int, predicted: int) -> None:
    few = [e[:, :judged] for e in errors()]
    found_VP = group_votes(few, predicted)
    assert found_VP.shape == (3, predicted)
    group = [(0, 4), (4, 16), (16, 20)]
    for p in range(predicted):
        start, end = [(a, b) for a, b in group if a <= p and (a < judged or a == 0)][-1]
        np.testing.assert_array_equal(found_VP[:, p].numpy(), votes([e[:, start:end] for e in few]))


def test_no_ends_are_one_vote_for_all() -> None:
    found_VP = group_votes(errors(), 20, ())
    np.testing.assert_array_equal(found_VP[:, 0].numpy(), votes(errors()))
    assert torch.equal(found_VP, found_VP[:, :1].expand(3, 20))
