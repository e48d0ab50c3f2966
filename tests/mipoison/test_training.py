"""The training loop: seeded, early stopping on the best state, and against Adam written out by hand."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mipoison.training as training
from mipoison.randomness import generator
from mipoison.training import (
    RECONSTRUCTION_LOSSES,
    OneCycleAdam,
    Validation,
    apply,
    mse,
    negative_psnr,
    one_cycle,
    seeded,
    train,
)

CPU = torch.device("cpu")


def data(n: int = 20, d: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = generator(seed, "data")
    return torch.randn(n, d, generator=rng), torch.randn(n, 2, generator=rng)


def linear(seed: int = 0, dropout: bool = False) -> nn.Module:
    with seeded(generator(seed, "init"), CPU):
        return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5) if dropout else nn.Identity(), nn.Linear(8, 2))


def state(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# -------------------------------------------------------------------------------------------------- seeds


def test_seeded_follows_its_generator_alone() -> None:
    assert torch.equal(state(linear(0)), state(linear(0)))
    assert not torch.equal(state(linear(0)), state(linear(1)))


def test_training_repeats_bit_for_bit_whatever_the_global_seed() -> None:
    x, y = data()
    runs = []
    for global_seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(global_seed)
            model = train(
                linear(dropout=True), x, y, mse, steps=7, batch=6, lr=1e-2, rng=generator(3, "train")
            )
        runs.append(state(model))
    other = train(linear(dropout=True), x, y, mse, steps=7, batch=6, lr=1e-2, rng=generator(4, "train"))
    assert torch.equal(*runs)
    assert not torch.equal(runs[0], state(other))


def test_model_is_returned_in_eval_mode_trained_in_place() -> None:
    x, y = data()
    model = linear(dropout=True)
    before = state(model)
    assert train(model, x, y, mse, steps=1, batch=4, lr=1e-2, rng=generator(0)) is model
    assert not model.training
    assert not torch.equal(state(model), before)


def test_data_is_left_alone_and_frozen_parameters_stay() -> None:
    x, y = data()
    before = (x.clone(), y.clone())
    model = linear()
    frozen = model[0].requires_grad_(False).weight.clone()  # type: ignore[index]
    train(model, x, y, mse, steps=3, batch=4, lr=1e-2, rng=generator(0))
    assert torch.equal(model[0].weight, frozen)  # type: ignore[index]
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


# ---------------------------------------------------------------------------------------------- the steps


@pytest.mark.parametrize("amsgrad", [False, True])
def test_steps_match_adam_by_hand(amsgrad: bool) -> None:
    """Full batches, so that the order plays no part; the schedule is read from torch's OneCycleLR."""
    x, y = data(8)
    model, slow = linear(), linear().double()
    steps, lr, b1, b2 = 6, 1e-2, 0.5, 0.999
    train(model, x, y, mse, steps=steps, batch=8, lr=lr, betas=(b1, b2), amsgrad=amsgrad, rng=generator(0))

    parameters = list(slow.parameters())
    m, v, top = ([torch.zeros_like(p) for p in parameters] for _ in range(3))
    for step in range(1, steps + 1):
        # One cycle (Smith 2018): 3 tenths up from lr/25 to lr, then down to lr/250,000, both along a cosine.
        peak = 0.3 * steps - 1
        i = step - 1
        low, high, part = (
            (lr / 25, lr, i / peak) if i <= peak else (lr, lr / 25e4, (i - peak) / (steps - 1 - peak))
        )
        rate = high + (low - high) * (1 + math.cos(math.pi * part)) / 2
        gradients = torch.autograd.grad(mse(slow(x.double()), y.double()), parameters)
        for j, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            m[j], v[j] = b1 * m[j] + (1 - b1) * g, b2 * v[j] + (1 - b2) * g**2
            top[j] = torch.maximum(top[j], v[j]) if amsgrad else v[j]
            denominator = (top[j] / (1 - b2**step)).sqrt() + 1e-8
            p.data -= rate * m[j] / (1 - b1**step) / denominator
    torch.testing.assert_close(state(model).double(), state(slow), rtol=1e-5, atol=1e-6)


def by_torch(model: nn.Module, x: Tensor, y: Tensor, *, steps: int, lr: float, amsgrad: bool) -> nn.Module:
    """Full batches, by torch's own classes."""
    adam = torch.optim.Adam(model.parameters(), lr=lr, betas=(0.5, 0.999), amsgrad=amsgrad, fused=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, lr, total_steps=steps, cycle_momentum=False)
    rng = generator(0)
    torch.randint(0, 2**62, (1,), generator=rng)  # the seed of dropout
    for _ in range(steps):
        rows = torch.randperm(len(x), generator=rng)
        adam.zero_grad()
        mse(model(x[rows]), y[rows]).backward()
        adam.step()
        cycle.step()
    return model


class Turned(nn.Module):
    """Autograd lays a gradient out as the copy of the weights was that the product took."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = linear(0)

    def forward(self, x: Tensor) -> Tensor:
        first, _, second = self.layers  # type: ignore[misc]
        return second(x @ first.weight.mT.contiguous() + first.bias)  # type: ignore[no-any-return]


class ChannelsLast(nn.Module):
    """A parameter that itself lies in memory in another order than its dimensions."""

    def __init__(self) -> None:
        super().__init__()
        with seeded(generator(0, "init"), CPU):
            self.weight = nn.Parameter(torch.randn(3, 2, 3, 4).to(memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(x @ self.weight.flatten(1)).unflatten(1, (2, 12))
        return (z * torch.arange(12.0).to(x)).mean(dim=2)


@pytest.mark.parametrize("make", [Turned, ChannelsLast])
def test_gradients_in_another_layout_train_as_those_of_their_parameters(make: type[nn.Module]) -> None:
    """The fused kernel pairs numbers by their place in memory and says nothing when these do not belong
    together: it would train, wrongly. By hand in float64, where layouts play no part."""
    x, y = data(8)
    model, slow = make(), make().double()
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(mse(model(x), y), parameters)
    assert any(g.stride() != p.stride() for g, p in zip(gradients, parameters, strict=True))
    steps, lr, b1, b2 = 6, 1e-2, 0.5, 0.999
    train(model, x, y, mse, steps=steps, batch=8, lr=lr, betas=(b1, b2), rng=generator(0))

    wide = list(slow.parameters())
    m, v = ([torch.zeros_like(p) for p in wide] for _ in range(2))
    for step in range(1, steps + 1):
        gradients = torch.autograd.grad(mse(slow(x.double()), y.double()), wide)
        for j, (p, g) in enumerate(zip(wide, gradients, strict=True)):
            m[j], v[j] = b1 * m[j] + (1 - b1) * g, b2 * v[j] + (1 - b2) * g**2
            denominator = (v[j] / (1 - b2**step)).sqrt() + 1e-8
            p.data -= one_cycle(step - 1, steps, lr) * m[j] / (1 - b1**step) / denominator
    torch.testing.assert_close(state(model).double(), state(slow), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("make", [linear, Turned, ChannelsLast])
def test_training_is_that_of_torchs_own_classes_bit_for_bit(
    make: Callable[[], nn.Module], amsgrad: bool
) -> None:
    x, y = data(8)
    expected = by_torch(make(), x, y, steps=40, lr=1e-2, amsgrad=amsgrad)
    model = make()
    train(model, x, y, mse, steps=40, batch=8, lr=1e-2, betas=(0.5, 0.999), amsgrad=amsgrad, rng=generator(0))
    assert torch.equal(state(model), state(expected))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 10, 400])
@pytest.mark.parametrize("peak", [5e-3, 1e-3, 0.1])
def test_the_cycle_is_torchs_bit_for_bit(steps: int, peak: float) -> None:
    optimiser = torch.optim.SGD(linear().parameters(), lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, peak, total_steps=max(steps, 2), cycle_momentum=False
    )
    for step in range(steps):
        assert one_cycle(step, steps, peak) == optimiser.param_groups[0]["lr"]
        optimiser.step()
        if step + 1 < max(steps, 2):
            cycle.step()


def test_a_parameter_without_a_gradient_waits_with_a_count_of_its_own() -> None:
    x, y = data(8)
    models = [linear(), linear()]
    ours = OneCycleAdam(models[0].parameters(), steps=6, lr=1e-2, betas=(0.9, 0.999), amsgrad=False)
    adam = torch.optim.Adam(models[1].parameters(), fused=True)
    for step in range(6):
        for model in models:
            model[2].requires_grad_(step % 2 == 1)  # type: ignore[index]
        before = models[0][2].weight.clone()  # type: ignore[index]
        ours.step(mse(models[0](x), y))
        adam.param_groups[0]["lr"] = one_cycle(step, 6, 1e-2)
        adam.zero_grad()
        mse(models[1](x), y).backward()
        adam.step()
        assert torch.equal(before, models[0][2].weight) == (step % 2 == 0)  # type: ignore[index]
    assert torch.equal(state(models[0]), state(models[1]))


def test_batches_go_through_every_sample_before_any_repeats() -> None:
    x = torch.arange(10.0)[:, None].repeat(1, 3)
    seen: list[list[float]] = []

    def spy(inputs: Tensor, rng: torch.Generator) -> Tensor:
        seen.append(inputs[:, 0].tolist())
        return inputs

    train(linear(), x, torch.zeros(10, 2), mse, steps=6, batch=3, lr=1e-3, rng=generator(0), augment=spy)
    assert all(len(batch) == 3 for batch in seen)  # the tenth sample of each epoch is the incomplete batch
    for epoch in (seen[:3], seen[3:]):
        assert len({v for batch in epoch for v in batch}) == 9
    assert seen[:3] != seen[3:]


def test_a_batch_larger_than_the_data_takes_them_all() -> None:
    sizes = []

    def spy(inputs: Tensor, rng: torch.Generator) -> Tensor:
        sizes.append(len(inputs))
        return inputs

    x, y = data(5)
    train(linear(), x, y, mse, steps=3, batch=64, lr=1e-3, rng=generator(0), augment=spy)
    assert sizes == [5, 5, 5]


def test_augmentation_draws_from_the_generator_given() -> None:
    x, y = data()

    def jitter(inputs: Tensor, rng: torch.Generator) -> Tensor:
        return inputs + torch.randn(inputs.shape, generator=rng)

    states = [
        state(train(linear(), x, y, mse, steps=3, batch=4, lr=1e-2, rng=generator(s), augment=jitter))
        for s in (0, 0, 1)
    ]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_averaged_weights_are_the_mean_of_those_after_the_last_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters and batch statistics, against the float64 mean of copies taken after each step."""
    x, y = data()
    seen: list[dict[str, Tensor]] = []
    step = OneCycleAdam.step

    def watched(self: OneCycleAdam, loss: Tensor) -> None:
        step(self, loss)
        seen.append({name: value.clone() for name, value in model.state_dict().items()})

    monkeypatch.setattr(OneCycleAdam, "step", watched)

    def trained(average: float) -> nn.Module:
        nonlocal model
        seen.clear()
        with seeded(generator(0, "init"), CPU):
            model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
        return train(model, x, y, mse, steps=8, batch=6, lr=0.05, rng=generator(3), average=average)

    model: nn.Module = nn.Identity()
    last = state(trained(0.0))
    for share, n in ((0.5, 4), (0.3, 2), (0.4, 3)):
        averaged = trained(share).state_dict()
        assert len(seen) == 8
        assert not model.training
        for name, value in averaged.items():
            if value.is_floating_point():
                mean = torch.stack([copies[name].double() for copies in seen[-n:]]).mean(0)
                torch.testing.assert_close(value.double(), mean, atol=1e-6, rtol=1e-5)
        assert not torch.equal(state(model), last)
        assert torch.equal(
            torch.cat([p.flatten() for p in last_parameters(seen)]), last
        )  # the steps are the same
        assert torch.equal(state(trained(share)), state(model))


def last_parameters(seen: list[dict[str, Tensor]]) -> list[Tensor]:
    """The parameters after the last step, without the buffers of batch statistics."""
    return [value for name, value in seen[-1].items() if name.endswith(("weight", "bias"))]


@pytest.mark.parametrize("average", [-0.1, 0.51, 1.0, float("nan")])
def test_an_average_that_is_not_possible_is_refused(average: float) -> None:
    x, y = data()
    with pytest.raises(ValueError, match="average"):
        train(linear(), x, y, mse, steps=2, batch=6, lr=0.1, rng=generator(0), average=average)
    held_out = Validation(x, y, every=1, patience=1)
    with pytest.raises(ValueError, match="average"):
        train(
            linear(), x, y, mse, steps=2, batch=6, lr=0.1, rng=generator(0), average=0.5, validation=held_out
        )


def test_training_lowers_the_loss() -> None:
    x, _ = data(50)
    y = x @ torch.tensor([[1.0, 0.0], [2.0, -1.0], [0.0, 3.0]])
    model = linear()
    before = mse(model(x), y).item()
    train(model, x, y, mse, steps=200, batch=16, lr=3e-2, rng=generator(0))
    assert mse(model(x), y).item() < 0.05 * before


def test_no_steps_is_the_model_itself() -> None:
    x, y = data()
    model = linear()
    before = state(model)
    assert torch.equal(state(train(model, x, y, mse, steps=0, batch=4, lr=1e-2, rng=generator(0))), before)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (1, 1), (5, 4)])
def test_too_few_or_unequal_pairs_are_refused(n: int, m: int) -> None:
    with pytest.raises(ValueError, match=f"got {n} inputs and {m} targets"):
        train(
            linear(), torch.zeros(n, 3), torch.zeros(m, 2), mse, steps=1, batch=2, lr=1e-3, rng=generator(0)
        )


# ----------------------------------------------------------------------------------------- early stopping


def test_early_stopping_keeps_the_best_validation_state(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data(12)
    held = Validation(
        *data(30, seed=9), every=5, patience=1000
    )  # other targets: fitting the training set hurts
    states: list[tuple[float, Tensor]] = []
    original = training.held_out_loss

    def spy(model: nn.Module, loss: training.Loss, validation: Validation) -> float:
        score = original(model, loss, validation)
        states.append((score, state(model).clone()))
        return score

    monkeypatch.setattr(training, "held_out_loss", spy)
    model = train(linear(), x, y, mse, steps=102, batch=12, lr=0.1, rng=generator(0), validation=held)
    scores = [s for s, _ in states]
    assert len(scores) == 21  # every fifth step and the last
    best = min(range(len(scores)), key=scores.__getitem__)
    assert best < len(scores) - 1  # the test would be empty otherwise
    assert torch.equal(state(model), states[best][1])
    assert mse(model(held.inputs), held.targets).item() == pytest.approx(scores[best])
    assert not model.training


def test_patience_counts_checks_without_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([5.0, 4.0, 4.0, 3.0, 3.5, 3.0, 3.2, 1.0])
    checks = []
    monkeypatch.setattr(training, "held_out_loss", lambda *_: checks.append(next(scores)) or checks[-1])
    x, y = data()
    train(
        linear(), x, y, mse, steps=100, batch=4, lr=1e-3, rng=generator(0),
        validation=Validation(x, y, every=10, patience=3),
    )  # fmt: skip
    assert checks == [5.0, 4.0, 4.0, 3.0, 3.5, 3.0, 3.2]  # three in a row that are not below 3.0


def test_validation_does_not_disturb_training() -> None:
    """Checking must neither leave the model in eval mode nor consume randomness."""
    x, y = data()
    best_is_last = Validation(x[:4], y[:4], every=1, patience=1000)
    plain = train(linear(dropout=True), x, y, mse, steps=9, batch=5, lr=1e-2, rng=generator(0))
    states = []
    original = training.held_out_loss

    def spy(model: nn.Module, loss: training.Loss, validation: Validation) -> float:
        original(model, loss, validation)
        states.append(copy.deepcopy(state(model)))
        return -float(len(states))  # always better: the last state is kept

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "held_out_loss", spy)
        checked = train(
            linear(dropout=True),
            x,
            y,
            mse,
            steps=9,
            batch=5,
            lr=1e-2,
            rng=generator(0),
            validation=best_is_last,
        )
    assert len(states) == 9
    assert torch.equal(state(checked), state(plain))


# ------------------------------------------------------------------------------------------ losses, apply


def test_losses_by_hand() -> None:
    a, b = torch.tensor([[0.5, 0.0]]), torch.tensor([[0.0, 0.0]])
    assert float(mse(a, b)) == 0.125
    assert float(negative_psnr(a, b)) == pytest.approx(10 * math.log10(0.125), abs=1e-5)
    assert float(negative_psnr(a, a)) == pytest.approx(-120)
    assert set(RECONSTRUCTION_LOSSES) == {"mse", "psnr"}


def test_gradient_of_psnr_is_a_positive_multiple_of_that_of_mse() -> None:
    rng = generator(0)
    target = torch.rand(5, 4, generator=rng)
    out = torch.rand(5, 4, generator=rng, requires_grad=True)
    (a,) = torch.autograd.grad(mse(out, target), out)
    (b,) = torch.autograd.grad(negative_psnr(out, target), out)
    assert float(F.cosine_similarity(a.flatten(), b.flatten(), dim=0)) == pytest.approx(1, abs=1e-6)


def test_apply_runs_in_eval_mode_in_chunks() -> None:
    x, _ = data(11)
    model = linear(dropout=True).train()
    out = apply(model, x, batch=4)
    assert not out.requires_grad
    torch.testing.assert_close(out, model.eval()(x))
    assert torch.equal(out[:4], apply(model, x[:4], batch=4))
    assert apply(model, x[:0]).shape == (0, 2)
