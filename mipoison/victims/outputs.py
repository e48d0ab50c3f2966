"""Finds the logits in what a user's classifier returns, and detects outputs that are probabilities.

Shape suffixes: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mipoison.config import ConfigError
from mipoison.victims.source import OUTPUTS as OUTPUTS

KEYS = ("logits", "output", "outputs", "out")
"""Keys under which logits are looked for in a dictionary, in this order."""
FLOOR = 1e-12
"""Smallest probability before a logarithm is taken; half precision rounds small ones to 0."""
_TINY = 0.01
"""How far probabilities may lie outside [0, 1], as a share of the largest entry, because of rounding."""


def logits_of(answer: Any, name: str, n: int, n_classes: int | None) -> Tensor:
    """Find the logits (N, K) in what a module returned.

    They may be the returned tensor, its attribute ``logits``, or the entry under one of :data:`KEYS` in a
    dictionary. In a tuple or list they are the first matrix with one row an image and K columns, or, if
    there is none, the first matrix with one row an image, provided all such have equally many columns.

    Args:
        answer: what the module returned. name: the classifier's name, for messages.
        n: number of images. n_classes: K if it is known.

    Raises:
        ConfigError: no logits, or of another shape; the message says what the module should return.
    """
    found = _logits_in(answer, name, n, n_classes)
    if found.layout is not torch.strided or found.is_quantized or found.is_meta:
        dense = found.layout is torch.strided
        kind = "sparse" if not dense else "quantized" if found.is_quantized else "meta"
        remedies = {"sparse": "z.to_dense()", "quantized": "z.dequantize()"}
        how = remedies.get(kind, "them computed, with values")
        raise ConfigError(f"classifier {name} returns {kind} logits: return {how}")
    if found.ndim != 2 or len(found) != n or found.shape[1] < 2 or not found.is_floating_point():
        raise ConfigError(
            f"classifier {name} returns {_kind(found)} for {n} images: expected logits (N, K), one "
            f"row an image, K at least 2{_hint(found, n)}"
        )
    if n_classes is not None and found.shape[1] != n_classes:
        raise ConfigError(
            f"classifier {name} has {found.shape[1]} outputs, the data {n_classes} private classes: "
            "they must be the same, in the order of the labels (of a folder: the sorted class names)"
        )
    return found


def _logits_in(answer: Any, name: str, n: int, n_classes: int | None) -> Tensor:
    if isinstance(answer, Tensor):
        return answer
    if isinstance(found := getattr(answer, "logits", None), Tensor):
        return found
    if isinstance(answer, Mapping):
        for key in KEYS:
            if isinstance(answer.get(key), Tensor):
                return answer[key]
        what = f"a dictionary with the keys {', '.join(map(repr, answer))[:200]}"
        remedy = f"looked for {', '.join(KEYS)}: wrap it, so that it returns model(x)[KEY]"
        raise ConfigError(f"classifier {name} returns {what}; {remedy}")
    if isinstance(answer, tuple | list):
        rows = [t for t in answer if isinstance(t, Tensor) and t.ndim == 2 and len(t) == n]
        fit = [t for t in rows if t.shape[1] == n_classes] or rows
        if fit and len({t.shape[1] for t in fit}) == 1:
            return fit[0]
        what = f"a {type(answer).__name__} of {', '.join(_kind(t) for t in answer)[:200]}"
        remedy = "which are the logits cannot be told: wrap it, so that it returns model(x)[0] (or another)"
        raise ConfigError(f"classifier {name} returns {what}; {remedy}")
    raise ConfigError(
        f"classifier {name} returns a {type(answer).__name__}: expected logits (N, K); wrap it, so that "
        "forward returns them (for instance return model(x).logits)"
    )


def log_probabilities(p_NK: Tensor, name: str) -> Tensor:
    """Logits (N, K), float32, whose softmax is ``p_NK`` divided by its row sums.

    Args:
        p_NK: probabilities, or probabilities times a constant such as 100.
        name: the classifier's name, for messages.

    Raises:
        ConfigError: the numbers are neither.
    """
    p_NK = p_NK.double()
    low, high, sums_N = float(p_NK.amin()), float(p_NK.amax()), p_NK.sum(1)
    uneven = high > 1.01 and bool(((sums_N / sums_N.median() - 1).abs() > 0.5).any())  # shares of 100, of 255
    if high <= 0 or low < -_TINY * high or uneven:
        raise ConfigError(
            f"classifier {name} gives values from {low:.4g} to {high:.4g}, not probabilities as "
            "stated: state outputs logits (--victim-outputs logits), or nothing"
        )
    p_NK = p_NK.clamp_min(0)
    p_NK = (p_NK / p_NK.sum(1, keepdim=True).clamp_min(FLOOR)).clamp_min(FLOOR)
    return (p_NK / p_NK.sum(1, keepdim=True)).log().float()


def signs_of_probabilities(z_NK: Tensor) -> str | None:
    """Describe why outputs look like probabilities; None if they do not.

    They do if no entry is negative and either all are at most 1 (after a softmax, or a sigmoid for each
    class), or all rows have the same sum (probabilities times 100, 255 or 1000, perhaps rounded). Sums count
    as the same if they vary by a tenth at most, and by at most a tenth of what the sums of independent
    entries would. The user has to state ``outputs='logits'`` for logits that look like this, e.g. small ones
    after a ReLU. Sigmoid outputs times 100 are not detected.
    """
    z_NK = z_NK.double()
    low, high = float(z_NK.amin()), float(z_NK.amax())
    if high <= 0 or low < -_TINY * high:
        return None
    if high <= 1 + _TINY:
        return f"all lie in [0, 1], the largest of a row at {float(z_NK.amax(1).median()):.2f} in the median"
    if len(z_NK) < 2:
        return None
    sums_N = z_NK.sum(1)
    free = z_NK.shape[1] ** 0.5 * float(z_NK.std(0).square().mean().sqrt())
    total = float(sums_N.median())
    if float((sums_N - total).square().mean().sqrt()) < 0.1 * min(total, free):
        return f"none is negative and each row sums to {total:.4g}"
    return None


def _kind(value: Any) -> str:
    return (
        f"{str(value.dtype)[6:]} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    )


def _hint(found: Tensor, n: int) -> str:
    if found.ndim > 2 and found.shape[2:].numel() == 1:
        return "; return z.flatten(1)"
    if not found.is_floating_point() and found.ndim == 1:
        return "; these look like labels: return the scores that they are the maxima of"
    if found.is_floating_point() and found.shape[0] == n and found[0].numel() == 1:
        return "; of one score z for two classes return torch.stack([0 * z, z], 1), z of shape (N,)"
    return ""
