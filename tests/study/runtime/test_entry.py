"""An entry script is called by the name that a person used."""

import sys

import pytest

from study.runtime.entry import command, program


@pytest.mark.parametrize(
    ("called", "names"),
    [
        ("/opt/env/bin/mipoison", ("mipoison pareto", "mipoison pareto")),
        ("mipoison.exe", ("mipoison pareto", "mipoison pareto")),
        ("/srv/checkout/study/pareto.py", ("study/pareto.py", "python study/pareto.py")),
        ("", ("study/pareto.py", "python study/pareto.py")),
    ],
)
def test_names(called: str, names: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert (program("pareto"), command("pareto")) == names
