"""No defense: the vectors themselves, as a copy."""

import torch

from mipoison.defenses.none import NoDefense
from tests.mipoison.defenses.helpers import pictures, protect, vectors


def test_none_releases_a_copy() -> None:
    c, x = vectors(9), pictures(9)
    assert torch.equal(protect(NoDefense(), c, x), c)
