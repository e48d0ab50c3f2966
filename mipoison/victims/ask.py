"""Calls a user's classifier, in the same way for fitting, wrapping, serving and studies.

The classifier gets a copy of the images and runs in eval mode, without the caller's contexts (autocast,
inference mode, default dtype and device). Afterwards the classifier and the process are as before. The
result is a new tensor of float32 logits.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mipoison.config import ConfigError, choose, kind_of, one_line
from mipoison.process import PROCESS_LOCK, callers_defaults, own_context, restored_state
from mipoison.victims.outputs import OUTPUTS, log_probabilities, logits_of
from mipoison.victims.preprocess import preprocessed

DYNAMIC = (
    "torch.export.export(net, (images,), dynamic_shapes=({0: torch.export.Dim('batch', min=1, max=2**20)},))"
)
"""The call that exports a classifier for batches of any size; error messages quote it."""
log = logging.getLogger(__name__)

__all__ = ["DYNAMIC", "Classifier", "classifier_of", "on_device"]


class Classifier:
    """Adapter of a user's classifier: maps images (N, C, H, W) in [0, 1] to logits (N, K), float32.

    The module gets a copy of the images, because it may change them in place. They are float32, or have the
    dtype of the module's weights if it fails on float32. The module runs in eval mode and without gradients.
    If it was left in training mode, a copy in eval mode runs in its place. Its training flags, the global
    random generators of torch, numpy and Python, default dtype and device, thread count and autocast are
    restored after each call; for this reason only one thread calls at a time.

    The module may return logits of any floating dtype as a tensor, as one of several tensors in a tuple or
    list, under one of :data:`~mipoison.victims.outputs.KEYS` in a dictionary, or as the attribute ``logits``.

    Args:
        module: the user's module. It is never moved; if it is on another device, a copy on ``device`` is
            used.
        name: the classifier's name in messages; None means the name of its class.
        outputs: what the module returns. ``probabilities`` are divided by their sum and clamped at
            :data:`~mipoison.victims.outputs.FLOOR`; their logarithms serve as logits. ``logits`` or None mean
            logits; with None, :func:`~mipoison.victims.check.check_victim` refuses what looks like
            probabilities.
        device: where to compute; None means where the module is.
        n_classes: K if it is known; distinguishes the logits from other outputs in a tuple.

    Raises:
        ConfigError: when called, if the module fails or returns no logits of that shape; when made, if it
            cannot be copied to ``device``.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str | None = None,
        outputs: str | None = None,
        device: torch.device | None = None,
        n_classes: int | None = None,
    ) -> None:
        if outputs is not None:
            choose("classifier outputs (logits or probabilities)", outputs, OUTPUTS)
        self.name = name or type(module).__name__
        self.outputs, self.n_classes = outputs, n_classes
        self.module = module if device is None else on_device(module, device, self.name)
        self._dtype: torch.dtype | None = None
        self._said = False
        self.theirs = callers_defaults()

    @property
    def device(self) -> torch.device:
        """The device of the module's weights; the CPU if it has none."""
        return _home(self.module) or torch.device("cpu")

    @own_context()
    def __call__(self, x_NCHW: Tensor) -> Tensor:
        """Logits (N, K), float32, on the device of the images.

        Raises:
            ConfigError: the module fails, or its outputs are not finite or not logits (N, K).
        """
        try:
            with (
                PROCESS_LOCK,
                restored_state(_home(self.module)),
                self._in_eval_mode() as module,
                self._own_defaults(),
            ):
                answer = self._answer(module, x_NCHW)
                z_NK = logits_of(answer, self.name, x_NCHW.shape[0], self.n_classes)
                self._say(answer)
                z_NK = z_NK.detach().to(x_NCHW.device, copy=True)
        except (ConfigError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise ConfigError(self._failure(x_NCHW, error)) from error
        if self.outputs != "probabilities":
            z_NK = z_NK.float()
        if not bool(z_NK.isfinite().all()):
            rows = int((~z_NK.isfinite()).any(1).sum())
            raise ConfigError(
                f"classifier {self.name} gives outputs that are not finite in float32 for {rows} of "
                f"{len(z_NK)} images in [0, 1]; does it overflow in half precision? then "
                "run its last layers in float32"
            )
        return log_probabilities(z_NK, self.name) if self.outputs == "probabilities" else z_NK

    def _say(self, answer: Any) -> None:
        """Log, once, where the logits were found, if the module returned more than a tensor."""
        if not self._said and not isinstance(answer, Tensor):
            self._said = True
            log.info("classifier %s returns a %s: its logits are taken", self.name, type(answer).__name__)

    @torch.no_grad()
    def _answer(self, module: nn.Module, x_NCHW: Tensor) -> Any:
        home = _home(self.module) or x_NCHW.device
        if self._dtype is not None:
            return module(x_NCHW.detach().to(home, self._dtype, copy=True))
        own = next((t.dtype for t in _tensors(self.module) if t.is_floating_point()), torch.float32)
        try:
            answer = module(x_NCHW.detach().to(home, torch.float32, copy=True))
            self._dtype = torch.float32
        except (RuntimeError, TypeError):
            if own == torch.float32:
                raise
            try:
                answer = module(x_NCHW.detach().to(home, own, copy=True))
            except (RuntimeError, TypeError):
                answer = None
            if answer is None:  # it fails on its own dtype too, so the first error is the informative one
                raise
            self._dtype = own
        return answer

    @contextlib.contextmanager
    def _in_eval_mode(self) -> Iterator[nn.Module]:
        """The module in eval mode, or a copy of it; the module's training flags are restored afterwards."""
        flags = [(m, m.training) for m in self.module.modules()]
        try:
            module = self.module
            if any(flag for _, flag in flags):
                with contextlib.suppress(Exception):  # if it cannot be copied, its own flags are switched
                    module = copy.deepcopy(module)
                with contextlib.suppress(NotImplementedError):  # an exported program has no modes
                    module.eval()
            yield module
        finally:
            if any(m.training != flag for m, flag in flags):
                with contextlib.suppress(NotImplementedError):
                    self.module.train(flags[0][1])
                for m, flag in flags:
                    m.training = flag

    @contextlib.contextmanager
    def _own_defaults(self) -> Iterator[None]:
        """A scope with the user's default dtype and device of when the module was handed over."""
        dtype, device = self.theirs
        with contextlib.ExitStack() as stack:
            if dtype != torch.float32:
                stack.callback(torch.set_default_dtype, torch.float32)
                torch.set_default_dtype(dtype)
            if device.type != "cpu":
                stack.enter_context(device)
            yield

    def _failure(self, x_NCHW: Tensor, error: Exception) -> str:
        shape = "x".join(map(str, x_NCHW.shape[1:]))
        said = one_line(error)
        if isinstance(self.module, torch.fx.GraphModule):
            remedy = f"if it was exported for another batch, export it with a dynamic one: {DYNAMIC}"
        else:
            remedy = (
                "state its preprocessing (transforms=weights.transforms() of torchvision, or Hugging Face's "
                "image processor; a --victim returns mipoison.victims.preprocessed(model, transforms)), or "
                "put it into the module: x = torch.nn.functional.interpolate(x, 224), x.expand(-1, 3, -1, -1)"
            )
        return (
            f"classifier {self.name} fails on images {shape} in [0, 1], a batch of {x_NCHW.shape[0]}: "
            f"{said}; {remedy}"
        )


def classifier_of(
    model: Any,
    *,
    outputs: str | None = None,
    device: torch.device | None = None,
    n_classes: int | None = None,
    transforms: Any = None,
) -> Classifier:
    """Make the adapter of a classifier that the user passed.

    Args:
        model: a torch module, or the result of ``load_victim``, which knows its name and outputs.
        outputs, device, n_classes: see :class:`Classifier`.
        transforms: the classifier's preprocessing, see
            :func:`mipoison.victims.preprocess.preprocessing_from`; None: it takes the images as they are.

    Raises:
        ConfigError: ``model`` is no module, or ``outputs`` contradicts what ``load_victim`` was told.
    """
    if not isinstance(model, nn.Module):
        if isinstance(model, type) and issubclass(model, nn.Module):
            raise ConfigError(f"the classifier is the class {model.__name__}: give an instance of it")
        if isinstance(model, str):
            raise ConfigError(f"the classifier is the text {model!r}: give load_victim({model!r})")
        raise ConfigError(
            f"the classifier is {kind_of(model)}: expected a torch.nn.Module; put a function f into "
            "one (class Net(torch.nn.Module): def forward(self, x): return f(x))"
        )
    name, stated = None, None
    asked = getattr(model, "asked", None)
    if isinstance(asked, Classifier):  # of load_victim
        model, name, stated = asked.module, asked.name, asked.outputs
    if outputs is not None and stated is not None and outputs != stated:
        raise ConfigError(f"the classifier was loaded with outputs={stated!r}: outputs={outputs!r} differs")
    name = name or type(model).__name__
    if transforms is not None:
        model = preprocessed(model, transforms)
    made = Classifier(model, name=name, outputs=outputs or stated, device=device, n_classes=n_classes)
    if isinstance(asked, Classifier):
        made.theirs = asked.theirs
    return made


def on_device(module: nn.Module, device: torch.device, name: str) -> nn.Module:
    """The module, or a copy of it on ``device`` if all of its weights are on another one.

    A module without weights, or with weights on several devices, is returned as it is.

    Raises:
        ConfigError: the module cannot be copied.
    """
    homes = {t.device for t in _tensors(module)}
    here = all(h.type == device.type and device.index in (None, h.index) for h in homes)
    if len(homes) != 1 or here:
        return module
    try:
        return copy.deepcopy(module).to(device)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        said = one_line(error)
        raise ConfigError(
            f"classifier {name} is on {homes.pop()} and cannot be copied to {device} ({said}): move it there "
            f"yourself (model.to({str(device)!r})), or give the device that it is on"
        ) from error


def _home(module: nn.Module) -> torch.device | None:
    return next((t.device for t in _tensors(module)), None)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(module.parameters(), module.buffers())
