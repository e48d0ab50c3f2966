"""A compiled engine returns the inner engine's gradient for any number of rows, or says why it cannot."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mipoison.alignment import make_engine
from mipoison.alignment.compiled import use_private_code_cache
from mipoison.config import ConfigError
from mipoison.models.inversion import InversionConfig, InversionNet
from mipoison.training import seeded

K = 4
CACHE = "TORCHINDUCTOR_CACHE_DIR"
compiles = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="no C++ compiler: nothing to compile with",
)


@pytest.fixture
def subject() -> tuple[InversionNet, list[Tensor], Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    with seeded(rng, torch.device("cpu")):
        decoder = InversionConfig(width=2).make((1, 16, 16), K).eval().requires_grad_(False)
    target = [torch.randn(p.shape, generator=rng) for p in decoder.parameters()]
    c_NK = torch.softmax(2 * torch.randn(140, K, generator=rng), 1)
    return decoder, target, c_NK, torch.rand(140, 1, 16, 16, generator=rng)


@compiles
@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("objective", ["cosine", "frozen"])
def test_sample_scope_with_fewer_and_more_rows_than_are_compiled(
    subject: tuple[InversionNet, list[Tensor], Tensor, Tensor], objective: str
) -> None:
    decoder, target, c, x = subject
    inner = make_engine("forward-over-reverse", decoder, target, objective=objective)
    engine = make_engine("forward-over-reverse-compiled", decoder, target, objective=objective)
    assert engine.name == "forward-over-reverse-compiled"
    for n in (140, 5, 1):
        expected = inner.gradient(c[:n], x[:n])
        found = engine.gradient(c[:n], x[:n])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    kept = engine.gradient(c[:3], x[:3])
    engine.gradient(c[3:6], x[3:6])
    torch.testing.assert_close(kept, inner.gradient(c[:3], x[:3]), rtol=1e-4, atol=1e-6)  # not overwritten
    assert len(engine._made) == 1  # type: ignore[attr-defined]  # one shape
    assert engine.gradient(c[:0], x[:0]).shape == (0, K)
    assert torch.equal(engine.align(c, x).cosine_N, inner.align(c, x).cosine_N)
    again = pickle.loads(pickle.dumps(engine))
    assert again.name == engine.name
    assert again._made == {}
    assert engine._made  # type: ignore[attr-defined]


@compiles
@pytest.mark.long
@pytest.mark.timeout(300)
def test_batch_scope(subject: tuple[InversionNet, list[Tensor], Tensor, Tensor]) -> None:
    decoder, target, c, x = subject
    expected = make_engine("forward-over-reverse", decoder, target, scope="batch").gradient(c[:9], x[:9])
    engine = make_engine("forward-over-reverse-compiled", decoder, target, scope="batch")
    found = engine.gradient(c[:9], x[:9])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_what_cannot_be_compiled_is_one_line_and_names_the_way_out(
    subject: tuple[InversionNet, list[Tensor], Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nand much more")

    monkeypatch.setattr(torch, "compile", fails)
    decoder, target, c, x = subject
    engine = make_engine("forward-over-reverse-compiled", decoder, target)
    with pytest.raises(ConfigError, match=r"compiled here \(no compiler\); take 'forward-over-reverse'$"):
        engine.gradient(c, x)
    with pytest.raises(ConfigError, match="'double-backward-compiled'"):
        make_engine("double-backward-compiled", decoder, target)


@pytest.mark.parametrize("before", [None, "torch's", "chosen"])
def test_generated_code_is_not_kept_where_others_can_plant_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: str | None
) -> None:
    """torch chooses a folder below the shared temporary one when an optimizer is first used."""
    monkeypatch.setenv("HOME", str(tmp_path))
    given = {"torch's": f"{tempfile.gettempdir()}/torchinductor_me", "chosen": "/scratch/me"}
    monkeypatch.setenv(CACHE, given.get(before or "", ""))
    use_private_code_cache()
    expected = "/scratch/me" if before == "chosen" else f"{tmp_path}/.cache/mipoison/torchinductor"
    assert os.environ[CACHE] == expected
