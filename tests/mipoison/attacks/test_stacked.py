"""Stacked training against training one by one: parameters, losses, early stopping, and failing members."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mipoison.attacks import ATTACKS, stacked
from mipoison.attacks.decoder import Decoder, DecoderConfig, trains_in_one_job
from mipoison.attacks.stacked import JobResult, Stack, grouped, signature, train_many
from mipoison.models.inversion import InversionConfig, InversionNet
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator
from mipoison.training import RECONSTRUCTION_LOSSES, Job, Validation, apply, mse, seeded, train
from tests.mipoison.attacks.helpers import Brightness

CPU = torch.device("cpu")
K = 5


def images(n: int, seed: int = 0, size: int = 16) -> Tensor:
    """Smooth images, each a mixture of five templates."""
    rng = generator(seed, "templates")
    templates = torch.rand(K, 1, 4, 4, generator=rng).repeat_interleave(size // 4, 2)
    return torch.einsum("nk,kchw->nchw", vectors(n, seed), templates.repeat_interleave(size // 4, 3))


def vectors(n: int, seed: int = 0) -> Tensor:
    return torch.softmax(3 * torch.randn(n, K, generator=generator(seed, "vectors")), 1)


def job(seed: int = 0, n: int = 40, features: str = "log", **more: Any) -> Job:
    """A decoder's training as an attacker has it; everything follows from its arguments."""
    rng = generator(seed, "member")
    with seeded(rng, CPU):
        net = InversionConfig(features=features, width=3, extra_blocks=more.pop("extra", 0)).make(  # type: ignore[arg-type]
            (1, 16, 16), K
        )
    options: dict[str, Any] = dict(
        model=net, inputs=vectors(n, seed), targets=images(n, seed), loss=mse, steps=12, batch=16, lr=5e-3,
        betas=(0.5, 0.999), amsgrad=True, rng=rng,
    )  # fmt: skip
    return Job(**options | more)


def held_out(seed: int, every: int = 3, patience: int = 2) -> Validation:
    return Validation(vectors(12, seed + 50), images(12, seed + 50), every=every, patience=patience)


def jitter(c_NK: Tensor, rng: torch.Generator) -> Tensor:
    return torch.softmax(c_NK.log() + 0.1 * torch.randn(c_NK.shape, generator=rng), 1)


def mixed(steps: int = 12) -> list[Job]:
    """Seven members of one architecture that differ in all that members may differ in."""
    return [
        job(0, steps=steps),
        job(1, steps=steps, features="raw"),
        job(2, steps=steps, n=55),
        job(3, steps=steps, loss=RECONSTRUCTION_LOSSES["psnr"]),
        job(4, steps=steps, augment=jitter),
        job(5, steps=steps, validation=held_out(5)),
        job(6, steps=steps, loss=RECONSTRUCTION_LOSSES["psnr"], augment=jitter, validation=held_out(6)),
    ]


def state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def alone(jobs: list[Job]) -> list[Job]:
    for one in jobs:
        one.run()
    return jobs


def together(jobs: list[Job], **more: Any) -> list[Job]:
    for ran in train_many(jobs, **more):
        assert ran.error is None
    return jobs


def assert_alike(one: Job, other: Job, atol: float, rtol: float = 0.0) -> None:
    a, b = state(one.model), state(other.model)
    assert list(a) == list(b)
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=atol, rtol=rtol, msg=lambda m, n=name: f"{n}: {m}")
    assert torch.equal(one.rng.get_state(), other.rng.get_state()), "the generator went another way"


# ------------------------------------------------------------------------------------- the network itself


def test_a_stack_computes_what_its_members_do() -> None:
    nets = [job(s).model for s in range(4)]
    z = torch.rand(9, 4, K, generator=generator(1))
    stack = Stack(nets).train()  # type: ignore[arg-type]
    out = stack(z)
    for i, net in enumerate(nets):
        assert isinstance(net, InversionNet)
        expected = torch.sigmoid(net.train().layers(z[:, i, :, None, None]))
        torch.testing.assert_close(out[:, i], expected, atol=1e-6, rtol=0)
        for name, value in stack.state_of(i).items():  # the batch statistics as well
            torch.testing.assert_close(value, net.layers.state_dict()[name], atol=1e-6, rtol=1e-5)


def test_a_stack_draws_nothing_and_leaves_its_members_alone() -> None:
    nets = [job(s).model for s in range(2)]
    before = [state(n) for n in nets]
    random = torch.get_rng_state()
    stack = Stack(nets)  # type: ignore[arg-type]
    stack.train()(torch.rand(4, 2, K)).sum().backward()
    with torch.no_grad():
        for p in stack.parameters():
            p.add_(1.0)
    assert all(
        torch.equal(a, n.state_dict()[k]) for n, s in zip(nets, before, strict=True) for k, a in s.items()
    )
    torch.set_rng_state(random)


# --------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("steps", [1, 2, 12])
def test_parameters_and_statistics_after_some_steps(steps: int) -> None:
    """Results agree within 2e-5 after a dozen steps: Adam divides by tiny gradients and so amplifies
    rounding."""
    for one, other in zip(alone(mixed(steps)), together(mixed(steps)), strict=True):
        assert_alike(one, other, atol=2e-5, rtol=2e-5)


def whole(change: float = 0.0) -> list[Job]:
    """A whole training for either loss, its initial weights changed relatively."""
    jobs = [job(s, n=60, steps=400, loss=loss) for s, loss in enumerate(RECONSTRUCTION_LOSSES.values())]
    for one in jobs:
        for p in one.model.parameters():
            p.data *= 1 + change * torch.randn(p.shape, generator=generator(99))
    return jobs


def test_reconstructions_after_the_whole_training() -> None:
    """After 400 steps they differ as much as rounding of the initial weights makes them differ."""
    for one, shared, changed in zip(alone(whole()), together(whole()), alone(whole(1e-7)), strict=True):
        a, b, c = (apply(j.model, one.inputs) for j in (one, shared, changed))
        error_a, error_b = (float((out - one.targets).square().mean()) for out in (a, b))
        assert error_a < 0.35 * float(one.targets.var()), "nothing was learnt: no test"
        assert float((a - b).abs().mean()) < 4 * float((a - c).abs().mean()) < 0.05
        assert error_b == pytest.approx(error_a, rel=0.03)


def test_in_double_precision_the_whole_training_is_the_same() -> None:
    """In float64 the results agree, so the differences in float32 are rounding errors."""

    def doubled() -> list[Job]:
        out = [replace(j, inputs=j.inputs.double(), targets=j.targets.double()) for j in mixed(steps=150)]
        for one in out:
            one.model.double()
        return [j for j in out if j.validation is None]

    for one, other in zip(alone(doubled()), together(doubled()), strict=True):
        assert_alike(one, other, atol=1e-7, rtol=1e-7)


def test_the_same_batches_in_the_same_order() -> None:
    """Every member is trained on exactly the batches that it has when it is trained alone."""
    seen: dict[str, list[bytes]] = {"alone": [], "together": []}

    def noted(where: str) -> Any:
        def loss(output: Tensor, target: Tensor) -> Tensor:
            seen[where].append(target.contiguous().numpy().tobytes())
            return mse(output, target)

        return loss

    alone([job(3, n=37, loss=noted("alone"))])
    together([job(3, n=37, loss=noted("together")), job(4, n=50), job(5)])
    assert seen["alone"] == seen["together"]
    assert len(set(seen["alone"])) > 4


def test_a_member_does_not_depend_on_its_neighbours() -> None:
    base = together(mixed())
    reverse = together(mixed()[::-1])[::-1]
    fewer = together(mixed()[2:])
    small = together(mixed(), most=3)
    for i, member in enumerate(base):
        assert_alike(member, reverse[i], atol=2e-5, rtol=2e-5)
        assert_alike(member, small[i], atol=2e-5, rtol=2e-5)
        if i >= 2:
            assert_alike(member, fewer[i - 2], atol=2e-5, rtol=2e-5)


def test_early_stopping_stops_where_it_does_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member whose held-out loss gets worse keeps its early state and draws nothing more."""
    worse = Validation(vectors(12, 9), 1 - images(12, 9), every=2, patience=2)

    def make() -> list[Job]:
        return [job(0, steps=40, validation=worse), job(1, steps=40), job(2, steps=40, validation=worse)]

    checks: list[float] = []
    original = stacked.held_out_loss
    monkeypatch.setattr(stacked, "held_out_loss", lambda *a: checks.append(original(*a)) or checks[-1])
    for one, other in zip(alone(make()), together(make()), strict=True):
        assert_alike(one, other, atol=5e-5, rtol=5e-5)
    assert 4 <= len(checks) < 2 * 20, "nothing stopped early"


# --------------------------------------------------------------------------- who is stacked, who fails


def test_members_are_grouped_by_all_that_they_must_share() -> None:
    jobs = [
        job(0), job(1, extra=1), job(2, steps=13), job(3, features="raw"), job(4, batch=8), job(5, lr=1e-3),
        job(6, extra=1), job(7, n=10), job(8), job(9, n=200),
    ]  # fmt: skip
    assert grouped(jobs) == [[0, 3, 8, 9], [1, 6], [2], [4], [5], [7]]  # n=10 gives batches of ten
    assert grouped(jobs, most=3) == [[0, 3, 8], [9], [1, 6], [2], [4], [5], [7]]
    assert grouped([]) == []


def test_other_networks_are_trained_alone() -> None:
    with seeded(generator(0), CPU):
        net = nn.Sequential(nn.Flatten(), nn.Linear(K, 256), nn.Unflatten(1, (1, 16, 16)))
    odd = [replace(job(s), model=copy.deepcopy(net)) for s in (0, 1)]
    assert [signature(j) for j in odd] == [None, None]
    ran = train_many([*odd, job(2), job(3)])
    assert [r.members for r in ran] == [1, 1, 2, 2]
    expected = train(copy.deepcopy(net), odd[0].inputs, odd[0].targets, mse, **job(0).options())
    assert all(torch.equal(v, odd[0].model.state_dict()[k]) for k, v in expected.state_dict().items())


def test_what_is_not_finite_stays_with_its_member() -> None:
    bad = job(1)
    jobs = [job(0), replace(bad, targets=bad.targets * torch.nan), job(2)]
    assert [r.members for r in train_many(jobs)] == [3, 3, 3]
    assert all(bool(torch.isnan(p).all()) for p in jobs[1].model.parameters())
    for i in (0, 2):
        assert_alike(jobs[i], alone([job(i)])[0], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("culprit", [0, 2, 4])
def test_a_member_that_raises_fails_alone(culprit: int) -> None:
    def fail(c_NK: Tensor, rng: torch.Generator) -> Tensor:
        torch.rand(3, generator=rng)
        raise RuntimeError("no noise today")

    jobs = [job(s, augment=fail if s == culprit else None) for s in range(5)]
    ran = train_many(jobs)
    assert [str(r.error) for r in ran] == ["no noise today" if s == culprit else "None" for s in range(5)]
    for s, one in enumerate(jobs):
        if s != culprit:
            assert_alike(one, alone([job(s)])[0], atol=2e-5, rtol=2e-5)


def test_too_few_pairs_raise_as_they_do_alone() -> None:
    ran = train_many([job(0, n=1), job(1), job(2)])
    assert isinstance(ran[0], JobResult)
    assert "at least 2 pairs" in str(ran[0].error)
    assert [r.error for r in ran[1:]] == [None, None]
    assert all(r.seconds > 0 for r in ran)


# ------------------------------------------------------------------------------------------- attackers


def test_which_attackers_are_one_job() -> None:
    made = {
        name: trains_in_one_job(replace(config, **dict(width=2, steps=2, batch=4, lr=1e-3)).make())  # type: ignore[attr-defined]
        for name, config in ATTACKS.items()
        if isinstance(config, DecoderConfig)
    }
    assert {name for name, one in made.items() if not one} == {"tuned"}
    assert {"passive", "noise", "softmax", "rounding", "label-only", "robust", "restorer"} <= set(made)
    assert not trains_in_one_job(object())


@pytest.mark.parametrize("name", ["passive", "robust", "early-stopping", "noise", "distilled", "averaging-4"])
def test_an_attacker_prepared_and_trained_in_a_stack_is_the_attacker(name: str) -> None:
    known = ThreatModel("noise", {"budget": 0.05}, (1, 16, 16))
    x = torch.rand(40, 1, 1, 1, generator=generator(0)).expand(-1, 1, 16, 16).contiguous()
    config = replace(ATTACKS[name], width=2, steps=20, batch=8, lr=1e-2)  # type: ignore[call-arg]
    plain, shared, other = (config.make() for _ in range(3))  # type: ignore[attr-defined]
    plain.fit(Brightness(), x, known=known, rng=generator(1))
    jobs = [a.prepare(Brightness(), x, known=known, rng=generator(s)) for s, a in ((1, shared), (2, other))]
    assert [r.members for r in train_many(jobs)] == [2, 2]
    for attack in (shared, other):
        attack.finish()
    c = Brightness().query(x[:7])
    assert isinstance(shared, Decoder)
    assert shared.later == plain.later
    torch.testing.assert_close(shared.reconstruct(c), plain.reconstruct(c), atol=1e-3, rtol=0)
    assert not torch.allclose(other.reconstruct(c), plain.reconstruct(c), atol=1e-3)
