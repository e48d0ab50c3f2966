"""How many samples fit: operations and maps as a real pass counts them, and a chunk within its bounds."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mipoison.alignment import memory
from mipoison.alignment.memory import chunk_of, floats_per_sample, multiply_adds
from tests.mipoison.alignment.helpers import MakeDecoder

CPU = torch.device("cpu")


@pytest.mark.parametrize(("size", "extra"), [(16, 0), (32, 1), (64, 0)])
def test_counts_are_those_of_a_pass(make_decoder: MakeDecoder, size: int, extra: int) -> None:
    decoder = make_decoder(size=size, extra_blocks=extra)
    maps: list[int] = []
    for layer in decoder.layers:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(lambda _, given, out: maps.append(out[0].numel()))
    with FlopCounterMode(display=False) as counter:
        decoder(torch.full((1, 4), 0.25))
    assert 2 * multiply_adds(decoder) == counter.get_total_flops()
    assert floats_per_sample(decoder) >= sum(maps)
    assert floats_per_sample(decoder) <= 8 * sum(maps)  # half the patches of a 4x4 kernel at stride 1


def test_a_chunk_fits_into_its_share(make_decoder: MakeDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = make_decoder()
    one = 4 * 12.0 * floats_per_sample(decoder)
    for free, expected in ((0, 1), (one / memory.SHARE * 7.5, 7), (2**60, memory.MOST["cpu"])):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: int(free))
        assert chunk_of(decoder, 12.0, CPU) == expected
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(one / memory.SHARE * 7.5))
    assert chunk_of(decoder.double(), 12.0, CPU) == 3  # a number takes twice the room
