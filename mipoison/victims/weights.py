"""Loads weights into a user's classifier from a checkpoint as training scripts write them.

Either all weights are found and loaded, or the file is refused. :mod:`mipoison.victims.checkpoint` reads the
file; this module finds the weights in it, under the names that wrappers and frameworks give them.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mipoison.config import ConfigError, kind_of, one_line
from mipoison.data.images import some
from mipoison.victims.checkpoint import Placeholder, read_checkpoint
from mipoison.victims.identity import canonical, counts_calls

log = logging.getLogger(__name__)

_DEPTH = 6
"""Levels of nested containers that are searched."""
_CLASSIFIERS = ("model", "net", "network", "classifier")
"""Names that training frameworks give the classifier beside other parts, such as a loss or metrics."""
_STEPS = ("n_averaged",)
"""A counter that ``torch.optim.swa_utils`` stores beside averaged weights."""
_REMEDY = "save the classifier's own: torch.save(model.state_dict(), 'weights.pt')"


@dataclass(frozen=True)
class _Place:
    """A mapping in a checkpoint that has weights of the module, and the prefix of their names there.

    Attributes:
        path: the keys that lead to the mapping.
        prefix: the prefix, without parts that wrappers add.
        found: the module's name of each entry -> its value.
        others: names of tensors in the mapping that do not have the prefix.
        metadata: versions of the layers that wrote the entries, as in a state dict; None if there are none.
    """

    path: tuple[str, ...]
    prefix: str
    found: dict[str, Any]
    others: list[str]
    metadata: dict[str, Any] | None

    def __str__(self) -> str:
        where = "".join(f"[{key!r}]" for key in self.path) or "the top"
        return f"{where}, names beginning with {self.prefix!r}" if self.prefix else where


def load_state(module: nn.Module, source: str, state: str) -> None:
    """Load all weights of a module from a file, or raise.

    Prefixes of wrappers (``module.``, ``_orig_mod.`` and others) are ignored in the names of the module and
    of the file. Nested containers (``state_dict``, ``model``) are searched, and names may have a common
    prefix (``model.``).

    Args:
        module: the factory's module. source: its name, for messages. state: path of the file.

    Raises:
        ConfigError: the file cannot be read, or weights are missing, left over, of other shapes, or in the
            file more than once with different values. One line.
    """
    what = f"--victim-state {state!r}"
    held, dropped = read_checkpoint(state)
    _refuse_whole(what, held)
    own = module.state_dict()
    places = list(_places(held, own))
    if stem := _stem(own):  # the module only wraps another one, and the file may have the weights of that
        others = _places(held, own, stem)
        places += [place for place in others if place.prefix.removesuffix(".") in ("", *_CLASSIFIERS)]
    place = _choose(what, source, own, places, held)
    values = _completed(what, module, place, dropped)
    _check(what, source, own, values)
    try:
        with torch.no_grad():
            left = module.load_state_dict(values, strict=False)
    except Exception as error:
        raise ConfigError(f"{what} does not fit {source}: {one_line(error)}") from error
    tied = _tied(own)
    missing = [
        name
        for name in left.missing_keys
        if not counts_calls(name) and not any(other in values for other in tied.get(name, ()))
    ]
    over = [name for name in left.unexpected_keys if canonical(name) not in _STEPS]
    if missing or over:
        raise ConfigError(_unfit(what, source, own, missing, over))
    if place.others:
        log.warning(
            "%s: %d tensors beside %s are no part of %s: %s",
            what, len(place.others), place, source, some(place.others),
        )  # fmt: skip


def _refuse_whole(what: str, held: Any, path: str = "") -> None:
    """Refuse a pickled module, or anything else that is not a mapping from names to values."""
    if isinstance(held, Placeholder):
        at = f"under {path} " if path else ""
        raise ConfigError(f"{what} holds {at}a whole {held.origin}, whose code is not run here; {_REMEDY}")
    if not isinstance(held, Mapping):
        raise ConfigError(f"{what} holds {kind_of(held)}, no weights by name; {_REMEDY}")


def _mappings(held: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every mapping in a checkpoint that has tensors under names, with the keys that lead to it."""
    if not isinstance(held, Mapping) or len(path) > _DEPTH:
        return
    if any(isinstance(key, str) and isinstance(value, Tensor) for key, value in held.items()):
        yield path, held
    for key, value in held.items():
        if isinstance(key, str):
            yield from _mappings(value, (*path, key))


def _places(held: Any, own: Mapping[str, Any], stem: str = "") -> Iterator[_Place]:
    """Every place in a checkpoint with names of the module: each mapping, with each prefix that fits.

    Args:
        held: the checkpoint. own: the module's state dict.
        stem: a common prefix of the module's names that the file's names lack.
    """
    names: dict[str, str] = {}
    for name in own:
        names.setdefault(canonical(name).removeprefix(stem), name)
    exact = len(names) == len(own)  # else the module itself uses a wrapper's name: compare names literally
    key_of = canonical if exact else str
    if not exact:
        names = {name.removeprefix(stem): name for name in own}
    for path, mapping in _mappings(held):
        keys = {key: key_of(key) for key in mapping if isinstance(key, str)}
        if len(set(keys.values())) < len(keys):
            keys = {key: key for key in keys}
        hits: Counter[str] = Counter()
        for short in keys.values():
            parts = short.split(".")
            for i in range(len(parts)):
                if ".".join(parts[i:]) in names:
                    hits["".join(f"{part}." for part in parts[:i])] += 1
        for prefix in hits or {"": 0}:
            inside = {key: short[len(prefix) :] for key, short in keys.items() if short.startswith(prefix)}
            found = {
                names.get(rest, rest): mapping[key]
                for key, rest in inside.items()
                if rest in names or isinstance(mapping[key], Tensor)
            }
            others = [k for k in keys if k not in inside and isinstance(mapping[k], Tensor)]
            others = [k for k in others if keys[k] not in _STEPS]
            yield _Place(path, prefix, found, others, _versions(mapping, prefix, own))


def _stem(own: Mapping[str, Any]) -> str:
    """The prefix of submodule names that all entries share, with a full stop at the end; '' if none."""
    folders = [canonical(name).split(".")[:-1] for name in own]
    shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    return "".join(f"{parts[0]}." for parts in shared)


def _versions(mapping: Mapping[str, Any], prefix: str, own: Any) -> dict[str, Any] | None:
    """The layer versions stored with a state dict, under the module's names; None if there are none."""
    written = getattr(mapping, "_metadata", None)
    if not isinstance(written, Mapping):
        return None
    stem = prefix.removesuffix(".")
    by_name = {canonical(str(name)): version for name, version in written.items()}
    return {
        name: by_name[key]
        for name in getattr(own, "_metadata", {})
        if (key := ".".join(part for part in (stem, canonical(name)) if part)) in by_name
    }


def _choose(
    what: str, source: str, own: Mapping[str, Any], places: list[_Place], held: Mapping[str, Any]
) -> _Place:
    """The place that has all of the module's weights; if none has, the one that lacks the fewest.

    Raises:
        ConfigError: no tensors at all, several places with different weights, or weights among other tensors
            under a name that does not identify the classifier.
    """
    if not places:
        for key in ("model", "net", "state_dict"):
            if isinstance(held.get(key), Placeholder):
                _refuse_whole(what, held[key], repr(key))
        entries = some([f"{key!r}: {_what(value)}" for key, value in held.items()])
        raise ConfigError(f"{what} holds no tensors by name (but {entries}); {_REMEDY}")
    tied = _tied(own)

    def lacks(place: _Place) -> int:
        return sum(
            name not in place.found
            and not counts_calls(name)
            and not any(other in place.found for other in tied.get(name, ()))
            for name in own
        )

    whole_ones = [place for place in places if not lacks(place)]
    if len(whole_ones) > 1 and not all(_same(whole_ones[0], place, own) for place in whole_ones[1:]):
        raise ConfigError(
            f"{what} holds weights for {source} more than once: {'; '.join(map(str, whole_ones))}; save the "
            "ones meant alone, with torch.save"
        )
    # Among several places with equal weights, take the first. If none is complete, the later check of what is
    # missing raises an error about the most complete one.
    best = whole_ones[0] if whole_ones else min(places, key=lambda place: (lacks(place), len(place.path)))
    known = best.prefix.partition(".")[0] in _CLASSIFIERS
    if whole_ones and best.prefix and best.others and not known:
        raise ConfigError(
            f"{what} has weights for {source} among others: {best}, and {len(best.others)} tensors beside "
            f"them ({some(best.others)}); save those of the classifier alone, with torch.save"
        )
    return best


def _same(first: _Place, second: _Place, own: Mapping[str, Any]) -> bool:
    """Whether two places hold equal weights."""
    for name in own:
        a, b = first.found.get(name), second.found.get(name)
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            if a.layout != b.layout or a.dtype != b.dtype or not torch.equal(a.to_dense(), b.to_dense()):
                return False
        elif a is not b and not counts_calls(name):
            return False
    return True


def _tied(own: Mapping[str, Any]) -> dict[str, list[str]]:
    """Name -> the other names of the same tensor, for tied weights."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, value in own.items():
        if (
            isinstance(value, Tensor)
            and not is_lazy(value)
            and value.layout is torch.strided
            and len(value.shape)
        ):
            if value.is_quantized or value.is_meta or not value.numel():
                continue
            groups.setdefault((value.data_ptr(), value.shape, value.stride()), []).append(name)
    return {n: [o for o in group if o != n] for group in groups.values() if group[1:] for n in group}


def _completed(
    what: str, module: nn.Module, place: _Place, dropped: Mapping[str, str]
) -> OrderedDict[str, Any]:
    """The values to load, including the names that safetensors dropped because another has the same tensor.

    Raises:
        ConfigError: one tensor of the module has different values under its names in the file.
    """
    own = module.state_dict()
    values: OrderedDict[str, Any] = OrderedDict(place.found)
    if place.metadata is not None:
        values._metadata = place.metadata  # type: ignore[attr-defined]
    short = {canonical(name): name for name in own}
    for name, kept in dropped.items():
        to = short.get(canonical(name).removeprefix(place.prefix))
        of = short.get(canonical(kept).removeprefix(place.prefix))
        if to is not None and of is not None and of in values:
            values.setdefault(to, values[of])
    for name, others in _tied(own).items():
        for other in others:
            a, b = values.get(name), values.get(other)
            if (
                isinstance(a, Tensor)
                and isinstance(b, Tensor)
                and a.shape == b.shape
                and not torch.equal(a, b)
            ):
                raise ConfigError(
                    f"{what}: {name} and {other} are one tensor in the module, two different ones in the file"
                )
    return values


def _check(what: str, source: str, own: Mapping[str, Any], values: OrderedDict[str, Any]) -> None:
    """Compare each value with the module's entry; make sparse and quantized values dense, in place.

    Raises:
        ConfigError: another shape or another kind of number, since converting it would lose information.
    """
    wrong, shapes = [], []
    for name, want in own.items():
        value = values.get(name)
        if name not in values or not isinstance(want, Tensor):
            continue
        if not isinstance(value, Tensor):
            wrong.append(f"{name} is {_what(value)}")
            continue
        if value.is_meta:
            wrong.append(f"{name} was saved without its values (meta device)")
            continue
        if value.layout is not torch.strided:
            value = value.to_dense()
        if value.is_quantized and not want.is_quantized:
            value = value.dequantize()
        if not is_lazy(want) and not counts_calls(name):
            if value.shape != want.shape and not (value.ndim == 0 and want.shape == (1,)):
                shapes.append(f"{name} {_shape(value)}, wanted {_shape(want)}")
            if _kind(value.dtype) != _kind(want.dtype):
                wrong.append(f"{name} is of {value.dtype}, the module's of {want.dtype}")
        values[name] = value
    if wrong:
        raise ConfigError(
            f"{what} does not fit {source}: {len(wrong)} of {len(own)} entries are of another kind: "
            f"{some(wrong)}; save tensors of the module's own kinds"
        )
    if shapes:
        raise ConfigError(
            f"{what} does not fit {source}: {len(shapes)} of {len(own)} entries have other shapes: "
            f"{some(shapes)}"
        )


def _what(value: Any) -> str:
    name = value.origin if isinstance(value, Placeholder) else type(value).__name__
    return "a NumPy array or number" if name.startswith("numpy") else f"of {name}"


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_complex or dtype is torch.bool:
        return str(dtype.is_complex)
    return "float" if dtype.is_floating_point or str(dtype).startswith("torch.q") else "int"


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a single number"


def _unfit(what: str, source: str, own: Mapping[str, Any], missing: list[str], over: list[str]) -> str:
    faults = []
    if missing:
        faults.append(f"{len(missing)} of {len(own)} entries are missing ({some(missing)})")
    if over:
        faults.append(f"{len(over)} are none of the module's ({some(over)})")
    return (
        f"{what} does not fit {source}: {'; '.join(faults)}; give the weights of this very class, all of them"
    )
