"""Files of weights as training scripts write them are loaded completely, or refused in one line."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.victims.weights import load_state
from tests.mipoison.victims.helpers import Net, equal, load, one_clear_line, pre


class Tied(nn.Module):
    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        if tied:
            self.b.weight = self.a.weight


class Normalised(nn.Module):
    """What a user writes around a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net((x - 0.5) / 0.5)
        return out


def plus(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value + 1 for name, value in state.items()}


def refused(tmp_path: Path, held: Any, module: nn.Module | None = None, **how: Any) -> str:
    with pytest.raises(ConfigError) as info:
        load(tmp_path, held, module, **how)
    return one_clear_line(str(info.value))


FORMS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda s: s,
    "DataParallel": lambda s: pre("module.", s),
    "compiled": lambda s: pre("_orig_mod.", s),
    "Opacus": lambda s: pre("_module.", s),
    "compiled DataParallel": lambda s: pre("_orig_mod.module.", s),
    "DataParallel of compiled": lambda s: pre("module._orig_mod.", s),
    "all three": lambda s: pre("_module._orig_mod.module.", s),
    "a compiled part": lambda s: {k.replace("f.", "f._orig_mod.", 1): v for k, v in s.items()},
    "model": lambda s: {"model": s, "epoch": 1},
    "net": lambda s: {"net": s, "acc": 0.5},
    "model_state_dict": lambda s: {
        "model_state_dict": s,
        "optimizer_state_dict": {"state": {}, "groups": []},
    },
    "nested containers": lambda s: {"checkpoint": {"model": {"state_dict": pre("module.", s)}}},
    "Lightning": lambda s: {"state_dict": pre("model.", s), "hyper_parameters": argparse.Namespace(lr=1)},
    "Lightning, compiled": lambda s: {"state_dict": pre("net._orig_mod.", s), "loops": {}},
    "averaged": lambda s: pre("module.", s) | {"n_averaged": torch.tensor(3)},
    "the same twice": lambda s: {"state_dict": s, "best": dict(s)},
    "without counters": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
    "sparse": lambda s: s | {"h.weight": s["h.weight"].to_sparse()},
    "CSR": lambda s: s | {"h.weight": s["h.weight"].to_sparse_csr()},
    "double": lambda s: {k: v.double() if v.is_floating_point() else v for k, v in s.items()},
    "parameters": lambda s: {k: nn.Parameter(v, requires_grad=False) for k, v in s.items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found(form: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    found = load(tmp_path, FORMS[form](state))
    if form == "without counters":
        state["f.1.num_batches_tracked"] = found["f.1.num_batches_tracked"]
    assert equal(found, state)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_the_factorys_module_may_be_wrapped_too(
    prefix: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    for module in (nn.DataParallel(Net()), torch.compile(Net()), Normalised()):
        assert equal(load(tmp_path, {"state_dict": pre(prefix, state)}, module), state)  # type: ignore[arg-type]


def test_old_and_other_names_of_the_format(state: dict[str, Tensor], tmp_path: Path) -> None:
    assert equal(load(tmp_path, state, _use_new_zipfile_serialization=False), state)
    for name in ("w.SAFETENSORS", "w.bin", "w.ckpt"):  # told by its content
        safetensors.torch.save_file(state, tmp_path / name)
        module = Net()
        load_state(module, "net:make", str(tmp_path / name))
        assert equal(module.state_dict(), state)
    for name in ("w.PT", "w.PTH", "w.Ckpt", "w"):
        torch.save(state, tmp_path / name)
        module = Net()
        load_state(module, "net:make", str(tmp_path / name))
        assert equal(module.state_dict(), state)


def test_other_objects_beside_the_weights_are_left_out(state: dict[str, Tensor], tmp_path: Path) -> None:
    beside = {
        "best": np.float64(0.9), "history": np.arange(4), "when": datetime.datetime(2026, 1, 1),
        "path": pathlib.PurePosixPath("x"), "seen": collections.defaultdict(list, {1: [2]}),
        "last": collections.deque([1]), "args": argparse.Namespace(lr=0.1),
    }  # fmt: skip
    assert equal(load(tmp_path, {"state_dict": state} | beside), state)


def test_half_precision_is_widened(state: dict[str, Tensor], tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        held = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
        assert equal(load(tmp_path, held), {k: held[k].to(state[k].dtype) for k in state})


def test_quantized_entries_get_the_values_they_stand_for(state: dict[str, Tensor], tmp_path: Path) -> None:
    held = state | {"h.weight": torch.quantize_per_tensor(state["h.weight"], 0.02, 3, torch.qint8)}
    values = load(tmp_path, held)["h.weight"]
    steps = torch.round(state["h.weight"] / 0.02).clamp(-131, 124)
    torch.testing.assert_close(values, steps * 0.02)


def test_tied_weights_in_safetensors_own_form(tmp_path: Path) -> None:
    tied, file = Tied(), str(tmp_path / "t.safetensors")
    for saved in (tied, nn.DataParallel(tied)):
        safetensors.torch.save_model(saved, file)
        assert len(safetensors.torch.load_file(file)) == 3  # one was dropped
        for module in (Tied(), Tied(tied=False)):
            load_state(module, "net:make", file)
            assert torch.equal(module.a.weight, tied.a.weight)
            assert torch.equal(module.b.weight, tied.a.weight)
            assert torch.equal(module.b.bias, tied.b.bias)


def test_two_weights_for_one_tied_tensor_are_refused(tmp_path: Path) -> None:
    text = refused(tmp_path, Tied(tied=False).state_dict(), Tied())
    assert "a.weight and b.weight are one tensor in the module, two different ones in the file" in text


def test_old_names_of_a_layer_are_still_translated(tmp_path: Path) -> None:
    old = nn.utils.weight_norm(nn.Linear(4, 4))
    new = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    load(tmp_path, old.state_dict(), new)
    torch.testing.assert_close(new(torch.eye(4)), old(torch.eye(4)))


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (lambda s: {"state_dict": s, "state_dict_ema": plus(s)}, "['state_dict']; ['state_dict_ema']"),
        (lambda s: {"model": s, "ema": {"shadow": plus(s)}}, "['model']; ['ema']['shadow']"),
        (lambda s: pre("model.", s) | pre("ema_model.", plus(s)), "'model.'; the top, names beginning with"),
        (lambda s: pre("foo.", s) | {"bar.weight": torch.ones(2)}, "1 tensors beside them (bar.weight)"),
        (lambda s: {k: v for k, v in s.items() if k != "h.bias"}, "1 of 9 entries are missing (h.bias)"),
        (lambda s: s | {"aux.weight": torch.ones(2)}, "1 are none of the module's (aux.weight)"),
        (lambda s: pre("0.", s) | {"1.weight": torch.ones(2)}, "1 tensors beside them (1.weight)"),
        (lambda s: s | {"h.bias": torch.ones(7)}, "1 of 9 entries have other shapes: h.bias 7, wanted 3"),
        (lambda s: {k: v.to(torch.int8) for k, v in s.items()}, "f.0.weight is of torch.int8"),
        (lambda s: s | {"h.bias": s["h.bias"].to(torch.complex64)}, "h.bias is of torch.complex64"),
        (lambda s: s | {"h.bias": s["h.bias"].numpy()}, "h.bias is a NumPy array"),
        (lambda s: s | {"h.bias": s["h.bias"].to("meta")}, "h.bias was saved without its values"),
        (lambda s: {k: v.numpy() for k, v in s.items()}, "'f.0.weight': a NumPy array"),
        (lambda s: Net(), "a whole tests.mipoison.victims.helpers.Net"),
        (lambda s: {"model": Net(), "epoch": 1}, "under 'model' a whole"),
        (lambda s: list(s.values()), "holds a list, no weights by name"),
        (lambda s: s["h.bias"], "holds a Tensor, no weights by name"),
        (lambda s: {"epoch": 3}, "no tensors by name (but 'epoch': of int)"),
        (lambda s: nn.Linear(2, 2).state_dict(), "8 of 9 entries are missing (f.0.weight, f.0.bias, f.1.w"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_whole_is_refused(
    held: Callable[[dict[str, Tensor]], Any], told: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    text = refused(tmp_path, held(state))
    assert told.replace("tests.mipoison.victims.helpers", Net.__module__) in text
    if "whole" in told:
        assert "torch.save(model.state_dict()" in text


def test_a_part_of_another_classifier_is_not_taken_for_this_one(tmp_path: Path) -> None:
    two = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).state_dict()
    for module in (nn.Linear(4, 4), nn.Sequential(nn.Flatten(), nn.Linear(4, 4))):
        refused(tmp_path, two, module)
