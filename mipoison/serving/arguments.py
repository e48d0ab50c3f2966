"""Checks of the images, labels and devices that users pass. An error says in one line what to pass instead.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mipoison.config import ConfigError

FEWEST = 4
"""Images that a set must have at least."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def device_from(device: str | torch.device | None) -> torch.device:
    """The device that a user named; None: the GPU if there is one.

    Raises:
        ConfigError: no such device here.
    """
    found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if device is None:
        return torch.device("cuda" if len(found) > 1 else "cpu")
    hint = " (a GPU is called 'cuda')" if str(device).lower().startswith("gpu") else ""
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"unknown device {device!r}{hint}; here: {', '.join(found)}") from error
    if chosen.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {device!r} is not supported; here: {', '.join(found)}")
    if chosen.type == "cuda" and (len(found) == 1 or (chosen.index or 0) >= len(found) - 1):
        raise ConfigError(f"device {device!r} is not there; here: {', '.join(found)}")
    return chosen


def images_and_labels(name: str, given: Any) -> tuple[Tensor, Tensor | None]:
    """Images (N, C, H, W), float32 on the CPU, and their labels (N,), int64, or None.

    Args:
        name: for messages.
        given: a tensor of images in [0, 1], or the tuple (images, labels).

    Raises:
        ConfigError: anything else.
    """
    if isinstance(given, list) and len(given) == 2 and not _is_image(given[0]):
        raise ConfigError(f"{name} is a list of two: give the tuple (images, labels)")
    if isinstance(given, tuple):
        if len(given) != 2:
            raise ConfigError(f"{name} is a tuple of {len(given)}: expected images, or (images, labels)")
        x_NCHW = _images(name, given[0])
        return x_NCHW, _labels(name, given[1], len(x_NCHW))
    return _images(name, given), None


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray) and value.ndim < 4


def _check_values(name: str, what: str, tensor: Tensor) -> None:
    """Refuse tensors that are not dense: nested, sparse, quantised, or without values."""
    if tensor.is_nested:
        raise ConfigError(f"{name}: {what} are a nested tensor: give torch.stack(list({what}))")
    if tensor.layout != torch.strided:
        kind = str(tensor.layout).removeprefix("torch.")
        raise ConfigError(f"{name}: {what} are a tensor of layout {kind}: give {what}.to_dense()")
    if tensor.is_meta:
        raise ConfigError(f"{name}: {what} are on the device meta, without values: load them onto the CPU")
    if tensor.is_quantized:
        raise ConfigError(f"{name}: {what} are quantised: give {what}.dequantize()")


def _from_numpy(what: str, array: np.ndarray, dtype: str) -> str:
    """The call that makes a tensor of an array. torch takes neither all types nor negative strides."""
    if array.dtype.kind == "O" and array.ndim == 1 and dtype == "float32":
        return f"torch.from_numpy(numpy.stack({what}).astype({dtype!r}))"
    try:
        torch.from_numpy(np.empty(0, array.dtype))
    except TypeError:
        return f"torch.from_numpy({what}.astype({dtype!r}))"
    except ValueError:  # its byte order is not this machine's
        return f"torch.from_numpy({what}.astype({array.dtype.newbyteorder('=').name!r}))"
    copied = ".copy()" * (min(array.strides, default=0) < 0)
    return f"torch.from_numpy({what}{copied})"


def _texts(array: np.ndarray) -> bool:
    return array.dtype.kind in "US" or (
        array.dtype.kind == "O" and not all(isinstance(v, int | np.integer) for v in array.flat)
    )


def _images(name: str, x: Any) -> Tensor:
    if isinstance(x, np.ndarray):
        how = _from_numpy("images", x, "float32")
        raise ConfigError(f"{name}: images are a numpy array: give {how}, float in [0, 1]")
    if isinstance(x, list):
        raise ConfigError(
            f"{name}: images are a list of {len(x)}: give torch.stack(images), (N, C, H, W), float in [0, 1] "
            "(of PIL images: torchvision.transforms.functional.to_tensor of each first)"
        )
    if not isinstance(x, Tensor):
        raise ConfigError(
            f"{name}: images are a {type(x).__name__}: expected a tensor (N, C, H, W), float in [0, 1]; of a "
            "data set give torch.stack([image for image, label in data])"
        )
    _check_values(name, "images", x)
    shape = tuple(x.shape)
    if x.ndim == 3:
        raise ConfigError(
            f"{name}: expected at least {FEWEST} images (N, C, H, W), got {shape}; of grey images without a "
            "channel give images[:, None]"
        )
    if x.ndim != 4 or len(x) < FEWEST or 0 in shape:
        raise ConfigError(f"{name}: expected at least {FEWEST} images (N, C, H, W), got {shape}")
    if shape[3] in (1, 3, 4) and shape[1] > 4:
        raise ConfigError(
            f"{name}: images {shape[1:]} look like (H, W, C): give images.permute(0, 3, 1, 2), (N, C, H, W)"
        )
    if not x.is_floating_point():
        remedy = "images.float() / 255" if x.dtype == torch.uint8 else "images.float(), in [0, 1]"
        raise ConfigError(
            f"{name}: expected pixels of float in [0, 1], got {str(x.dtype)[6:]}: give {remedy}"
        )
    if x.dtype not in _FLOATS:
        raise ConfigError(
            f"{name}: images are {str(x.dtype)[6:]}, too coarse for pixels: give float32 in [0, 1]"
        )
    x = x.detach().to("cpu", torch.float32)
    if bad := int((~x.isfinite()).sum()):
        raise ConfigError(f"{name}: {bad} of {x.numel()} pixels are not finite: must be in [0, 1]")
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        remedy = (
            "give images / 255"
            if low >= 0 and 2 < high <= 255
            else (
                "give the images before they are normalised, and let the classifier normalise in its forward"
            )
        )
        raise ConfigError(f"{name}: expected pixels in [0, 1], got {low:.4g} to {high:.4g}: {remedy}")
    return x.clone() if x.is_inference() else x


def _labels(name: str, y: Any, n: int) -> Tensor:
    if not isinstance(y, Tensor):
        how = _from_numpy("labels", y, "int64") if isinstance(y, np.ndarray) else "torch.tensor(labels)"
        texts = isinstance(y, list | tuple) and any(isinstance(v, str) for v in y)
        if texts or (isinstance(y, np.ndarray) and _texts(y)):
            how = "their positions among the sorted class names, an int64 tensor"
        raise ConfigError(f"{name} labels are a {type(y).__name__}: give {how}, whole numbers from 0")
    _check_values(name, "labels", y)
    shape = tuple(y.shape)
    if shape != (n,):
        one_hot = y.ndim == 2 and shape[0] == n and shape[1] > 1
        hint = ": give labels.argmax(1)" if one_hot else ": give labels.flatten()" if y.numel() == n else ""
        raise ConfigError(f"{name} labels: expected {n}, one an image, got {shape}{hint}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ConfigError(
            f"{name} labels are {str(y.dtype)[6:]}: expected whole numbers from 0; give labels.long()"
        )
    y = y.detach().to("cpu", torch.int64)
    if int(y.min()) < 0:
        raise ConfigError(f"{name} labels: the least is {int(y.min())}, must be 0 or more")
    return y.clone() if y.is_inference() else y


def check_labels(name: str, y_N: Tensor | None, n_classes: int) -> None:
    """Check that the classifier has an output for every label.

    Raises:
        ConfigError: a label is too large.
    """
    if y_N is None or int(y_N.max()) < n_classes:
        return
    hint = (
        "; do they count from 1? then give labels - 1"
        if int(y_N.min()) >= 1 and int(y_N.max()) == n_classes
        else ""
    )
    raise ConfigError(
        f"{name} labels must be 0 to {n_classes - 1}, the largest is {int(y_N.max())}: the classifier has "
        f"{n_classes} outputs{hint}"
    )
