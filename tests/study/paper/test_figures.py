"""Figures of the paper, drawn from the records."""

from __future__ import annotations

from pathlib import Path

import pytest

from study import reproduce
from tests.study.paper.helpers import TINY


def test_figures_are_drawn_and_the_rest_is_not_run_again(
    reproduced: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = reproduced / "reproduction"
    assert reproduce.main(f"{TINY} --render --figure 8 10 --storage {reproduced}".split()) == 0
    for name in ("figure_3_digits.png", "proposition_1_digits.png", "figure_8.png", "figure_10.png"):
        assert (folder / name).stat().st_size > 20_000, name
    before = {p.name: p.stat().st_mtime_ns for p in (folder / "digits" / "episodes").iterdir()}
    assert reproduce.main(f"{TINY} --table III --figure 3 --resume --storage {reproduced}".split()) == 0
    assert "nothing left to run" in capsys.readouterr().out
    assert before == {p.name: p.stat().st_mtime_ns for p in (folder / "digits" / "episodes").iterdir()}
