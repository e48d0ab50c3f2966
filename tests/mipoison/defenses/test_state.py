"""A fitted defense as named tensors: what is written comes back, whatever the order of the names."""

import pytest
import torch

from mipoison.defenses.state import decoder_from, decoder_state, list_from, list_state, module_state, part
from tests.mipoison.defenses.helpers import MakeDecoder


def test_names_and_lists() -> None:
    tensors = [torch.tensor(float(i)) for i in range(12)]
    state = (
        list_state("a", tensors) | list_state("ab", tensors[:1]) | module_state("m", torch.nn.Linear(2, 1))
    )
    assert torch.stack(list_from(dict(sorted(state.items())), "a")).tolist() == list(range(12))
    assert set(part(state, "m")) == {"weight", "bias"}
    assert list_from(state, "nothing") == []


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("features", ["log", "raw"])
@pytest.mark.parametrize("extra", [0, 2])
def test_a_decoder_comes_back_whole(make_decoder: MakeDecoder, size: int, features: str, extra: int) -> None:
    decoder = make_decoder(5, size=size, features=features, extra_blocks=extra, width=3)
    again = decoder_from(dict(sorted(decoder_state("d", decoder).items())), "d")
    assert again.kind == features
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    c = torch.softmax(torch.arange(10.0).reshape(2, 5), 1)
    assert torch.equal(again(c), decoder(c))


def test_other_tensors_are_no_decoder(make_decoder: MakeDecoder) -> None:
    state = decoder_state("d", make_decoder())
    with pytest.raises(KeyError):
        decoder_from(state, "e")
    few = {k: v for k, v in state.items() if not k.startswith("d.layers.0.")}
    with pytest.raises((ValueError, RuntimeError)):
        decoder_from(few, "d")
