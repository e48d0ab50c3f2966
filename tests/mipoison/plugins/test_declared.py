"""Declarations of every registered configuration become stand-ins with the same values and digests."""

from __future__ import annotations

import json

import pytest

from mipoison.attacks import ATTACKS
from mipoison.config import Config, ConfigError
from mipoison.defenses import DEFENSES
from mipoison.plugins.declared import declaration, is_stand_in, stand_in

EVERY = [*DEFENSES.values(), *{type(c): None for c in ATTACKS.values()}]


@pytest.mark.parametrize("config", EVERY, ids=lambda c: c.__name__)
def test_a_stand_in_has_fields_knobs_and_digest_of_the_class(config: type[Config]) -> None:
    made = stand_in(json.loads(json.dumps(declaration(config))), "a plug-in")
    assert made.field_kinds() == config.field_kinds()
    assert made().flat() == {**config.BEFORE, **config().flat()} or made().flat() == config().flat()
    assert {n: (k.low, k.high, k.log, k.choices) for n, k in made.KNOBS.items()} == {
        n: (k.low, k.high, k.log, k.choices) for n, k in config.KNOBS.items()
    }
    assert (made.COST, made.SCREENS, made.summary()) == (config.COST, config.SCREENS, config.summary()[:500])
    assert is_stand_in(made)
    assert is_stand_in(made())
    assert not is_stand_in(config)


def test_what_is_no_declaration_is_refused() -> None:
    good = declaration(DEFENSES["rounding"])
    for changes in ({"fields": {"__class__": good["fields"]["decimals"]}}, {"class": "a.b"}, {"cost": "x"}):
        with pytest.raises(ConfigError, match="no declaration"):
            stand_in({**good, **changes}, "a plug-in")
    many = {f"f{i}": good["fields"]["decimals"] for i in range(65)}
    with pytest.raises(ConfigError, match="no declaration"):
        stand_in({**good, "fields": many}, "a plug-in")
