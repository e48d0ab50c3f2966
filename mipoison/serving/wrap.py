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

from mipoison.config import ConfigError, one_line
from mipoison.defenses.pipeline import Pipeline
from mipoison.process import own_context
from mipoison.protocols import Defense
from mipoison.serving.arguments import device_from
from mipoison.victims.ask import Classifier, classifier_of
from mipoison.victims.preprocess import Preprocessed, Preprocessing

SECRET_BYTES = (16, 64)
"""Fewest and most bytes of a secret. It keys BLAKE2b, which takes 64 at most."""

_RECORDED = (
    "a protected classifier cannot be traced, scripted or exported: the random numbers of these images would "
    "be used for all; export the classifier, save the unit (unit.save), and wrap it where both are loaded"
)


def refuse_secret(name: str) -> NoReturn:
    """Raise ConfigError for a secret that was given to another function than ``Unit.wrap``."""
    raise ConfigError(
        f"{name} takes no secret, as a unit holds none: give it to unit.wrap(model, secret=...), or to a "
        "server in the environment variable MIPOISON_SECRET"
    )


def check_secret(secret: bytes | str | None, keyed: bool) -> bytes | None:
    """The secret as bytes; None where none is needed and none was given.

    Raises:
        ConfigError: missing, too short or too long. The message does not contain the secret.
    """
    low, high = SECRET_BYTES
    if secret is None:
        if keyed:
            raise ConfigError(
                f"this unit draws random numbers that a secret keys: give one of {low} to {high} bytes, the "
                "same each time, in the environment variable MIPOISON_SECRET of mipoison serve, or in Python "
                "as unit.wrap(model, secret=...); it is never saved with the unit"
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

    Keyed random numbers depend on secret and image: the same image gets the same answer, up to float32
    rounding in batches of another size or memory layout. ``fresh`` defenses draw anew at every query, from
    the operating system's entropy. No answer depends on the images of other requests. Only a defense that
    couples a request (LFP that picks by request, LPA with scope ``batch``) lets an answer depend on the other
    images of its own. Queries are not stored.

    It computes in float32 and in eval mode, whatever the caller's autocast, grad or training mode is.
    ``to(device)`` moves the unit and a copy of the classifier; the user's own module stays where it is. Other
    number formats are refused.

    Args:
        asked: the classifier, on ``device``, its number of classes known. It is asked once, on grey images.
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
        self._asked, self._secret = asked, secret
        self._pipeline = Pipeline(asked, defense, asked.n_classes, device)
        asked(torch.full((2, *image_shape), 0.5, device=device))

    def __getstate__(self) -> dict[str, object]:
        """Refused: a pickle or a deep copy would contain the secret."""
        raise TypeError("a protected classifier holds a secret: save the unit and wrap the model anew")

    def load_state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused, because it would change the weights of the user's own module.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "a protected classifier loads no weights: they would change the classifier that was handed over, "
            "and the unit was fitted for those it has; load them into the classifier itself, then fit a unit "
            "for it and wrap it anew"
        )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: a module that contains this one calls it when it loads weights."""
        self.load_state_dict()

    def __prepare_scriptable__(self) -> NoReturn:
        """Refused: ``torch.jit.script`` calls it.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(_RECORDED)

    def train(self, mode: bool = True) -> ProtectedClassifier:
        """Does nothing: answers are always those of eval mode, and the user's module keeps its own mode."""
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

    @own_context()
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ProtectedClassifier:
        """Move copies to another device. ``to``, ``cuda``, ``half`` and the like call this.

        Raises:
            ConfigError: a device that is not there, or another number format.
        """
        try:
            probe = fn(torch.zeros(1, device=self.device))
        except (RuntimeError, AssertionError) as error:  # torch's errors for a device that is not there
            raise ConfigError(f"a protected classifier cannot be moved: {one_line(error)}") from error
        if probe.dtype != torch.float32:
            raise ConfigError(
                f"a protected classifier answers in float32, not {str(probe.dtype)[6:]}: convert the "
                "classifier (model.half()) and fit a unit for that, or convert the answers "
                "(protected(x).half())"
            )
        device = device_from(probe.device)
        if device != self.device:
            self._asked = classifier_of(
                self.model, outputs=self._asked.outputs, device=device, n_classes=self.n_classes
            )
            defense = copy.copy(self._pipeline.defense)
            defense.load_state({k: v.to(device) for k, v in defense.state().items()})
            self._pipeline = Pipeline(self._asked, defense, self.n_classes, device)
            self.model, self.device = self._asked.module, device
        return self

    @property
    def couples(self) -> bool:
        """Whether an answer depends on the other images of its request."""
        return self._pipeline.defense.couples

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What was stated that happens to images before the classifier sees them; None: nothing."""
        return self.model.preprocessing if isinstance(self.model, Preprocessed) else None

    def extra_repr(self) -> str:
        defense = type(self._pipeline.defense).__name__
        return f"{defense}, image_shape={self.image_shape}, n_classes={self.n_classes}"

    def check(self, x_NCHW: Tensor) -> None:
        """Check that these are images for this classifier.

        Raises:
            ValueError: another shape, or numbers that are not finite or not in [0, 1].
        """
        expected = "x".join(map(str, self.image_shape))
        if not isinstance(x_NCHW, Tensor):
            raise ValueError(f"expected a tensor of images (N, {expected}), got a {type(x_NCHW).__name__}")
        if x_NCHW.ndim != 4 or tuple(x_NCHW.shape[1:]) != self.image_shape:
            raise ValueError(f"expected images (N, {expected}), got {tuple(x_NCHW.shape)}")
        if not x_NCHW.is_floating_point():
            raise ValueError(f"expected images of float in [0, 1], got {x_NCHW.dtype}")
        if len(x_NCHW) and not bool(((x_NCHW >= 0) & (x_NCHW <= 1)).all()):  # NaN compares false
            raise ValueError("expected pixels in [0, 1], all of them finite")

    @own_context()
    @torch.no_grad()
    def forward(self, x_NCHW: Tensor | np.ndarray | Sequence[Any]) -> Tensor:
        """Released vectors (N, K) of one request, on the device of its images.

        Args:
            x_NCHW: a tensor, a numpy array, or a list of images (C, H, W).

        Raises:
            ValueError: see :meth:`check`.
            ConfigError: the call is being traced or exported.
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

    @own_context()
    @torch.no_grad()
    def answer(self, requests: Sequence[Tensor]) -> list[Tensor]:
        """Released vectors (n, K) of each of several requests, computed together, on this module's device.

        Raises:
            ValueError: see :meth:`check`.
            ConfigError: the call is being traced or exported.
        """
        for x_NCHW in requests:
            if _recorded(x_NCHW):
                raise ConfigError(_RECORDED)
            self.check(x_NCHW)
        sizes = [len(x) for x in requests]
        if not sum(sizes):
            return [torch.empty(0, self.n_classes, device=self.device) for _ in requests]
        x_NCHW = torch.cat([x.to(self.device, torch.float32) for x in requests])
        secret, asked_N = self._secret, None
        if self._pipeline.defense.fresh:
            # A new secret for each call, and another count for each image: two equal images draw differently.
            secret, asked_N = os.urandom(32), range(len(x_NCHW))
        released_NK = self._pipeline.release(x_NCHW, secret=secret, asked_N=asked_N, sizes=sizes)
        return list(released_NK.to(self.device).split(sizes))


def _recorded(x: object) -> bool:
    """Whether torch is recording the operations on ``x``, to run them on other images later."""
    return (
        isinstance(x, torch.fx.Proxy)
        or get_proxy_mode() is not None
        or torch.jit.is_tracing()
        or torch.compiler.is_exporting()
    )
