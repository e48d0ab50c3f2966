"""A module that returns an object with logits, as a module that returns the logits alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mipoison.victims import outputs


class LogitsOf(nn.Module):
    """Returns the logits (N, K) of what the module returns: of its attribute ``logits``, a key, or a tuple.

    The weights' names and digest are those of the module.

    Raises:
        ConfigError: when called, if there are no logits in what the module returns.
    """

    def __init__(self, module: nn.Module, n_classes: int | None = None) -> None:
        super().__init__()
        self.module, self.n_classes = module, n_classes

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        answer = self.module(x, *args, **kwargs)
        return outputs.logits_of(answer, type(self.module).__name__, len(x), self.n_classes)


def logits_of(model: nn.Module, n_classes: int | None = None) -> nn.Module:
    """A classifier whose forward returns logits, of one that returns an object with them.

    Everything here that takes a classifier does this by itself; it is for your own code, for instance before
    ``torch.export``.

    Args:
        model: for example of Hugging Face's ``AutoModelForImageClassification``.
        n_classes: K, which tells the logits among several tensors of a tuple.
    """
    return LogitsOf(model, n_classes)
