"""A classifier behind its post-processing unit: a module whose ``forward`` releases protected vectors.

Shape suffixes: N queries, K classes, CHW image.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from mipoison.config import ConfigError
from mipoison.models.classifier import confidence_vectors
from mipoison.protocols import Defense
from mipoison.randomness import QueryRandomness, content_keys
from mipoison.service import CHUNK
from mipoison.serving.arguments import device_from
from mipoison.victims.ask import Classifier, classifier_of, undone

SECRET_BYTES = (16, 64)
"""Fewest and most bytes of a secret: it keys BLAKE2b."""

_RECORDED = (
    "a protected classifier cannot be traced, scripted or exported: what it draws for these images would be "
    "baked in for all; export the classifier, save the unit (unit.save), and wrap it where both are loaded"
)


class _Undrawn(QueryRandomness):
    """For a defense that draws nothing: it would draw what anybody can draw."""

    def uniform(self, width: int, stream: str) -> Tensor:
        raise ConfigError("the defense draws keyed randomness: give a secret")


def check_secret(secret: bytes | str | None, keyed: bool) -> bytes | None:
    """The secret as bytes; None where none is needed and none was given.

    Raises:
        ConfigError: missing, too short or too long. The message never holds it.
    """
    low, high = SECRET_BYTES
    if secret is None:
        if keyed:
            raise ConfigError(
                f"this unit draws randomness that a secret keys: give one of {low} to {high} bytes (the same "
                "each time); it is never saved with the unit"
            )
        return None
    if not isinstance(secret, bytes | bytearray | str):
        raise ConfigError(
            f"the secret is a {type(secret).__name__}: give bytes or text, {low} to {high} bytes long"
        )
    data = secret.encode() if isinstance(secret, str) else bytes(secret)
    if not low <= len(data) <= high:
        raise ConfigError(f"the secret has {len(data)} bytes: must be {low} to {high}")
    return data


class ProtectedClassifier(nn.Module):
    """Images (N, C, H, W) in [0, 1] to released vectors (N, K): ``c' = PU(T(x), x)``.

    Keyed randomness follows secret and image: the same image gets the same answer, up to the rounding of
    float32 in batches of another size or layout. ``fresh`` defenses draw anew each time, from the system's
    entropy. No answer depends on the images of other requests, nor, but for defenses that couple a request
    (LFP that picks by request, LPA with scope ``batch``), on the other images of its own. It keeps no memory
    of queries.

    It computes in float32, whatever context it is called in, and answers alike in training mode.
    ``to(device)`` moves unit and classifier (a copy: the user's own stays where it is); other number formats
    are refused.

    Args:
        asked: the classifier, on ``device``, its number of classes known; it is asked once, on grey images.
        defense: fitted, on ``device``. image_shape: (C, H, W).
        secret: None for a defense that draws nothing keyed.

    Raises:
        ConfigError: a classifier that fails on such images, or gives another number of outputs.
    """

    def __init__(
        self, asked: Classifier, defense: Defense, *, image_shape: tuple[int, int, int], secret: bytes | None,
        device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__()
        assert asked.n_classes is not None
        self.model = asked.module
        self.image_shape, self.n_classes, self.device = image_shape, asked.n_classes, device
        self.training = False
        self._asked, self._defense, self._secret = asked, defense, secret
        asked(torch.full((2, *image_shape), 0.5, device=device))

    def __getstate__(self) -> dict[str, object]:
        """A pickle or a copy would carry the secret away."""
        raise TypeError("a protected classifier holds a secret: save the unit and wrap the model anew")

    def load_state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: the weights are the user's own module's.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "a protected classifier loads no weights: they would change the classifier that was handed over, "
            "and the unit was fitted for those it has; load them into the classifier itself, then fit a unit "
            "for it and wrap it anew"
        )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """What a module that holds this one calls when it loads weights."""
        self.load_state_dict()

    def __prepare_scriptable__(self) -> NoReturn:
        """What ``torch.jit.script`` calls.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(_RECORDED)

    def train(self, mode: bool = True) -> ProtectedClassifier:
        """Nothing changes: answers are those of eval mode, and the user's module keeps its own mode."""
        return self

    def to(self, *args: Any, **kwargs: Any) -> ProtectedClassifier:
        """Move unit and classifier to a device (see ``torch.nn.Module.to``).

        Raises:
            ConfigError: no such device, or another number format.
        """
        for name in (*args, kwargs.get("device")):
            if isinstance(name, str):
                device_from(name)
        return super().to(*args, **kwargs)

    @undone()
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ProtectedClassifier:
        """What ``to``, ``cuda``, ``half`` and the like call: another device is moved to, in copies.

        Raises:
            ConfigError: another number format.
        """
        try:
            probe = fn(torch.zeros(1, device=self.device))
        except (RuntimeError, AssertionError) as error:  # torch's words for a device that is not there
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ConfigError(f"a protected classifier cannot be moved: {said}") from error
        if probe.dtype != torch.float32:
            raise ConfigError(
                f"a protected classifier answers in float32, not {str(probe.dtype)[6:]}: convert the "
                f"classifier "
                "(model.half()) and fit a unit for that, or convert the answers (protected(x).half())"
            )
        device = device_from(probe.device)
        if device != self.device:
            self._asked = classifier_of(
                self.model, outputs=self._asked.outputs, device=device, n_classes=self.n_classes
            )
            self._defense = copy.copy(self._defense)
            self._defense.load_state({k: v.to(device) for k, v in self._defense.state().items()})
            self.model, self.device = self._asked.module, device
        return self

    @property
    def couples(self) -> bool:
        """Whether an answer depends on the other images of its request."""
        return self._defense.couples

    def extra_repr(self) -> str:
        return f"{type(self._defense).__name__}, image_shape={self.image_shape}, n_classes={self.n_classes}"

    def check(self, x_NCHW: Tensor) -> None:
        """Whether these are images that the classifier is for.

        Raises:
            ValueError: another shape, numbers that are not finite or not in [0, 1].
        """
        expected = "x".join(map(str, self.image_shape))
        if not isinstance(x_NCHW, Tensor):
            raise ValueError(f"expected a tensor of images (N, {expected}), got a {type(x_NCHW).__name__}")
        if x_NCHW.ndim != 4 or tuple(x_NCHW.shape[1:]) != self.image_shape:
            raise ValueError(f"expected images (N, {expected}), got {tuple(x_NCHW.shape)}")
        if not x_NCHW.is_floating_point():
            raise ValueError(f"expected images of float in [0, 1], got {x_NCHW.dtype}")
        if len(x_NCHW) and not bool(((x_NCHW >= 0) & (x_NCHW <= 1)).all()):  # false for NaN as well
            raise ValueError("expected pixels in [0, 1], all of them finite")

    @undone()
    @torch.no_grad()
    def forward(self, x_NCHW: Tensor | np.ndarray | Sequence[Any]) -> Tensor:
        """Released vectors (N, K) of one request, on the device of its images.

        Args:
            x_NCHW: a tensor, a numpy array, or a list of images (C, H, W).

        Raises:
            ValueError: see :meth:`check`.
            ConfigError: it is being traced or exported.
        """
        x = x_NCHW
        if isinstance(x, list | tuple) and all(isinstance(image, Tensor | np.ndarray) for image in x):
            if len({tuple(image.shape) for image in x}) > 1:
                raise ValueError("expected images of one size in the list, got several")
            x = (
                torch.stack([torch.as_tensor(image) for image in x])
                if x
                else torch.empty(0, *self.image_shape)
            )
        elif isinstance(x, np.ndarray):
            x = torch.tensor(x)
        return self.answer([x])[0].to(x.device)  # type: ignore[list-item, union-attr]

    @undone()
    @torch.no_grad()
    def answer(self, requests: Sequence[Tensor]) -> list[Tensor]:
        """Several requests in one go: each one's released vectors (n, K), on this module's device.

        Raises:
            ValueError: see :meth:`check`.
            ConfigError: it is being traced or exported.
        """
        for x_NCHW in requests:
            if _recorded(x_NCHW):
                raise ConfigError(_RECORDED)
            self.check(x_NCHW)
        sizes = [len(x) for x in requests]
        if not sum(sizes):
            return [torch.empty(0, self.n_classes, device=self.device) for _ in requests]
        x_NCHW = torch.cat([x.to(self.device, torch.float32) for x in requests])
        parts = x_NCHW.split(CHUNK)
        c_NK = torch.cat([confidence_vectors(self._asked, part, batch=CHUNK) for part in parts])
        picked_N = torch.cat([self._defense.pick(c) for c in c_NK.split(sizes)])
        # Who is answered in one go is nobody's business: coupling defenses see one request at a time.
        groups = sizes if self._defense.couples else [len(x_NCHW)]
        rows = [part for group in torch.arange(len(x_NCHW)).split(groups) for part in group.split(CHUNK)]
        out_NK = torch.cat([self._protect(c_NK[r], x_NCHW[r], picked_N[r]) for r in rows if len(r)])
        return list(out_NK.split(sizes))

    def _protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor) -> Tensor:
        rng: QueryRandomness
        if self._defense.fresh:
            rng = QueryRandomness(content_keys(x_NCHW, os.urandom(32), list(range(len(x_NCHW)))))
        elif self._secret is not None:
            rng = QueryRandomness(content_keys(x_NCHW, self._secret))
        else:
            rng = _Undrawn(torch.zeros(len(x_NCHW), dtype=torch.int64))
        return self._defense.protect(c_NK, x_NCHW, picked_N, rng=rng)


def _recorded(x: object) -> bool:
    """Whether somebody notes down what is computed for ``x``, to run it on other images."""
    return (
        isinstance(x, torch.fx.Proxy)
        or get_proxy_mode() is not None
        or torch.jit.is_tracing()
        or torch.compiler.is_exporting()
    )
