"""Measure what a growing study costs its driver and storage.

``python study/costs.py --trials 100 1000 10000`` prints one JSON object per size, see
:mod:`study.bench.study_growth`.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a while
    from study.runtime.signals import exit_on_signal

    exit_on_signal()

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from study.bench.json_lines import print_measurement
from study.runtime.arguments import parse
from study.runtime.progress import Progress, loading
from study.runtime.signals import as_command, until_signalled


@dataclass(frozen=True)
class Arguments:
    """Costs of a study's driver and storage as it grows."""

    trials: tuple[int, ...] = (100, 1000)
    """sizes of study"""
    out: Path | None = None
    """append the measurements there, one JSON object a line"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every size.

    Returns:
        The exit code: 0 success, 128 + the number of a signal.
    """
    return until_signalled(lambda: _measure_all(arguments))


def _measure_all(arguments: Sequence[str] | None) -> None:
    chosen, console = parse(Arguments, arguments, "costs"), Console(stderr=True)
    with loading(console):
        from study.bench.study_growth import Template, measure

        template = Template()
    with Progress(console) as progress:
        for i, trials in enumerate(chosen.trials):
            progress.brief(f"a study of {trials} trials", i, len(chosen.trials))
            print_measurement(measure(template, trials), chosen.out)


if __name__ == "__main__":
    sys.exit(as_command(main))
