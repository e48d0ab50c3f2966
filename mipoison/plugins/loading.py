"""Loads defenses and attackers from other packages into the registries.

A plug-in is named by its user: a module with dictionaries ``DEFENSES`` (name -> configuration class) and
``ATTACKS`` (name -> configuration), or the name of an entry point in the groups ``mipoison.defenses`` and
``mipoison.attacks`` of an installed package. Loading runs its code. Nothing that is read from records is ever
loaded.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from mipoison.attacks import ATTACKS
from mipoison.config import Config, ConfigError, one_line
from mipoison.defenses import DEFENSES
from mipoison.plugins.declared import MOST, NAME, declaration, is_stand_in, stand_in
from mipoison.process import import_here

GROUPS = {"defense": "mipoison.defenses", "attacker": "mipoison.attacks"}
"""What is registered -> the group of its entry points."""
BUILT_IN = {"defense": frozenset(DEFENSES), "attacker": frozenset(ATTACKS)}


@dataclass(frozen=True)
class Plugin:
    """A loaded plug-in: how it was named, and what it registered."""

    reference: str
    defenses: Mapping[str, type[Config]] = field(default_factory=dict)
    attacks: Mapping[str, Config] = field(default_factory=dict)


_loaded: dict[str, Plugin] = {}


def installed() -> dict[str, set[str]]:
    """Names of the entry points of installed packages, by kind; none of them is loaded."""
    return {
        kind: {entry.name for entry in metadata.entry_points(group=group)} for kind, group in GROUPS.items()
    }


def load_plugin(reference: str) -> Plugin:
    """Load a plug-in and register what it brings; once more is no error.

    Args:
        reference: an importable module (the current folder is searched, too), or the name of an entry point.

    Raises:
        ConfigError: it cannot be imported, brings nothing, or brings something that cannot be registered: a
            name that is taken, no configuration, or fields that other configurations have with another type.
    """
    if reference in _loaded:
        return _loaded[reference]
    defenses, attacks = _found(reference)
    if not defenses and not attacks:
        raise ConfigError(
            f"plug-in {reference!r} brings nothing: expected a module with DEFENSES (name -> configuration "
            "class) or ATTACKS (name -> configuration)"
        )
    for name, defense in defenses.items():
        _check(reference, "defense", name, defense, DEFENSES.get(name))
    made = {}
    for name, given in attacks.items():
        attack = given() if isinstance(given, type) and issubclass(given, Config) else given
        _check(reference, "attacker", name, attack, ATTACKS.get(name))
        made[name] = attack
    DEFENSES.update(defenses)
    ATTACKS.update(made)
    _loaded[reference] = Plugin(reference, defenses, made)
    return _loaded[reference]


def load_plugins(references: Iterable[str]) -> None:
    """:func:`load_plugin` of each."""
    for reference in references:
        load_plugin(reference)


def load_named(kind: str, names: Iterable[str]) -> list[str]:
    """Load the installed plug-ins of some names that a user gave and no registry has.

    Args:
        kind: ``defense`` or ``attacker``.

    Returns:
        The names of the entry points that were loaded.
    """
    registry: Mapping[str, Any] = DEFENSES if kind == "defense" else ATTACKS
    missing = [name for name in names if name not in registry or is_stand_in(registry[name])]
    found = installed()[kind] if missing else set()
    wanted = [name for name in missing if name in found]
    load_plugins(wanted)
    return wanted


def _found(reference: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a module or the entry points of a name bring: defenses and attackers, unchecked."""
    parts: dict[str, dict[str, Any]] = {kind: {} for kind in GROUPS}
    for kind, group in GROUPS.items():
        for entry in metadata.entry_points(group=group, name=reference):
            if reference in parts[kind]:
                raise ConfigError(f"plug-in {reference!r}: two installed packages have this entry point")
            try:
                parts[kind][reference] = entry.load()
            except Exception as error:
                raise ConfigError(
                    f"plug-in {reference!r} ({entry.value}) cannot be imported: {one_line(error)}"
                ) from error
    if any(parts.values()):
        return parts["defense"], parts["attacker"]
    places = "and the installed packages and their entry points"
    module = import_here(reference, f"plug-in {reference!r}", places=places)
    tables = [getattr(module, name, {}) for name in ("DEFENSES", "ATTACKS")]
    if not all(isinstance(table, Mapping) for table in tables):
        raise ConfigError(f"plug-in {reference!r}: DEFENSES and ATTACKS must be dictionaries")
    return dict(tables[0]), dict(tables[1])


def _check(reference: str, kind: str, name: Any, given: Any, taken: Any) -> None:
    """Raise ConfigError for what cannot be registered under this name."""
    where = f"plug-in {reference!r}, {kind} {name!r}"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"{where}: a name has small letters, digits, dots and hyphens, 40 at most")
    if name in BUILT_IN[kind]:
        raise ConfigError(f"{where}: mipoison has one of this name; choose another")
    if taken is not None and taken != given and not is_stand_in(taken):
        raise ConfigError(f"{where}: another plug-in has registered this name")
    right = (
        isinstance(given, type) and issubclass(given, Config)
        if kind == "defense"
        else isinstance(given, Config)
    )
    if not right:
        form = "a subclass of mipoison.config.Config" if kind == "defense" else "a configuration"
        raise ConfigError(f"{where} is {given!r}: expected {form}")
    try:
        (given() if kind == "defense" else given).make()
    except Exception as error:
        raise ConfigError(f"{where} cannot be made at its defaults: {one_line(error)}") from error
    check_fields(kind, name, given if isinstance(given, type) else type(given), where)


def check_fields(kind: str, name: str, config: type[Config], where: str) -> None:
    """Raise ConfigError if a field has another type than in the other configurations: they share a column."""
    registry: Mapping[str, Any] = DEFENSES if kind == "defense" else ATTACKS
    for other_name, other in registry.items():
        kinds = other.field_kinds()
        for field_name, (plain, _) in config.field_kinds().items():
            if other_name != name and field_name in kinds and kinds[field_name][0] is not plain:
                there = kinds[field_name][0].__name__
                raise ConfigError(
                    f"{where}: field {field_name!r} is {plain.__name__}, and {there} in "
                    f"{kind} {other_name!r}: they share a column of the records, rename it"
                )


def source_of(config: Config) -> str | None:
    """A digest of the source of a plug-in: of all Python files of its package, or of its one module; None for
    a configuration of this package.

    Finished episodes are found again by their settings; with it, those of changed code are not. Code of other
    packages that the plug-in uses is no part of it.
    """
    package = type(config).__module__.partition(".")[0]
    if package == "mipoison":
        return None
    folders = getattr(sys.modules.get(package), "__path__", ())
    files = sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
    if not files:
        own = inspect.getsourcefile(type(config))
        files = [] if own is None else [Path(own)]
    h = hashlib.sha256()
    for file in files:
        h.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return h.hexdigest()[:16] if files else ""


def declared_plugins(defenses: Iterable[str], attacks: Iterable[str]) -> dict[str, Any] | None:
    """What a study stores of the plug-ins that it uses, as JSON values; None if it uses none.

    Args:
        defenses, attacks: the names that the study uses.
    """
    used = [
        plugin
        for plugin in _loaded.values()
        if set(plugin.defenses) & set(defenses) or set(plugin.attacks) & set(attacks)
    ]
    if not used:
        return None
    return {
        "from": [plugin.reference for plugin in used],
        "defenses": {n: declaration(c) for p in used for n, c in p.defenses.items() if n in set(defenses)},
        "attacks": {
            n: declaration(type(c)) | {"values": c.flat()}
            for p in used for n, c in p.attacks.items() if n in set(attacks)
        },
    }  # fmt: skip


def missing_plugins(declared: Any) -> list[str]:
    """The names that a study declares and no loaded code has: a stand-in or nothing is registered."""
    if not isinstance(declared, Mapping):
        return []
    out = []
    for key, registry in (("defenses", DEFENSES), ("attacks", ATTACKS)):
        names = declared.get(key)
        for name in names if isinstance(names, Mapping) else ():
            known: Any = registry.get(name)
            if known is None or is_stand_in(known):
                out.append(str(name))
    return out


def register_stand_ins(declared: Any) -> list[str]:
    """Register stand-ins for what a study declares and no loaded code has. Nothing is imported.

    Returns:
        What was wrong with declarations that were left out, one line each.
    """
    if not isinstance(declared, Mapping):
        return [] if declared is None else ["plugins is no object"]
    references = declared.get("from")
    texts = [str(text)[:80] for text in references] if isinstance(references, list) else []
    needs = f"plug-in {', '.join(texts[:5]) or 'unknown'}"
    tables = [declared.get(key) for key in ("defenses", "attacks")]
    if any(isinstance(table, Mapping) and len(table) > MOST for table in tables):
        return [f"more than {MOST} declarations"]
    wrong = []
    for key, kind in (("defenses", "defense"), ("attacks", "attacker")):
        registry: dict[str, Any] = DEFENSES if kind == "defense" else ATTACKS
        entries = declared.get(key)
        for name, about in entries.items() if isinstance(entries, Mapping) else ():
            known = registry.get(name)
            if known is not None and not is_stand_in(known):
                continue
            try:
                if not NAME.fullmatch(name):
                    raise ConfigError("not a name")
                made = stand_in(about, needs)
                check_fields(kind, name, made, f"{kind} {name!r}")
                if kind == "defense":
                    registry[name] = made
                else:
                    values = {
                        k: v for k, v in dict(about.get("values", {})).items() if k in made.field_kinds()
                    }
                    registry[name] = made(**values)
            except (ConfigError, TypeError, ValueError) as error:
                wrong.append(f"{kind} {str(name)[:40]!r}: {error}")
    return wrong
