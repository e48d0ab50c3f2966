"""Who runs the paper's rows: in one order, and an error where nothing measures a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from mipoison.config import ConfigError
from study import reproduce
from study.paper import experiments
from study.paper.experiments import NUMBERS, PaperRow
from study.paper.run import missing, records_for
from tests.study.paper.helpers import TINY


def test_records_are_neither_overwritten_nor_mixed(
    reproduced: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.main(f"{TINY} --table II --storage {reproduced}".split()) == 2
    assert "--resume" in capsys.readouterr().err
    other = TINY.replace("--decoder-steps 16", "--decoder-steps 21")
    assert reproduce.main(f"{other} --table II --resume --storage {reproduced}".split()) == 2
    assert "decoder_steps: 16 -> 21" in capsys.readouterr().err


def test_attackers_of_equal_cost_are_in_one_order(tmp_path: Path) -> None:
    """A set's order would differ from process to process, and with it the order of records and training."""
    rows = [PaperRow("I", "mnist", "none", (), name) for name in ("raw", "passive", "noise", "ridge")]
    todo = missing(records_for(str(tmp_path), "mnist"), rows, "mnist")
    assert todo["none"].attackers == ("ridge", "passive", "raw", "noise")


def test_a_row_that_nothing_measures_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = NUMBERS.read_text().replace("I,mnist,lfp,tcnn-mse", "I,mnist,unheard-of,tcnn-mse")
    (tmp_path / "numbers.csv").write_text(text)
    monkeypatch.setattr(experiments, "NUMBERS", tmp_path / "numbers.csv")
    experiments.table_rows.cache_clear()
    with pytest.raises(ConfigError, match="unheard-of"):
        experiments.table_rows("I")
    monkeypatch.undo()
    experiments.table_rows.cache_clear()
