"""The strings that name a classifier are checked by their form and files, without loading anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mipoison.config import ConfigError
from mipoison.victims.source import check_source, check_transforms, short_name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two files that hold no classifier."""
    monkeypatch.chdir(tmp_path)
    for name in ("net.pt2", "weights.safetensors"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "state"),
    [
        ("net:make", None),
        ("package.net:Net.make", "weights.safetensors"),
        ("net.pt2", None),
    ],
)
def test_what_has_the_form_is_accepted_unread(here: Path, source: str, state: str | None) -> None:
    check_source(source, state)


@pytest.mark.parametrize(
    ("source", "state", "said"),
    [
        ("net", None, "expected module:factory"),
        ("net.py:make", None, "write the module's name without .py"),
        ("net:", None, "expected module:factory"),
        ("other.pt2", None, "no such file"),
        ("net:make", "none.pt", "'none.pt': no such file"),
        ("net:make", ".", "is a folder: name the file in it"),
        ("net.pt2", "weights.safetensors", "has its own weights"),
    ],
)
def test_a_mistake_is_said(here: Path, source: str, state: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        check_source(source, state)


@pytest.mark.parametrize("text", ["net:steps", "ResNet18_Weights.DEFAULT", '{"resize": [224]}'])
def test_transforms_of_a_known_form_are_accepted_unread(text: str) -> None:
    check_transforms(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resnet18", "expected module:name"),
        ("net.py:steps", "without .py"),
        ("", "expected module:name"),
        ("none.json", "no such file"),
    ],
)
def test_transforms_of_another_form_are_said(here: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        check_transforms(text)


def test_a_name_in_records_has_no_folder() -> None:
    assert short_name("secret/folder/Net.PT2") == "Net.PT2"
    assert short_name("package.net:make") == "package.net:make"


def test_torch_is_not_imported() -> None:
    code = "import sys, mipoison.victims.source; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
