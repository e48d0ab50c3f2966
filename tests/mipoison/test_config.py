"""Configurations: they check themselves, round-trip through flat keys, and their knobs are possible."""

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from mipoison.attacks import ATTACKS
from mipoison.attacks.decoder import DecoderConfig
from mipoison.config import Config, ConfigError, Knob, choose, digest, kind_of, missing_extra
from mipoison.defenses import DEFENSES
from mipoison.defenses.lfp import LFPConfig
from mipoison.defenses.lpa import LPAConfig
from mipoison.defenses.noise import NoiseConfig
from mipoison.defenses.rounding import RoundingConfig
from mipoison.models.classifier import ClassifierConfig
from mipoison.models.inversion import InversionConfig, SubstituteConfig
from mipoison.scene import SceneConfig

ALL: dict[str, Config] = (
    {f"defense {name}": cls() for name, cls in DEFENSES.items()}
    | {f"attack {name}": config for name, config in ATTACKS.items()}
    | {c.__name__: c() for c in (SceneConfig, ClassifierConfig, InversionConfig, SubstituteConfig)}
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(Config):
    """One field of every kind."""

    flag: bool = False
    count: int = 1
    size: float = 0.5
    name: str = "a"
    mode: Literal["x", "y"] = "x"
    maybe: float | None = None

    KNOBS: ClassVar[dict[str, Knob]] = {}

    def validate(self) -> None:
        self.require("size", 0 <= self.size <= 1, "between 0 and 1")


def knobs() -> list[Any]:
    return [
        pytest.param(name, key, id=f"{name}-{key}") for name, config in ALL.items() for key in config.KNOBS
    ]


def values_of(knob: Knob) -> list[Any]:
    """What a sweep may hand over: the ends, a middle, or every choice."""
    if knob.choices is not None:
        return list(knob.choices)
    assert knob.low is not None
    assert knob.high is not None
    assert knob.low < knob.high
    middle = math.sqrt(knob.low * knob.high) if knob.log else (knob.low + knob.high) / 2
    ends = [knob.low, knob.high, middle]
    return [round(v) for v in ends] if knob.integer else ends


# -------------------------------------------------------------------------------------------- flat keys


@pytest.mark.parametrize("prefix", ["", "defense"])
@pytest.mark.parametrize("name", ALL)
def test_flat_keys_round_trip_through_json(name: str, prefix: str) -> None:
    config = ALL[name]
    flat = json.loads(json.dumps(config.flat(prefix), allow_nan=False))
    assert all(key.startswith(f"{prefix}." if prefix else "") for key in flat)
    assert type(config).from_flat(flat, prefix) == config


@pytest.mark.parametrize(("name", "key"), knobs())
def test_values_of_a_knob_round_trip(name: str, key: str) -> None:
    config = ALL[name]
    for value in values_of(config.KNOBS[key]):
        changed = dataclasses.replace(config, **{key: value})
        assert type(config).from_flat(json.loads(json.dumps(changed.flat("d"))), "d") == changed


def test_other_prefixes_are_ignored() -> None:
    flat = {"attack": "passive", "attack.budget": 3, "defense": "noise", "defense.budget": 0.25}
    assert NoiseConfig.from_flat(flat, "defense") == NoiseConfig(budget=0.25)


def test_missing_keys_take_the_default() -> None:
    assert LPAConfig.from_flat({}, "defense") == LPAConfig()


@pytest.mark.parametrize("name", ALL)
def test_unknown_key_lists_the_valid_ones(name: str) -> None:
    cls = type(ALL[name])
    with pytest.raises(ConfigError, match="bugdet") as caught:
        cls.from_flat({"defense.bugdet": 1}, "defense")
    assert all(field in str(caught.value) for field in cls.field_kinds())
    assert "\n" not in str(caught.value)


def test_choose_suggests_the_nearest_name() -> None:
    assert choose("defense", "lpa", DEFENSES) == "lpa"
    with pytest.raises(
        ConfigError, match=r"unknown defense 'lpaa' \(did you mean 'lpa'\?\); choose from: .*noise"
    ):
        choose("defense", "lpaa", DEFENSES)


# ------------------------------------------------------------------------------------------------ checks


@pytest.mark.parametrize(
    ("cls", "field", "value", "bound"),
    [
        (NoiseConfig, "budget", -0.1, "between 0 and 1.5"),
        (NoiseConfig, "budget", 1.6, "between 0 and 1.5"),
        (NoiseConfig, "budget", math.nan, "finite"),
        (NoiseConfig, "budget", math.inf, "finite"),
        (NoiseConfig, "budget", "0.1", "float"),
        (NoiseConfig, "budget", True, "float"),
        (NoiseConfig, "budget", None, "float"),
        (NoiseConfig, "randomness", "sometimes", "keyed, fresh"),
        (NoiseConfig, "randomness", 3, "str"),
        (RoundingConfig, "decimals", -1, "between 0 and 6"),
        (RoundingConfig, "decimals", 7, "between 0 and 6"),
        (RoundingConfig, "decimals", 2.0, "int"),
        (RoundingConfig, "decimals", True, "int"),
        (LPAConfig, "budget", 1.51, "between 0 and 1.5"),
        (LPAConfig, "rounds", -1, "between 0 and 1000"),
        (LPAConfig, "rounds", 1001, "between 0 and 1000"),
        (LPAConfig, "step", 0.0, "above 0"),
        (LPAConfig, "step", 2.1, "at most 2"),
        (LPAConfig, "scope", "user", "sample, batch"),
        (LPAConfig, "objective", "angle", "cosine, distance"),
        (LPAConfig, "target", "public", "private, flipped, random"),
        (LPAConfig, "loss", "ssim", "mse, psnr"),
        (LPAConfig, "keep_label", 1, "bool"),
        (LPAConfig, "substitute_extra_blocks", 4, "between 0 and 3"),
        (LPAConfig, "substitute_features", "sqrt", "log, raw"),
        (LPAConfig, "substitute_data", "D3", "D1, D2, all"),
        (LFPConfig, "ratio", 0.0, "above 0"),
        (LFPConfig, "ratio", 1.0, "below 1"),
        (LFPConfig, "threshold", 0.0, "above 0"),
        (LFPConfig, "threshold", 1.01, "at most 1"),
        (DecoderConfig, "view", "glasses", "identity"),
        (DecoderConfig, "strength", -1.0, "at least 0"),
        (DecoderConfig, "validation", 0.51, "between 0 and 0.5"),
        (DecoderConfig, "patience", 0, "at least 1"),
        (DecoderConfig, "width", 0, "at least 1"),
        (DecoderConfig, "steps", -3, "at least 1"),
        (DecoderConfig, "lr", 0.0, "above 0"),
        (DecoderConfig, "lr", math.nan, "finite"),
        (DecoderConfig, "extra_blocks", 4, "between 0 and 3"),
        (DecoderConfig, "data", "D3", "all, D1, D2"),
        (SceneConfig, "seed", -1, "at least 0"),
        (SceneConfig, "limit", 9, "at least 10"),
        (SceneConfig, "auxiliary", "other", "same, disjoint"),
        (SceneConfig, "victim_width", 0, "above 0"),
        (SceneConfig, "decoder_lr", 0.0, "above 0"),
        (SceneConfig, "threads", 0, "above 0"),
        (ClassifierConfig, "steps", 0, "at least 1"),
        (ClassifierConfig, "lr", -1.0, "above 0"),
        (InversionConfig, "extra_blocks", -1, "between 0 and 3"),
        (InversionConfig, "width", 0, "at least 1"),
        (SubstituteConfig, "data", "D4", "D1, D2, all"),
    ],
)
def test_bad_value_names_field_value_and_bound(cls: type[Config], field: str, value: Any, bound: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cls(**{field: value})
    text = str(caught.value)
    assert f"{cls.__name__}.{field}" in text
    assert repr(value) in text
    assert bound in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("field", "value"),
    [("flag", 0), ("count", True), ("count", 1.0), ("size", "1"), ("name", 1), ("mode", "z"), ("maybe", "1")],
)
def test_types_are_exact(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"Sample\.{field} = "):
        Sample(**{field: value})


def test_none_where_it_is_allowed_only() -> None:
    assert Sample(maybe=None).maybe is None
    assert Sample(maybe=2).maybe == 2.0
    with pytest.raises(ConfigError, match=r"Sample\.size = None"):
        Sample(size=None)  # type: ignore[arg-type]


def test_whole_numbers_become_floats() -> None:
    config = NoiseConfig(budget=1)
    assert type(config.budget) is float
    assert config.digest() == NoiseConfig(budget=1.0).digest()


def test_a_whole_number_too_large_for_a_float_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"NoiseConfig\.budget"):
        NoiseConfig(budget=10**400)


@pytest.mark.parametrize("name", ALL)
def test_configurations_are_frozen_plain_and_keyword_only(name: str) -> None:
    config = ALL[name]
    assert hash(config) == hash(dataclasses.replace(config))
    for field in dataclasses.fields(config):
        assert field.kw_only
        assert type(getattr(config, field.name)) in (bool, int, float, str, type(None))
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, field.name, None)


# ------------------------------------------------------------------------------------------------- knobs


@pytest.mark.parametrize(("name", "key"), knobs())
def test_knobs_are_fields_and_lie_inside_what_is_accepted(name: str, key: str) -> None:
    config, knob = ALL[name], ALL[name].KNOBS[key]
    assert key in config.field_kinds()
    assert knob.help
    assert (knob.choices is None) == (knob.low is not None) == (knob.high is not None)
    if knob.log:
        assert knob.low is not None
        assert knob.low > 0
    kind, _ = config.field_kinds()[key]
    assert knob.integer == (kind is int and knob.choices is None)
    for value in values_of(knob):
        assert dataclasses.replace(config, **{key: value}).knobs()[key] == value


def test_every_end_of_all_knobs_together() -> None:
    for config in ALL.values():
        for pick in (0, 1):
            type(config)(**{key: values_of(knob)[pick] for key, knob in config.KNOBS.items()})


# ------------------------------------------------------------------------------------------------ digest


def test_digest_is_pinned() -> None:
    """Digests name artifacts and seed attackers: a change here changes every stored name."""
    import hashlib

    for config, text in (
        (NoiseConfig(), '{"class": "NoiseConfig"}'),  # defaults are left out: a new option moves nothing
        (NoiseConfig(budget=0.02), '{"budget": 0.02, "class": "NoiseConfig"}'),
    ):
        assert config.digest() == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_digest_is_the_same_in_another_process() -> None:
    code = "from mipoison.defenses.lpa import LPAConfig; print(LPAConfig(budget=0.3).digest())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == LPAConfig(budget=0.3).digest()


def test_digest_differs_with_every_value_and_class() -> None:
    configs = list(ALL.values())
    for config in ALL.values():
        for key, knob in config.KNOBS.items():
            configs += [dataclasses.replace(config, **{key: v}) for v in values_of(knob)]
    distinct = {(type(c).__name__, tuple(c.flat().items())) for c in configs}
    assert len({c.digest() for c in configs}) == len(distinct)


def test_digest_of_a_mapping_ignores_its_order_and_refuses_nan() -> None:
    assert digest({"a": 1, "b": 2.5}) == digest({"b": 2.5, "a": 1})
    with pytest.raises(ValueError, match="JSON"):
        digest({"a": math.nan})


def test_numbers_out_of_arrays_are_plain_numbers() -> None:
    sample = Sample(count=np.int32(3), size=np.float32(0.5), maybe=np.int64(2))  # type: ignore[arg-type]
    assert sample == Sample(count=3, size=0.5, maybe=2.0)
    assert [type(v) for v in (sample.count, sample.size, sample.maybe)] == [int, float, float]
    assert sample.digest() == Sample(count=3, maybe=2.0).digest()
    for wrong in (
        {"count": np.float64(3)},
        {"size": np.float64("nan")},
        {"size": np.bool_(True)},
        {"flag": np.int8(1)},
    ):
        with pytest.raises(ConfigError, match="Sample"):
            Sample(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (3, "an int"),
        ([], "a list"),
        (Knob, "the class Knob"),
        (None, "a NoneType"),
        (Ellipsis, "an ellipsis"),
    ],
)
def test_a_wrong_value_in_words(value: object, said: str) -> None:
    assert kind_of(value) == said


def test_an_extra_that_is_missing_is_named() -> None:
    class Needs(Config):
        EXTRAS: ClassVar[Mapping[str, str]] = {"json": "none", "no_such_package": "some", "nor_this": "some"}

    assert missing_extra(Needs) == missing_extra(Needs()) == 'pip install "mipoison[some]"'
    assert missing_extra(Config) is None
