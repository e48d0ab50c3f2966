"""Objects with logits, as Hugging Face's models return them: taken by themselves, or by logits_of."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.victims import logits_of
from mipoison.victims.ask import classifier_of
from mipoison.victims.identity import state_digest
from tests.mipoison.victims.helpers import Around


@dataclass
class Output:
    """As transformers' ImageClassifierOutput."""

    logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Output:
        loss = None if labels is None else pixel_values.sum()
        return Output(self.net(pixel_values), loss)


X = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def test_the_module_returns_the_logits() -> None:
    model = Net().eval()
    taken = logits_of(model)
    assert torch.equal(taken(X), model.net(X))
    assert torch.equal(taken(X, labels=torch.zeros(5)), model.net(X))
    assert state_digest(taken) == state_digest(model)
    exported = torch.export.export(taken, (X,), dynamic_shapes=None).module()
    assert torch.allclose(exported(X), model.net(X))


def test_a_classifier_needs_nothing_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mipoison")
    model = Net().eval()
    asked = classifier_of(model)
    for _ in range(2):
        assert torch.equal(asked(X), model.net(X))
    assert [record.getMessage() for record in caplog.records] == [
        "classifier Net returns a Output: its logits are taken"
    ]


def test_what_has_no_logits() -> None:
    with pytest.raises(ConfigError, match=r"return model\(x\)\.logits"):
        logits_of(Around(Net(), lambda net, x: object()))(X)
    pair = logits_of(Around(Net(), lambda net, x: (torch.zeros(5, 7), net(x).logits)), n_classes=3)
    assert pair(X).shape == (5, 3)
