"""What is benchmarked: the same every time, of the stated size, and asked in the service's own chunks."""

import torch

from study.bench.subject import Size, decoder, fitted, pairs, protect

SIZE = Size(side=16, channels=3, classes=4, width=2)


def test_decoders_and_pairs_are_of_the_stated_size_and_repeat() -> None:
    c, x = pairs(SIZE, 5)
    assert (c.shape, x.shape) == ((5, 4), (5, 3, 16, 16))
    assert torch.equal(c, pairs(SIZE, 5)[0])
    assert decoder(SIZE)(c).shape == x.shape
    assert torch.equal(decoder(SIZE)(c), decoder(SIZE)(c))
    assert str(SIZE) == "3x16x16, 4 classes, decoder width 2"


def test_chunks_are_those_of_the_service() -> None:
    noise = fitted("noise", SIZE, budget=0.1, no_such_knob=1)
    c, x = pairs(SIZE, 150)
    sizes: list[int] = []
    original = noise.protect

    def spy(c_NK: torch.Tensor, *rest: object, **more: object) -> torch.Tensor:
        sizes.append(len(c_NK))
        return original(c_NK, *rest, **more)  # type: ignore[arg-type]

    noise.protect = spy  # type: ignore[method-assign]
    z = protect(noise, c, x)
    assert sizes == [128, 22]
    distances = (z - c).norm(dim=1)
    assert float(distances.max()) <= 0.1 + 1e-6
    assert float(distances.max()) > 0.05
