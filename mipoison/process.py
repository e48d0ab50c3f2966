"""What belongs to the whole process: its settings (default dtype, random generators, threads), changed by one
thread at a time, and the modules of the user's that it imports.

Code that changes such a setting for a while holds the lock :data:`PROCESS_LOCK`, from before it reads the
old value until it has restored it. Otherwise a second thread could read the changed value as the original
one, and later restore the changed value.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from mipoison.config import ConfigError, one_line

PROCESS_LOCK = threading.RLock()
"""Lock of the thread that changes process-wide settings, or runs a user's code, which may change them."""
KINDS = ("cpu", "cuda")
_STATE: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, torch.set_default_device),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (random.getstate, random.setstate),
    *(
        (
            functools.partial(torch.is_autocast_enabled, kind),
            functools.partial(torch.set_autocast_enabled, kind),
        )
        for kind in KINDS
    ),
)
"""Settings that a user's code may leave changed, as pairs of functions: one reads, one restores."""


class _Callers(threading.local):
    """Of one thread: default dtype and device before the outermost :func:`own_context`; None outside."""

    defaults: tuple[torch.dtype, torch.device] | None = None


_callers = _Callers()


def callers_defaults() -> tuple[torch.dtype, torch.device]:
    """Default dtype and device of the user's program, also when called inside :func:`own_context`."""
    if _callers.defaults is not None:
        return _callers.defaults
    with PROCESS_LOCK:
        return torch.get_default_dtype(), torch.get_default_device()


@contextlib.contextmanager
def own_context() -> Iterator[None]:
    """A scope or decorator that ignores the caller's autocast, inference mode, ``no_grad``, default dtype and
    default device, so that our results do not depend on them.

    All of these but the default dtype belong to the thread. Where the default dtype is not float32, other
    threads wait until the scope ends.
    """
    with contextlib.ExitStack() as stack:
        outer = _callers.defaults
        if outer is None:
            _callers.defaults = callers_defaults()
            stack.callback(setattr, _callers, "defaults", None)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in KINDS:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        with PROCESS_LOCK:  # no other thread has the dtype changed now
            if (dtype := torch.get_default_dtype()) != torch.float32:
                stack.enter_context(PROCESS_LOCK)
                stack.callback(torch.set_default_dtype, dtype)
                torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


@contextlib.contextmanager
def restored_state(device: torch.device | None) -> Iterator[None]:
    """A scope that restores the process's settings and the random generators of torch, numpy and Python.

    Args:
        device: a GPU whose generator is restored, too; None or the CPU: none.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with PROCESS_LOCK, torch.random.fork_rng(devices=devices):
        before, numbers = [get() for get, _ in _STATE], np.random.get_state()  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(numbers)  # noqa: NPY002
            for (get, put), value in zip(_STATE, before, strict=True):
                if get() != value:
                    put(value)


@contextlib.contextmanager
def reseeded(seed: int, device: torch.device) -> Iterator[None]:
    """A scope in which all global generators are seeded by ``seed``; afterwards they are restored."""
    with restored_state(device):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        yield


def import_here(
    module: str, what: str, *, attribute: str | None = None, places: str = "and the installed packages"
) -> Any:
    """Import a module that the user named, and return it or an object in it. This runs its code.

    The current folder is searched last, so that no file in it takes the place of an installed package, now or
    at a later import.

    Args:
        module: its dotted name. what: what it is, as the user gave it, for messages.
        attribute: dotted name of an object in it. places: where else was searched, for messages.

    Raises:
        ConfigError: it cannot be imported, or has no such object; one line.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split(".") if attribute else ():
            found = getattr(found, part)
    except Exception as error:
        where = f"; looked in {os.getcwd()} {places}" if isinstance(error, ImportError) else ""
        raise ConfigError(f"{what} cannot be imported: {one_line(error)}{where}") from error
    return found
