"""Sizes that a configuration leaves open are filled in, and no others."""

from mipoison.attacks import ATTACKS
from mipoison.attacks.decoder import DecoderConfig
from mipoison.attacks.ridge import RidgeConfig
from mipoison.attacks.sizes import DEFAULT_SIZES, Sizes, sized, sizes_of


def test_open_sizes_are_filled_and_stated_ones_stay() -> None:
    config = sized(DecoderConfig(steps=7), {"steps": 99, "width": 5})
    assert (config.steps, config.width, config.batch) == (7, 5, None)
    assert sized(RidgeConfig()) == RidgeConfig()  # has none


def test_no_size_is_open_where_it_is_used() -> None:
    assert sizes_of(DecoderConfig(steps=7, lr=0.25)) == Sizes(width=16, steps=7, batch=32, lr=0.25)
    assert sizes_of(RidgeConfig()) == Sizes(width=16, steps=400, batch=32, lr=5e-3)


def test_every_attacker_is_complete_at_the_defaults() -> None:
    for config in ATTACKS.values():
        filled = sized(config)  # type: ignore[type-var]
        assert None not in [getattr(filled, name, 0) for name in DEFAULT_SIZES]
        assert sized(filled) == filled
