"""The examples in CONTRIBUTING.md work as its text says: a defense, an attacker, a data set."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from mipoison.config import ConfigError
from mipoison.data import datasets
from mipoison.protocols import ThreatModel
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.simplex import label_of
from tests.test_project import assert_says_something

BLOCKS = re.findall(
    r"^```python\n([\s\S]*?)^```$", (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(), flags=re.M
)
Load = Callable[[str], ModuleType]


def block(start: str) -> str:
    """The one code block that starts with this text."""
    (found,) = [text for text in BLOCKS if text.startswith(start)]
    return found


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Import a code block as a module of its own, in which dataclasses look up their annotations."""

    def load(start: str) -> ModuleType:
        name = "contributed"
        path = tmp_path / f"{name}.py"
        path.write_text(block(start))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def test_the_defense(load: Load) -> None:
    config = load('"""Tempering').TemperingConfig
    assert_says_something(config.summary())
    assert list(config.KNOBS) == ["temperature"]
    with pytest.raises(ConfigError, match=r"temperature = 0\.5: must be between 1 and 100"):
        config(temperature=0.5)
    c_NK = torch.softmax(3 * torch.randn(50, 5, generator=generator(0, "c")), 1)
    x_NCHW = torch.rand(50, 1, 16, 16, generator=generator(0, "x"))
    rng = QueryRandomness(content_keys(x_NCHW, b"secret"))
    everything = torch.ones(50, dtype=torch.bool)
    released = config(temperature=4.0).make().protect(c_NK, x_NCHW, everything, rng=rng)
    assert torch.equal(label_of(released), label_of(c_NK))
    assert torch.allclose(released, torch.softmax(c_NK.double().log() / 4, 1).float(), atol=1e-6)


class Api:
    """Two scores that depend on the brightness of an image."""

    n_classes = 2
    queries = 0

    def query(self, x_NCHW: Tensor) -> Tensor:
        self.queries += len(x_NCHW)
        b_N = x_NCHW.mean((1, 2, 3)).clamp(0.02, 0.98)
        return torch.stack([b_N, 1 - b_N], 1)


def test_the_attacker(load: Load) -> None:
    config = load('"""Random ridge').RandomRidgeConfig
    assert_says_something(config.summary())
    shape = (1, 16, 16)
    x_NCHW = torch.rand(80, 1, 1, 1, generator=generator(0, "x")).expand(80, *shape).contiguous()
    api, known = Api(), ThreatModel("none", {}, shape)
    reconstructions = []
    for seed in (0, 1):
        attack = config().make()
        attack.fit(api, x_NCHW[:60], known=known, rng=generator(seed, "attack"))
        reconstructions.append(attack.reconstruct(api.query(x_NCHW[60:])))
    assert api.queries == 2 * 80
    first, second = reconstructions
    assert first.shape == (20, *shape)
    assert first.dtype == torch.float32
    assert (first - x_NCHW[60:]).square().mean() < 0.2 * x_NCHW[60:].var()  # it learned the brightness
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="at least 4 images"):
        config().make().fit(api, x_NCHW[:3], known=known, rng=generator(0, "attack"))


def test_the_data_set(load: Load, tmp_path: Path) -> None:
    load_kmnist = load('"""Kuzushiji').load_kmnist
    entry = block("DATASETS: dict").replace("    ...\n", "")
    names = {**vars(datasets), "load_kmnist": load_kmnist}
    exec(compile(entry, "CONTRIBUTING.md", "exec"), names)
    spec = names["DATASETS"]["kmnist"]
    source = datasets.Source(name="kmnist", spec=spec, root=tmp_path, path=tmp_path, download=False)
    with pytest.raises(datasets.DataError, match=r"kmnist: put kmnist-train-imgs\.npz"):
        spec.loader(source)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    for part, rows in (("train", slice(0, 4)), ("test", slice(4, 6))):
        np.savez(tmp_path / f"kmnist-{part}-imgs.npz", images[rows])
        np.savez(tmp_path / f"kmnist-{part}-labels.npz", np.arange(6, dtype=np.uint8)[rows])
    loaded, labels, is_test, *_ = spec.loader(source)
    assert loaded.shape == (6, 32, 32, 1)
    assert np.array_equal(loaded[:, 2:-2, 2:-2, 0], images)
    assert loaded.sum() == images.sum()
    assert labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert is_test.tolist() == [False] * 4 + [True] * 2
