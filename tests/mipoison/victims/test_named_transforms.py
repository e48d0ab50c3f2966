"""Transforms that a command line names are the ones of the library; what is kept of them names nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet18_Weights

from mipoison.config import ConfigError
from mipoison.victims.named_transforms import stated, statement
from mipoison.victims.preprocess import preprocessing_from

CODE = """
import functools
from torchvision.transforms import v2
steps = v2.Compose([v2.Resize(40, antialias=True), v2.Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])])
plain = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
class Holder:
    steps = steps
def made():
    return steps
partial = functools.partial(made)
def wants(x):
    return x
no_size = v2.Compose([v2.Resize(None, max_size=32)])
def flips():
    return v2.Compose([v2.RandomHorizontalFlip()])
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder with a module of transforms."""
    (tmp_path / "named_steps.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("named_steps", None)
    return tmp_path


@pytest.mark.parametrize("name", ["steps", "made", "partial", "Holder.steps"])
def test_an_object_or_a_function_that_returns_it(here: Path, name: str) -> None:
    line = statement(f"named_steps:{name}")
    assert "\n" not in line
    x = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(stated(line)(x), sys.modules["named_steps"].steps(x))
    assert statement(line) == line  # as a resumed study gives it


@pytest.mark.parametrize("name", ["IMAGENET1K_V1", "DEFAULT"])
def test_a_name_of_torchvision_s_weights(name: str) -> None:
    line = statement(f"ResNet18_Weights.{name}")
    x = torch.rand(1, 3, 300, 280, generator=torch.Generator().manual_seed(0))
    assert torch.equal(stated(line)(x), ResNet18_Weights.DEFAULT.transforms()(x))


def test_an_image_processor_s_file(here: Path) -> None:
    plain = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    Path("preprocessor_config.json").write_text(json.dumps(plain))
    expected = preprocessing_from(plain)
    assert stated(statement("preprocessor_config.json")) == expected
    assert stated(statement("named_steps:plain")) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ResNet18_Weights.NONE", "choose from IMAGENET1K_V1"),
        ("ResNet17_Weights.DEFAULT", r"torchvision [\d.+a-z]* has no ResNet17_Weights; it has .*ResNet18_W"),
        ("named_steps:wants", "called without arguments it failed"),
        ("named_steps:flips", "RandomHorizontalFlip is none that can be stated"),
        ("named_steps:none", "cannot be imported"),
        ("no_such_steps:made", "looked in"),
        ("list.json", "holds a list"),
        ("broken.json", "cannot be read"),
        ('{"resize": [4]', "no JSON"),
        ('{"resized": [4]}', "unknown form"),
        ('{"resize": "four"}', "unknown form"),
        ('{"resize": [24.5], "antialias": true}', "unknown form"),
        ('{"mean": [NaN], "std": [1]}', "finite"),
        ('{"mean": [0.5], "std": [Infinity]}', "finite"),
        ('{"mean": ["a"], "std": [1]}', "unknown form"),
        ('{"a":' * 100_000, "no JSON"),
        ("deep.json", "cannot be read"),
        ("named_steps:no_size", "max_size"),
    ],
)
def test_a_mistake_is_one_line(here: Path, text: str, said: str) -> None:
    Path("list.json").write_text("[]")
    Path("broken.json").write_text("{")
    Path("deep.json").write_text('{"a":' * 100_000)
    with pytest.raises(ConfigError, match=said) as raised:
        statement(text)
    assert "\n" not in str(raised.value)


def test_what_is_kept_imports_nothing(here: Path) -> None:
    """The reader of records takes numbers alone: a name in their place is refused."""
    with pytest.raises(ConfigError, match="no JSON"):
        stated("named_steps:made")
    assert "named_steps" not in sys.modules
