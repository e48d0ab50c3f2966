"""What is exported, to torch.export and to ONNX, releases what the unit does, ties and batches included."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mipoison.config import ConfigError
from mipoison.defenses import DEFENSES
from mipoison.serving.arithmetic import arithmetic_of
from mipoison.serving.onnx_export import OPSET, OUTPUT, export_onnx, export_program
from mipoison.serving.unit import Unit
from tests.mipoison.serving.test_arithmetic import SHAPE, arguments, vectors

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

K = 5
CASES = [
    ("rounding", {"decimals": 1}), ("rounding", {"steps": 7}), ("noise", {"budget": 0.05}),
    ("noise", {"budget": 0.3, "law": "gaussian"}),
]  # fmt: skip


def run_onnx(path: Path, inputs: tuple[str, ...], given: tuple[Tensor, ...]) -> Tensor:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == list(inputs)
    assert [o.name for o in session.get_outputs()] == [OUTPUT]
    fed = {name: np.ascontiguousarray(value.numpy()) for name, value in zip(inputs, given, strict=True)}
    return torch.from_numpy(session.run(None, fed)[0])


def same(found_NK: Tensor, released_NK: Tensor, exact: bool) -> None:
    assert found_NK.dtype == torch.float32
    if exact:
        assert torch.equal(found_NK, released_NK)
    else:  # sums in another order
        assert torch.allclose(found_NK, released_NK, rtol=0, atol=3e-7)
    assert torch.equal(found_NK.argmax(1), released_NK.argmax(1))


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_rounding_and_noise(name: str, settings: dict[str, float], tmp_path: Path) -> None:
    defense = DEFENSES[name](**settings).make()
    inputs = arithmetic_of(name, defense).inputs
    export_program(name, defense, SHAPE, K, tmp_path / "u.pt2")
    export_onnx(name, defense, SHAPE, K, tmp_path / "u.onnx")
    program = torch.export.load(tmp_path / "u.pt2").module()
    model = onnx.load(tmp_path / "u.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET
    everything = vectors(60, K)
    for c_NK in (everything, everything[:1], everything[-7:]):
        given, released_NK = arguments(defense, inputs, c_NK)
        same(program(*given), released_NK, name == "rounding")
        same(run_onnx(tmp_path / "u.onnx", inputs, given), released_NK, name == "rounding")


def test_a_fitted_codebook_by_the_unit_s_methods(
    units: dict[str, Unit], queries: Tensor, tmp_path: Path
) -> None:
    unit = units["codebook"]
    unit.export(tmp_path / "u.pt2")
    unit.export_onnx(tmp_path / "u.onnx")
    c_NK = vectors(40, unit.n_classes)
    for n in (len(c_NK), 1, 3):
        c, x = c_NK[-n:], queries[torch.arange(n) % len(queries)]
        released_NK = unit.defense.protect(c, x, torch.ones(n, dtype=torch.bool), rng=None)  # type: ignore[arg-type]
        same(torch.export.load(tmp_path / "u.pt2").module()(c, x), released_NK, True)
        same(run_onnx(tmp_path / "u.onnx", ("c", "x"), (c, x)), released_NK, True)


def test_what_is_exported_holds_no_secret_and_no_classifier(units: dict[str, Unit], tmp_path: Path) -> None:
    units["noise"].export_onnx(tmp_path / "u.onnx")
    assert (
        not onnx.load(tmp_path / "u.onnx").graph.initializer or (tmp_path / "u.onnx").stat().st_size < 50_000
    )
    with pytest.raises(ConfigError, match="export_amortised"):
        units["lpa-amortised"].export_onnx(tmp_path / "v.onnx")
    assert not (tmp_path / "v.onnx").exists()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    defense = DEFENSES["rounding"]().make()
    with pytest.raises(ConfigError, match=r'pip install "mipoison\[onnx\]"'):
        export_onnx("rounding", defense, SHAPE, K, tmp_path / "u.onnx")
