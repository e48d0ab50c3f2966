"""Alignment engines against slow per-sample double backward and central differences, both in float64."""

import copy

import pytest
import torch
from torch import Tensor, nn

from mipoison.alignment import (
    align_batch,
    align_samples,
    norm_of,
    parameter_gradient,
    target_gradient,
)
from mipoison.randomness import generator
from tests.mipoison.alignment.helpers import (
    REFERENCES,
    K,
    MakeDecoder,
    N,
    flat_gradient,
    pictures,
    random_target,
    row_cosines,
    slow,
    value_of,
    vectors,
)

CASES = [(f, e, s) for f in ("log", "raw") for e in (0, 1) for s in (16, 32)]
SCOPES = {"sample": align_samples, "batch": align_batch}


@pytest.mark.parametrize("objective", ["cosine", "distance"])
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("features", "extra_blocks", "size"), CASES)
def test_engines_match_the_slow_double_backward(
    make_decoder: MakeDecoder, features: str, extra_blocks: int, size: int, scope: str, objective: str
) -> None:
    decoder = make_decoder(K, size, features, extra_blocks).double()
    c, x, target = vectors(), pictures(size), random_target(decoder)
    reference = REFERENCES[scope](decoder, target, c, x, objective)

    exact = SCOPES[scope](decoder, target, c, x, objective)
    assert exact.gradient_NK.shape == c.shape
    assert exact.cosine_N.shape == (N,)
    torch.testing.assert_close(exact.cosine_N, reference.cosine_N, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(exact.gradient_NK, reference.gradient_NK, rtol=1e-7, atol=1e-10)

    single = copy.deepcopy(decoder).float()
    fast = SCOPES[scope](single, [t.float() for t in target], c.float(), x.float(), objective)
    assert fast.gradient_NK.dtype == torch.float32
    assert float(row_cosines(fast.gradient_NK, reference.gradient_NK).min()) > 0.999
    torch.testing.assert_close(fast.cosine_N.double(), reference.cosine_N, rtol=1e-3, atol=1e-5)
    length = reference.gradient_NK.norm(dim=1)
    torch.testing.assert_close(fast.gradient_NK.double().norm(dim=1), length, rtol=1e-2, atol=0)


@pytest.mark.parametrize("objective", ["cosine", "distance"])
@pytest.mark.parametrize(("features", "extra_blocks", "size"), CASES)
def test_engines_match_central_differences(
    make_decoder: MakeDecoder, features: str, extra_blocks: int, size: int, objective: str
) -> None:
    decoder = make_decoder(K, size, features, extra_blocks).double()
    c, x, target = vectors(), pictures(size), random_target(decoder)
    t = torch.cat([v.flatten() for v in target])
    sample, batch = (engine(decoder, target, c, x, objective).gradient_NK for engine in SCOPES.values())
    for i in range(N):
        for k in range(K):
            h = 1e-4 * float(c[i, k])  # relative: through log features the scale of a score is its own size
            up, down = c.clone(), c.clone()
            up[i, k] += h
            down[i, k] -= h
            for gradient, rows in ((sample, slice(i, i + 1)), (batch, slice(None))):
                f = [
                    float(value_of(flat_gradient(decoder, v[rows], x[rows]), t, objective)[0])
                    for v in (up, down)
                ]
                numeric = (f[0] - f[1]) / (2 * h)
                noise = 1e-13 * max(1.0, abs(f[0])) / h  # rounding of the two values
                assert float(gradient[i, k]) == pytest.approx(numeric, rel=1e-4, abs=max(1e-9, 10 * noise))


@pytest.mark.parametrize("width", [1, 8])
def test_both_ways_to_the_gradient_norm(make_decoder: MakeDecoder, width: int) -> None:
    """Narrow layers multiply per-sample gradients out, wide ones with few places use Gram matrices."""
    decoder = make_decoder(K, 16, "log", 1, width).double()
    c, x, target = vectors(), pictures(16), random_target(decoder)
    fast, reference = align_samples(decoder, target, c, x), slow(decoder, target, c, x, "cosine")
    torch.testing.assert_close(fast.cosine_N, reference.cosine_N, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(fast.gradient_NK, reference.gradient_NK, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("channels", [1, 3])
def test_colour_and_64_pixels(make_decoder: MakeDecoder, channels: int) -> None:
    from mipoison.models.inversion import InversionConfig
    from mipoison.training import seeded

    with seeded(generator(0), torch.device("cpu")):
        decoder = InversionConfig(width=1).make((channels, 64, 64), K).eval().requires_grad_(False).double()
    c, target = vectors(), random_target(decoder)
    x = torch.rand(N, channels, 64, 64, generator=generator(0), dtype=torch.float64)
    fast, reference = align_samples(decoder, target, c, x), slow(decoder, target, c, x, "cosine")
    torch.testing.assert_close(fast.cosine_N, reference.cosine_N, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(fast.gradient_NK, reference.gradient_NK, rtol=1e-7, atol=1e-10)


def test_samples_do_not_couple(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder(K).double()
    c, x, target = vectors(5), pictures(16, 5), random_target(decoder)
    whole = align_samples(decoder, target, c, x)
    part = align_samples(decoder, target, c[2:4], x[2:4])
    torch.testing.assert_close(part.gradient_NK, whole.gradient_NK[2:4])
    torch.testing.assert_close(part.cosine_N, whole.cosine_N[2:4])


def test_a_batch_of_one_is_a_sample(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder(K).double()
    c, x, target = vectors(1), pictures(16, 1), random_target(decoder)
    for objective in ("cosine", "distance"):
        a, b = align_samples(decoder, target, c, x, objective), align_batch(decoder, target, c, x, objective)
        torch.testing.assert_close(a.cosine_N, b.cosine_N)
        torch.testing.assert_close(a.gradient_NK, b.gradient_NK)


def test_cosine_is_one_for_the_own_gradient(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder(K).double()
    c, x = vectors(), pictures(16)
    own = parameter_gradient(decoder, c, x)
    assert float(align_batch(decoder, own, c, x).cosine_N[0]) == pytest.approx(1, abs=1e-12)
    flipped = target_gradient(decoder, c, x)
    assert float(align_batch(decoder, flipped, c, x).cosine_N[0]) == pytest.approx(-1, abs=1e-12)


# ----------------------------------------------------------------------------------------- target gradient


@pytest.mark.parametrize(("features", "extra_blocks", "size"), CASES)
def test_target_is_the_gradient_of_minus_the_loss(
    make_decoder: MakeDecoder, features: str, extra_blocks: int, size: int
) -> None:
    decoder = make_decoder(K, size, features, extra_blocks)
    c, x = vectors(20), pictures(size, 20)
    reference = -flat_gradient(copy.deepcopy(decoder).double(), c, x)
    target = torch.cat([t.flatten() for t in target_gradient(decoder, c.float(), x.float())])
    assert float(row_cosines(target[None], reference[None])) > 0.99999
    assert float(target.double().norm() / reference.norm()) == pytest.approx(1, abs=1e-4)


def test_a_step_along_the_target_raises_the_loss(make_decoder: MakeDecoder) -> None:
    """Training subtracts gradients: a poisoned gradient along t moves the parameters by -t, and L goes up."""
    decoder = make_decoder(K).double()
    c, x = vectors(20), pictures(16, 20)
    target = target_gradient(decoder, c, x)
    before = float(nn.functional.mse_loss(decoder(c), x))
    for p, t in zip(decoder.parameters(), target, strict=True):
        p.data -= 1e-2 * t
    assert float(nn.functional.mse_loss(decoder(c), x)) > before


def test_chunks_do_not_change_the_gradient(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder(K).double()
    c, x = vectors(20), pictures(16, 20)
    whole = parameter_gradient(decoder, c, x)
    for chunk in (1, 7, 20):
        for a, b in zip(parameter_gradient(decoder, c, x, chunk=chunk), whole, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


def test_norm_of_a_list() -> None:
    assert float(norm_of([torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])])) == 5.0


# ------------------------------------------------------------------------------------------ side effects


@pytest.mark.parametrize("engine", ["sample", "batch", "parameter_gradient"])
def test_inputs_and_model_are_left_alone(make_decoder: MakeDecoder, engine: str) -> None:
    decoder = make_decoder(K)
    flags = [i % 2 == 0 for i, _ in enumerate(decoder.parameters())]
    for p, flag in zip(decoder.parameters(), flags, strict=True):
        p.requires_grad_(flag)
    c, x = vectors().float(), pictures(16).float()
    state, before = copy.deepcopy(decoder.state_dict()), (c.clone(), x.clone())
    if engine == "parameter_gradient":
        parameter_gradient(decoder, c, x)
    else:
        aligned = SCOPES[engine](decoder, [t.float() for t in random_target(decoder)], c, x)
        assert not aligned.gradient_NK.requires_grad
        assert not aligned.cosine_N.requires_grad
    assert [p.requires_grad for p in decoder.parameters()] == flags
    assert all(p.grad is None for p in decoder.parameters())
    assert all(torch.equal(v, state[k]) for k, v in decoder.state_dict().items())
    assert torch.equal(c, before[0])
    assert torch.equal(x, before[1])
    assert not c.requires_grad


def test_flags_are_restored_after_an_error(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder(K)
    target = [t.float() for t in random_target(decoder)]
    for call in (
        lambda: parameter_gradient(decoder, vectors().float(), pictures(32).float()),
        lambda: align_batch(decoder, target, vectors().float(), pictures(32).float()),
    ):
        with pytest.raises(RuntimeError):
            call()
        assert not any(p.requires_grad for p in decoder.parameters())


@pytest.mark.parametrize("engine", ["sample", "batch", "parameter_gradient"])
def test_engines_work_inside_no_grad(make_decoder: MakeDecoder, engine: str) -> None:
    """A server answers inside torch.no_grad()."""
    decoder = make_decoder(K)
    c, x, target = vectors().float(), pictures(16).float(), [t.float() for t in random_target(decoder)]

    def run() -> list[Tensor]:
        if engine == "parameter_gradient":
            return parameter_gradient(decoder, c, x)
        return [SCOPES[engine](decoder, target, c, x).gradient_NK]

    expected = run()
    with torch.no_grad():
        for a, b in zip(run(), expected, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("scope", SCOPES)
def test_unknown_objective_lists_the_valid_ones(make_decoder: MakeDecoder, scope: str) -> None:
    decoder = make_decoder(K).double()
    with pytest.raises(ValueError, match="'angle'; choose from: cosine, distance"):
        SCOPES[scope](decoder, random_target(decoder), vectors(), pictures(16), "angle")


def test_unknown_layer_is_refused(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder(K).double()
    decoder.layers.append(nn.Conv2d(1, 1, 1).double())
    with pytest.raises(TypeError, match="Conv2d"):
        align_samples(decoder, random_target(decoder), vectors(), pictures(16))
