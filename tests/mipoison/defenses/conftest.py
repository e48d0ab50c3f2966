"""A decoder that is easy to align with."""

import pytest
from torch import Tensor

from mipoison.protocols import DefenderView
from tests.mipoison.defenses.helpers import MakeDecoder, pictures, vectors, view_of


@pytest.fixture(scope="module")
def easy(make_decoder: MakeDecoder) -> tuple[DefenderView, Tensor, Tensor]:
    """A random decoder and vectors inside the simplex, where alignment has room."""
    return view_of(make_decoder(5, width=4), 5), vectors(40, sharpness=0.7), pictures(40)
