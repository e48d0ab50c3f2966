"""Images, labels and devices as people hand them over: taken, or refused with the remedy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.scene import Scene
from mipoison.serving.protect import fit_unit


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (lambda x, y: {"private": ((x - 0.5) / 0.5, y)}, "got -1 to 1: .*before they are normalised"),
        (lambda x, y: {"private": (255 * x, y)}, "0 to 255: give images / 255"),
        (lambda x, y: {"private": ((255 * x).byte(), y)}, r"uint8: give images\.float\(\) / 255"),
        (lambda x, y: {"private": (x / 0, y)}, "not finite"),
        (lambda x, y: {"private": (x.permute(0, 2, 3, 1), y)}, r"images\.permute\(0, 3, 1, 2\)"),
        (lambda x, y: {"private": (x[:, 0], y)}, r"images\[:, None\]"),
        (lambda x, y: {"private": x[:0]}, "at least 4 images"),
        (lambda x, y: {"private": (x.numpy(), y)}, "torch.from_numpy"),
        (lambda x, y: {"private": (list(x), y)}, r"torch\.stack.*to_tensor"),
        (lambda x, y: {"private": [x, y]}, "the tuple"),
        (lambda x, y: {"private": (x, y, y)}, "tuple of 3"),
        (lambda x, y: {"private": None}, "NoneType"),
        (lambda x, y: {"private": (x, y.tolist())}, "torch.tensor"),
        (lambda x, y: {"private": (x, y.numpy())}, "torch.from_numpy"),
        (lambda x, y: {"private": (x, [str(k) for k in y.tolist()])}, "sorted class names"),
        (lambda x, y: {"private": (x, y + 1)}, "0 to 4, the largest is 5.*labels - 1"),
        (lambda x, y: {"private": (x, y - 1)}, "the least is -1"),
        (lambda x, y: {"private": (x, y.float())}, r"labels\.long\(\)"),
        (lambda x, y: {"private": (x, nn.functional.one_hot(y))}, r"labels\.argmax\(1\)"),
        (lambda x, y: {"private": (x.to_sparse(), y)}, r"images\.to_dense\(\)"),
        (lambda x, y: {"private": (x, y.to_sparse())}, r"labels\.to_dense\(\)"),
        (lambda x, y: {"private": (x.to("meta"), y)}, "images are on the device meta"),
        (lambda x, y: {"private": (x, y.to("meta"))}, "labels are on the device meta"),
        (lambda x, y: {"private": (torch.nested.nested_tensor(list(x)), y)}, "nested tensor.*stack"),
        (lambda x, y: {"private": (torch.quantize_per_tensor(x, 0.01, 0, torch.quint8), y)}, "dequantize"),
        (lambda x, y: {"private": (x.to(torch.float8_e4m3fn), y)}, "float8_e4m3fn.*give float32"),
        (lambda x, y: {"private": (x, y.to(torch.float8_e4m3fn))}, r"labels\.long\(\)"),
        (lambda x, y: {"private": (x.numpy().astype(">f4"), y)}, r"images\.astype\('float32'\)"),
        (lambda x, y: {"private": (x.numpy().astype(object), y)}, r"images\.astype\('float32'\)"),
        (lambda x, y: {"private": (x.numpy()[::-1], y)}, r"images\.copy\(\)"),
        (lambda x, y: {"private": (x, y.numpy().astype(">i8"))}, r"labels\.astype\('int64'\)"),
        (lambda x, y: {"private": (x, y.numpy().astype(object))}, r"labels\.astype\('int64'\)"),
        (lambda x, y: {"private": (x, y.numpy().astype(str).astype(object))}, "sorted class names"),
        (lambda x, y: {"seed": np.int64(-1)}, "whole number"),
        (lambda x, y: {"seed": np.float64(1)}, "whole number"),
        (lambda x, y: {"device": "gpu"}, "'cuda'"),
        (lambda x, y: {"device": "meta"}, "not supported"),
        (lambda x, y: {"device": "cuda:99"}, "is not there"),
        (lambda x, y: {"scale": "huge"}, "full, quick"),
        (lambda x, y: {"scale": 3}, "unknown scale 3"),
        (lambda x, y: {"defense": None}, "unknown defense None"),
        (lambda x, y: {"seed": "0"}, "whole number"),
        (lambda x, y: {"config": {"digits": 2}}, "'rounding' has no setting 'digits'"),
        (lambda x, y: {"model": nn.Linear}, "instance"),
        (lambda x, y: {"model": "net:make"}, "load_victim"),
    ],
)
def test_wrong_arguments_name_value_and_remedy(
    tiny_scene: Scene, changes: Callable[[Tensor, Tensor], dict[str, object]], said: str
) -> None:
    x, y = tiny_scene.split.private_train.x_NCHW, tiny_scene.split.private_train.y_N
    arguments = {
        "model": tiny_scene.victim,
        "private": (x, y),
        "public": x,
        "defense": "rounding",
        "device": "cpu",
    }
    with pytest.raises(ConfigError, match=said) as caught:
        fit_unit(**(arguments | changes(x, y)))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
