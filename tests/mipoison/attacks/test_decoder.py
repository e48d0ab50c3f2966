"""The decoder attacker: it learns, and each option changes what it is supposed to change."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mipoison.attacks.decoder as decoder_module
from mipoison.attacks.decoder import Decoder
from mipoison.protocols import Attack
from mipoison.randomness import generator
from tests.mipoison.attacks.helpers import SHAPE, brightness, decoder, fit, grey

# ------------------------------------------------------------------------------------------- the decoder


@pytest.mark.parametrize("features", ["log", "raw"])
def test_decoder_beats_the_mean_image_on_an_easy_oracle(features: str) -> None:
    x, private = grey(120), grey(60, seed=1)
    attack = fit(decoder(features=features, steps=250, width=4, lr=1e-2), x)
    error = (attack.reconstruct(brightness(private)) - private).square().mean()
    mean_error = (x.mean(0) - private).square().mean()
    assert float(error) < 0.2 * float(mean_error)


def test_label_only_view_cannot_see_the_brightness() -> None:
    """One bit is left: a bright and a brighter image look alike."""
    attack = fit(decoder(view="label-only", features="raw", steps=100, width=4, lr=1e-2), grey(120))
    out = attack.reconstruct(torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]]))
    assert torch.equal(out[0], out[1])
    assert float(out[0].mean()) > float(out[2].mean()) + 0.1


def model_of(attack: Attack) -> Any:
    assert isinstance(attack, Decoder)
    return attack.model


def test_features_extra_blocks_and_width_shape_the_model() -> None:
    x = grey(12)
    plain = model_of(fit(decoder(), x))
    assert model_of(fit(decoder(features="raw"), x)).kind == "raw"
    assert plain.kind == "log"
    assert len(model_of(fit(decoder(extra_blocks=1), x)).layers) == len(plain.layers) + 3
    assert model_of(fit(decoder(width=3), x)).layers[-1].in_channels == 3
    assert plain.layers[0].in_channels == 2  # the number of classes


@pytest.fixture
def training_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Arguments of every call of the training loop, which still runs."""
    calls: list[dict[str, Any]] = []
    original = decoder_module.train

    def spy(model: nn.Module, inputs: Tensor, targets: Tensor, loss: Any, **kwargs: Any) -> nn.Module:
        calls.append({"inputs": inputs, "targets": targets, "loss": loss, **kwargs})
        return original(model, inputs, targets, loss, **kwargs)

    monkeypatch.setattr(decoder_module, "train", spy)
    return calls


def test_training_settings_reach_the_loop(training_calls: list[dict[str, Any]]) -> None:
    x = grey(12)
    fit(decoder(steps=7, batch=5, lr=3e-3, loss="psnr"), x)
    (call,) = training_calls
    assert (call["steps"], call["batch"], call["lr"]) == (7, 5, 3e-3)
    assert (call["betas"], call["amsgrad"], call["validation"]) == ((0.5, 0.999), True, None)
    a, b = torch.tensor([0.5]), torch.tensor([0.4])
    assert float(call["loss"](a, b)) == pytest.approx(10 * math.log10(0.01), abs=1e-4)
    assert torch.equal(call["targets"], x)
    torch.testing.assert_close(call["inputs"], brightness(x))


def test_the_loss_changes_the_result() -> None:
    x, c = grey(40), brightness(grey(5, seed=1))
    assert not torch.equal(fit(decoder(), x).reconstruct(c), fit(decoder(loss="psnr"), x).reconstruct(c))


@pytest.mark.parametrize(("share", "held"), [(0.25, 10), (0.5, 20), (0.001, 1)])
def test_validation_holds_out_pairs(training_calls: list[dict[str, Any]], share: float, held: int) -> None:
    x = grey(40)
    fit(decoder(validation=share, steps=50, patience=4), x)
    (call,) = training_calls
    validation = call["validation"]
    assert len(validation.targets) == held
    assert (validation.every, validation.patience) == (5, 4)
    rows = [row.numpy().tobytes() for part in (call["targets"], validation.targets) for row in part]
    assert sorted(rows) == sorted(row.numpy().tobytes() for row in x)  # every image once
    torch.testing.assert_close(validation.inputs, brightness(validation.targets))  # pairs stay pairs
    torch.testing.assert_close(call["inputs"], brightness(call["targets"]))


def test_early_stopping_keeps_the_best_validation_state(monkeypatch: pytest.MonkeyPatch) -> None:
    import mipoison.training as training

    scores = []
    original = training.held_out_loss

    def spy(model: nn.Module, loss: Any, validation: Any) -> float:
        scores.append((original(model, loss, validation), validation))
        return scores[-1][0]

    monkeypatch.setattr(training, "held_out_loss", spy)
    noise = torch.rand(12, *SHAPE, generator=generator(0))  # nothing to learn: training only overfits
    attack = fit(decoder(validation=0.5, steps=200, batch=6, lr=3e-2, patience=100, width=4), noise)
    values = [s for s, _ in scores]
    assert len(values) == 10
    assert min(values) < values[-1]
    validation = scores[0][1]
    out = model_of(attack)(validation.inputs)
    assert (out - validation.targets).square().mean().item() == pytest.approx(min(values), rel=1e-5)


def test_the_view_comes_before_training_and_before_reconstruction(
    training_calls: list[dict[str, Any]],
) -> None:
    x = grey(30)
    attack = fit(decoder(view="rounding", strength=1.0), x)
    tenths = training_calls[0]["inputs"] * 10
    torch.testing.assert_close(tenths, tenths.round())
    near = torch.tensor([[0.61, 0.39], [0.58, 0.42]])
    out = attack.reconstruct(near)
    assert torch.equal(out[0], out[1])
    plain = fit(decoder(), x).reconstruct(near)
    assert not torch.equal(plain[0], plain[1])
