"""Plug-ins by module: what is registered, what is refused in one line, and that records import nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mipoison.attacks import ATTACKS
from mipoison.config import ConfigError
from mipoison.defenses import DEFENSES
from mipoison.defenses.rounding import RoundingConfig
from mipoison.plugins import (
    declared_plugins,
    is_stand_in,
    load_plugin,
    missing_plugins,
    register_stand_ins,
    source_of,
)
from tests.study.examples.plugin.helpers import EXAMPLE, registries_restored


def write(text: str, name: str = "mipoison_planted") -> str:
    Path(f"{name}.py").write_text("from mipoison_example import BlendConfig, RawRidgeConfig\n" + text)
    return name


@pytest.fixture(autouse=True)
def _example_on_the_path(_registries: None) -> None:
    sys.path.insert(0, str(EXAMPLE))


def test_a_module_registers_what_it_brings_once() -> None:
    plugin = load_plugin("mipoison_example")
    assert load_plugin("mipoison_example") is plugin
    assert DEFENSES["blend"] is plugin.defenses["blend"]
    assert ATTACKS["raw-ridge"] == plugin.attacks["raw-ridge"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "brings nothing"),
        ("raise RuntimeError('no\\nway')", "cannot be imported: RuntimeError: no way"),
        ("DEFENSES = {'rounding': BlendConfig}", "mipoison has one of this name"),
        ("ATTACKS = {'ridge': RawRidgeConfig()}", "mipoison has one of this name"),
        ("DEFENSES = {'Blend it': BlendConfig}", "small letters"),
        ("DEFENSES = {'b': 3}", "expected a subclass"),
        ("ATTACKS = {'b': 3}", "expected a configuration"),
        ("DEFENSES = [BlendConfig]", "must be dictionaries"),
        (
            "from dataclasses import dataclass\nfrom mipoison.config import Config\n@dataclass(frozen=True)\n"
            "class C(Config):\n    budget: int = 1\n    def make(self): return 1\nDEFENSES = {'b': C}",
            "field 'budget' is int, and float in defense",
        ),
        (
            "from mipoison.config import Config\nclass C(Config): pass\nDEFENSES = {'b': C}",
            "cannot be made at its defaults",
        ),
    ],
)
def test_what_cannot_be_registered_is_one_line(text: str, said: str) -> None:
    before = dict(DEFENSES), dict(ATTACKS)
    with pytest.raises(ConfigError, match=said) as caught:
        load_plugin(write(text))
    assert "\n" not in str(caught.value)
    assert before == (DEFENSES, ATTACKS)


def test_two_plugins_of_one_name_collide() -> None:
    load_plugin("mipoison_example")
    text = "class Other(BlendConfig):\n    pass\nDEFENSES = {'blend': Other}"
    with pytest.raises(ConfigError, match="another plug-in has registered this name"):
        load_plugin(write(text))
    with pytest.raises(ConfigError, match=r"looked in .*entry points"):
        load_plugin("mipoison_nowhere")


def test_a_declaration_is_read_without_the_code() -> None:
    with registries_restored():
        plugin = load_plugin("mipoison_example")
        real = plugin.defenses["blend"]
        declared = declared_plugins(["rounding", "blend"], ["ridge", "raw-ridge"])
        digests = real().digest(), plugin.attacks["raw-ridge"].digest()
    assert declared_plugins(["rounding"], ["ridge"]) is None
    stored = json.loads(json.dumps(declared))
    assert missing_plugins(stored) == ["blend", "raw-ridge"]
    assert register_stand_ins(stored) == []
    assert "mipoison_example" not in sys.modules
    assert is_stand_in(DEFENSES["blend"])
    assert is_stand_in(ATTACKS["raw-ridge"])
    assert (DEFENSES["blend"]().digest(), ATTACKS["raw-ridge"].digest()) == digests
    assert DEFENSES["blend"].KNOBS == real.KNOBS
    assert ATTACKS["raw-ridge"].COST == 0
    with pytest.raises(ConfigError, match=r"plug-in mipoison_example, which is not loaded.*--plugin"):
        DEFENSES["blend"]().make()
    assert missing_plugins(stored) == ["blend", "raw-ridge"]  # a stand-in is no code
    load_plugin("mipoison_example")  # the user's own word replaces the stand-ins
    assert missing_plugins(stored) == []
    assert register_stand_ins(stored) == []
    assert not is_stand_in(DEFENSES["blend"])


@pytest.mark.parametrize(
    "broken",
    [
        3,
        {"defenses": {"blend": 3}},
        {"defenses": {"../x": {}}},
        {"defenses": {f"d{i}": {} for i in range(65)}},
        {"defenses": {"blend": {"class": "C", "fields": {"budget": {"kind": "int"}}}}},
        {"attacks": {"a": {"class": "C; import os", "fields": {}, "knobs": {}, "cost": 0, "screens": False}}},
    ],
)
def test_a_broken_declaration_registers_nothing(broken: object) -> None:
    before = dict(DEFENSES), dict(ATTACKS)
    assert len(register_stand_ins(broken)) == 1
    assert before == (DEFENSES, ATTACKS)


def test_a_declaration_cannot_replace_a_built_in() -> None:
    load_plugin("mipoison_example")
    declared = declared_plugins(["blend"], [])
    assert declared is not None
    declared["defenses"]["rounding"] = declared["defenses"].pop("blend")
    assert register_stand_ins(declared) == []
    assert DEFENSES["rounding"] is RoundingConfig


def test_changed_code_is_told_from_the_earlier() -> None:
    name = write("class C(BlendConfig): pass\nDEFENSES = {'mine': C}")
    load_plugin(name)
    first = source_of(DEFENSES["mine"]())
    assert first
    assert source_of(RoundingConfig()) is None
    Path(f"{name}.py").write_text(Path(f"{name}.py").read_text() + "\n# changed\n")
    assert source_of(DEFENSES["mine"]()) not in (first, None)


def test_code_in_another_file_of_the_plug_in_is_part_of_its_source() -> None:
    folder = Path("mipoison_packed")
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from dataclasses import dataclass\n"
        "from mipoison.config import Config\n"
        "from mipoison_packed import core\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class PackedConfig(Config):\n"
        "    def make(self): return core.made\n"
        "DEFENSES = {'packed': PackedConfig}\n"
    )
    (folder / "core.py").write_text("made = 1\n")
    load_plugin("mipoison_packed")
    first = source_of(DEFENSES["packed"]())
    (folder / "core.py").write_text("made = 2\n")
    assert source_of(DEFENSES["packed"]()) not in (first, None, "")


def test_no_file_of_the_current_folder_takes_the_place_of_an_installed_package() -> None:
    write("DEFENSES = {'mine': BlendConfig}")
    load_plugin("mipoison_planted")
    here = sys.path.index(str(Path.cwd()))
    assert all(sys.path.index(place) < here for place in sys.path if place.endswith("site-packages"))
