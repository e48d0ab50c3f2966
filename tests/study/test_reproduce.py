"""The paper beside ours: every row measured by an episode, tables and figures from the records alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from mipoison.storage.files import StorageError
from study import reproduce
from study.paper import run
from study.trial.failure import LostError
from tests.study.paper.helpers import TINY


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "nothing to do"),
        ("--table XI", "table"),
        ("--figure 9", "figure"),
        ("--table V --dataset cifar10", "not in what was asked for"),
        ("--table I --dataset mars", "dataset"),
        ("--table I --render --storage {root}/empty", "no records"),
        ("--table I --seeds 0 --storage {root}/new", "seeds"),
    ],
)
def test_bad_input_is_refused_in_a_line(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.main(arguments.format(root=tmp_path).split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("failure", [LostError("the anchors were lost 4 times"), StorageError("disk full")])
def test_what_ends_a_run_is_said_in_a_line(
    failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*given: object, **named: object) -> None:
        raise failure

    monkeypatch.setattr(run, "run_rows", fails)
    assert reproduce.main(f"{TINY} --table II --storage {tmp_path}".split()) == 1
    error = capsys.readouterr().err
    assert error == f"error: {failure}; finished episodes are kept. Continue with --resume\n"
