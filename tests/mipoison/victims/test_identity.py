"""A classifier has the same digest when it is wrapped, compiled or was called before; another one has not."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.defenses import DEFENSES
from mipoison.serving.protect import fit_unit, load_unit
from mipoison.serving.unit import Unit, weights_digest
from mipoison.victims.identity import canonical, earlier_state_digest, entry_digests, state_digest, structure
from mipoison.victims.own import load_victim, repeatable_digest


class Net(nn.Module):
    """Counts its calls in a persistent buffer, another one in a buffer that is not saved."""

    calls: Tensor
    unsaved: Tensor

    def __init__(self, counting: bool = True) -> None:
        super().__init__()
        self.body: Any = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5))
        self.counting = counting
        if counting:
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("unsaved", torch.zeros(3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.counting:
            self.calls += 1
            self.unsaved += len(x)
        out: Tensor = self.body(x)
        return out


def net(counting: bool = False) -> Net:
    torch.manual_seed(0)
    return Net(counting).eval()


WRAPPED: dict[str, Callable[[], Any]] = {
    "DataParallel": lambda: nn.DataParallel(net()),
    "compiled": lambda: torch.compile(net(), backend="eager"),
    "compiled DataParallel": lambda: torch.compile(nn.DataParallel(net()), backend="eager"),
    "averaged": lambda: nn.DataParallel(nn.DataParallel(net())),
}


def part_compiled() -> nn.Module:
    module = net()
    module.body = torch.compile(module.body, backend="eager")
    return module


@pytest.mark.parametrize("wrap", [*WRAPPED.values(), part_compiled], ids=[*WRAPPED, "a part compiled"])
def test_wrappers_are_no_part_of_it(wrap: Callable[[], nn.Module]) -> None:
    wrapped = wrap()
    assert state_digest(wrapped) == weights_digest(wrapped) == state_digest(net())
    assert structure(wrapped) == structure(net())


def test_weights_names_shapes_and_dtypes_are() -> None:
    plain, digests = net(), {state_digest(net())}
    with torch.no_grad():
        changed = copy.deepcopy(plain)
        changed.body[1].weight[0, 0] += 1e-6
        digests.add(state_digest(changed))
    digests.add(state_digest(copy.deepcopy(plain).double()))
    digests.add(state_digest(nn.Sequential(plain)))  # other names
    digests.add(state_digest(Net(counting=True).eval()))
    assert len(digests) == 5
    other = copy.deepcopy(plain)
    other.body[2].running_mean.add_(1)
    assert state_digest(other) != state_digest(plain)
    assert structure(nn.Sequential(nn.ReLU())) != structure(nn.Sequential(nn.GELU()))
    assert structure(nn.Sequential(nn.Softmax(0))) != structure(nn.Sequential(nn.Softmax(1)))


def test_batches_that_were_counted_are_not() -> None:
    plain, later = net(), net()
    later.body[2].num_batches_tracked.add_(7)
    assert state_digest(later) == state_digest(plain)


def test_names_lose_only_what_wrappers_add() -> None:
    assert canonical("_orig_mod.module.f._orig_mod.0.weight") == "f.0.weight"
    assert canonical("modules.my_module.weight") == "modules.my_module.weight"


def test_two_names_that_only_differ_by_a_wrappers_part_stay_apart() -> None:
    both = nn.ModuleDict({"a": nn.Linear(2, 2)})
    both["module"] = nn.ModuleDict({"a": nn.Linear(2, 2)})
    assert len(entry_digests(both)) == 4


class Kinds(nn.Module):
    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name, value)


def _quantized(scale: float) -> Tensor:
    return torch.quantize_per_tensor(torch.arange(4.0), scale, 1, torch.qint8)


KINDS: dict[str, tuple[Tensor, Tensor]] = {
    "bfloat16": (torch.ones(3).bfloat16(), torch.ones(3).bfloat16() * 2),
    "float8": (torch.ones(3).to(torch.float8_e5m2), torch.ones(3).to(torch.float8_e4m3fn)),
    "bool": (torch.tensor([True, False]), torch.tensor([True, True])),
    "complex": (torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 2j])),
    "0-dim": (torch.tensor(1.5), torch.tensor(1.25)),
    "empty": (torch.empty(0, 2), torch.empty(0, 3)),
    "view": (torch.arange(6.0).reshape(2, 3).T, torch.arange(6.0).reshape(3, 2)),
    "sparse": (torch.eye(3).to_sparse(), (2 * torch.eye(3)).to_sparse()),
    "CSR": (torch.eye(3).to_sparse_csr(), (2 * torch.eye(3)).to_sparse_csr()),
    "quantized": (_quantized(0.5), _quantized(0.25)),
    "by channel": (
        torch.quantize_per_channel(torch.eye(2), torch.tensor([0.5, 0.1]), torch.zeros(2), 0, torch.qint8),
        torch.quantize_per_channel(torch.eye(2), torch.tensor([0.5, 0.2]), torch.zeros(2), 0, torch.qint8),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tensor_has_a_digest(kind: str) -> None:
    one, other = KINDS[kind]
    same = copy.deepcopy(one) if one.is_quantized else one.clone()
    assert state_digest(Kinds(a=one)) == state_digest(Kinds(a=same))
    assert state_digest(Kinds(a=one)) != state_digest(Kinds(a=other))


def test_a_quantized_module_has_a_digest() -> None:
    def quantized(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 2)), {nn.Linear})

    assert state_digest(quantized(0)) == state_digest(quantized(0)) != state_digest(quantized(1))


def test_a_layer_without_values_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"weight has no values yet \(a lazy layer\)"):
        state_digest(nn.LazyLinear(2))


def test_addresses_are_no_part_of_the_structure() -> None:
    class Named(nn.Module):
        def extra_repr(self) -> str:
            return f"f={object()!r}"

    assert structure(Named()) == structure(Named())


# ------------------------------------------------------------------------------------------------- units


def fitted(model: nn.Module) -> Unit:
    torch.manual_seed(1)
    x = torch.rand(40, 1, 4, 4)
    with torch.no_grad():
        y = model(x).argmax(1)
    return fit_unit(model, private=(x, y), public=torch.rand(40, 1, 4, 4), defense="rounding")


def test_a_unit_fits_its_classifier_wrapped_compiled_or_asked_before(tmp_path: Path) -> None:
    model = net(counting=True)
    unit = fitted(model)
    assert unit.running == ("calls",)
    unit.save(tmp_path / "unit")
    loaded = load_unit(tmp_path / "unit", device="cpu")
    model(torch.rand(2, 1, 4, 4))
    for form in (model, net(counting=True), nn.DataParallel(model), torch.compile(model, backend="eager")):
        loaded.wrap(form)  # type: ignore[arg-type]
        unit.wrap(form)  # type: ignore[arg-type]
    model.body[1].bias.data += 0.1
    with pytest.raises(ConfigError, match="another classifier"):
        loaded.wrap(model)


@pytest.mark.parametrize("inside", [False, True])
def test_weights_that_change_while_asked_are_refused(inside: bool) -> None:
    """Lazy parameters have no values to hash, so classifiers with different weights would have one digest."""

    class Decaying(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = net(counting=True)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.body.body[1].bias.mul_(1 - 1e-6)
            return self.body(x)

    model = nn.DataParallel(Decaying()) if inside else Decaying()
    with pytest.raises(ConfigError, match=r"weights change while it is asked \(body\.body\.1\.bias\)"):
        fitted(model.eval())


def test_a_unit_of_version_0_1_0_still_fits_its_classifier() -> None:
    model = net()
    h = hashlib.sha256()  # what that version computed
    for name, value in sorted(model.state_dict().items()):
        h.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        h.update(value.numpy().tobytes())
    old = h.hexdigest()[:16]
    assert earlier_state_digest(model) == old != state_digest(model)
    unit = Unit(
        name="rounding", config=DEFENSES["rounding"](), defense=fitted(model).defense, image_shape=(1, 4, 4),
        n_classes=5, keyed=False, victim=old, device=torch.device("cpu"),
    )  # fmt: skip
    unit.wrap(model)
    model.body[1].bias.data += 0.1
    with pytest.raises(ConfigError, match="another classifier"):
        unit.wrap(model)


# ------------------------------------------------------------------------------------- classifiers by name

OWN = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.h = nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros(()))
    def forward(self, x):
        self.calls += 1
        return self.h(x.flatten(1))
torch.manual_seed(0)
MODEL = Net()
def shared():
    return MODEL
"""


def test_an_object_of_the_users_module_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the factory's own module were used, our calls would change its buffers and so its digest."""
    (tmp_path / "own_shared.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    for name in ("own_shared:MODEL", "own_shared:shared"):
        first = load_victim(name)
        first(torch.rand(3, 1, 2, 2))
        assert load_victim(name).digest == first.digest == repeatable_digest(name, None)
