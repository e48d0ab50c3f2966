"""What belongs to the whole process is the caller's again afterwards."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mipoison.config import ConfigError
from mipoison.process import callers_defaults, import_here, own_context, reseeded, restored_state


def test_the_callers_context_is_undone() -> None:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        with own_context():
            made = torch.ones(2, 2, requires_grad=True)
            product = made @ made
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert (product.dtype, product.device.type, product.requires_grad) == (torch.float32, "cpu", True)
    assert not product.is_inference()


def test_the_callers_defaults_are_known_inside() -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with own_context():
            assert torch.get_default_dtype() == torch.float32
            assert callers_defaults() == (torch.float64, torch.device("cpu"))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)


def numbers() -> tuple[float, float, float]:
    """The next number of each global generator."""
    return float(torch.rand(())), float(np.random.rand()), random.random()  # noqa: NPY002


def test_what_a_users_code_changes_is_restored() -> None:
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    with reseeded(5, torch.device("cpu")):
        expected = numbers()
    with reseeded(5, torch.device("cpu")):
        with restored_state(None):
            numbers()
            torch.set_num_threads(threads + 1)
            torch.set_default_dtype(torch.float64)
        assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)
        assert numbers() == expected


def test_reseeded_numbers_follow_the_seed_and_leave_no_trace() -> None:
    state = torch.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        with reseeded(seed, torch.device("cpu")):
            drawn.append(numbers())
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that no path names yet, with two modules."""
    (tmp_path / "named_module.py").write_text("class Made:\n    number = 7\n")
    (tmp_path / "json.py").write_text("raise AssertionError('it took the place of a library')")
    (tmp_path / "failing_module.py").write_text("raise OSError('two\\nlines')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_a_module_of_the_current_folder_is_imported_last(here: Path) -> None:
    assert import_here("named_module", "this").Made.number == 7
    assert import_here("named_module", "this", attribute="Made.number") == 7
    assert sys.path[-1] == str(here)
    sys.modules.pop("named_module")
    before = sys.modules.pop("json")
    try:
        assert import_here("json", "this").loads("[1]") == [1]
    finally:
        sys.modules["json"] = before


def test_what_cannot_be_imported_is_said_in_one_line(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"^this one cannot be imported: .*; looked in .* and the inst"):
        import_here("no_such_module", "this one")
    with pytest.raises(ConfigError, match=r"^this one cannot be imported: OSError: two lines$"):
        import_here("failing_module", "this one")
    with pytest.raises(ConfigError, match=r"has no attribute 'other'$"):
        import_here("named_module", "this one", attribute="Made.other")
