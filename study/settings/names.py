"""Lists of names on the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from mipoison.config import ConfigError, choose

ALL = "all"


def split_names(given: Iterable[str]) -> list[str]:
    """The names, which spaces or commas separate."""
    return [name for text in given for name in text.split(",") if name]


def listed(
    kind: str,
    given: Iterable[str],
    valid: Collection[str],
    *,
    groups: Mapping[str, Iterable[str]] | None = None,
    ignored: Collection[str] = (),
) -> tuple[str, ...]:
    """The given names in order, each once, ``all`` and the names of groups expanded.

    Args:
        kind: what the names are of, for messages. groups: name -> the names that it stands for.
        ignored: names that are left out.

    Raises:
        ConfigError: a name is unknown, or none is left.
    """
    expanded: Mapping[str, Iterable[str]] = {ALL: valid, **(groups or {})}
    out: list[str] = []
    for name in split_names(given):
        if name in expanded:
            out += expanded[name]
        elif name not in ignored:
            out.append(choose(kind, name, valid))
    if not out:
        raise ConfigError(f"no {kind} chosen; choose from: {', '.join(valid)}, {ALL}")
    return tuple(dict.fromkeys(out))
