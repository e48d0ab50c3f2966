"""What the tests of the networks share: image shapes and the kinds of a network's layers."""

from torch import nn

SHAPES = [(1, 16, 16), (1, 32, 32), (3, 32, 32), (1, 64, 64)]


def kinds(model: nn.Module) -> list[str]:
    return [type(m).__name__ for m in model.modules() if not list(m.children())]
