"""Audit an API that is deployed: ask it over HTTP, attack with its answers, and say what leaks.

``python study/audit.py URL --public FOLDER --private FOLDER``; ``--help`` explains every setting.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a while
    from study.runtime.signals import exit_on_signal

    exit_on_signal()

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from mipoison.config import ConfigError
from mipoison.data.images import DataError
from mipoison.storage.files import Storage, StorageError
from study.runtime.arguments import parse
from study.runtime.entry import DONE, FAILED, USAGE
from study.runtime.plain import visible_line
from study.runtime.progress import Progress, loading
from study.runtime.signals import Interrupts, as_command, interruptible

ABOVE, BROKEN = FAILED, 3
"""Exit codes: the excess is not shown to be within ``--fail-above``; the endpoint failed, run it again."""
SILENT_S = 10.0
"""Seconds after which a log gets a line of how many questions are answered."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Attack a deployed API as a study does, over HTTP, with at most --queries questions.

    Every answer is kept below --out, and the same command goes on where a broken one ended. Exit code 0:
    done. 1: the excess leakage is not shown to be within --fail-above. 2: bad input. 3: the endpoint refused,
    failed, or answers otherwise than in an earlier run. Ask only endpoints that you may ask.
    """

    url: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="URL")]
    """where images are posted, one a request"""
    public: Path
    """folder of the attacker's own images, <class>/<image> or the images themselves"""
    private: Path | None = None
    """folder with train/ (the classifier was trained on these) and test/ (it was not), or one of them;
    default: what can be said without private images"""
    private_are: str | None = None
    """train or test: what the images of --private are, where it has no such folders"""
    size: int | None = None
    """side of the images that are sent, in pixels; default: that of the public images"""
    queries: int = 2000
    """most questions, those of earlier runs included; a run that goes on asks 5 of them again (15 if answers
    differ), which come on top"""
    body: str = "png"
    """png: the body is a PNG file. Or JSON with "@image" (nested lists) or "@png64" (PNG, base64) in it"""
    layout: str = "chw"
    """order of the nested lists: chw, hwc, hw, or flat"""
    scale: str = "unit"
    """pixels from 0 to 1 (unit) or 0 to 255 (byte)"""
    header: Annotated[tuple[str, ...], tyro.conf.arg(metavar="'NAME: VALUE'")] = ()
    """headers of each request; $VARIABLE in a value is read from the environment, and kept nowhere"""
    scores: str = "released.0"
    """path to the scores in the answer, e.g. predictions.0.scores; '' if the answer is a list of scores"""
    rate: float = 20.0
    """most questions a second; 0: as fast as it answers"""
    retries: int = 8
    """of a question to which the endpoint answers 429 or 5xx, or not at all; waits double, or are what
    Retry-After says"""
    timeout_s: float = 60.0
    """longest time for one answer"""
    ask_again: bool = False
    """ask once more where a kept answer has no scores in it"""
    fail_above: float | None = None
    """exit with code 1 unless the excess leakage is shown to be within this, on all private images; needs
    --private with images that the classifier was trained on"""
    test_only_is_enough: bool = False
    """--fail-above accepts private images of which the classifier was trained on none"""
    seed: int = 0
    """which images are asked, and the attackers' random numbers"""
    out: str = "results/audit"
    """folder of this endpoint's answers, audit.json and report.txt"""

    def check(self) -> None:
        """Raise ConfigError for a value that is out of bounds."""
        bounds = (("retries", 0, 100), ("timeout_s", 0.1, 3600), ("rate", 0, 10_000), ("seed", 0, 2**31))
        for name, low, high in bounds:
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be between {low} and {high}")
        if self.fail_above is not None and not 0 <= self.fail_above < 1:
            raise ConfigError(f"fail_above = {self.fail_above}: must be between 0 and 1")
        if self.fail_above is not None and self.private is None:
            raise ConfigError("--fail-above says nothing without private images: give --private")


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit; returns the exit code, see :class:`Arguments`, or 128 + the number of a signal."""
    with interruptible() as interrupts:
        return _main(arguments, interrupts)


def _main(arguments: Sequence[str] | None, interrupts: Interrupts) -> int:
    chosen = parse(Arguments, arguments, "audit")
    console = Console(highlight=False, soft_wrap=True)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        chosen.check()
        with loading(errors):
            import study.auditing.audit  # noqa: F401  it imports torch
            from study.auditing.asking import BudgetSpentError
            from study.auditing.endpoint import EndpointError
            from study.auditing.scores import AnswerError
        try:
            return _run(chosen, console)
        except (EndpointError, AnswerError, BudgetSpentError) as error:
            errors.print(f"error: {visible_line(error)}", style="bold red", markup=False)
            errors.print(_kept(chosen.out), markup=False)
            return BROKEN
    except (ConfigError, DataError, StorageError, OSError) as error:
        errors.print(f"error: {visible_line(error)}", style="bold red", markup=False)
        return USAGE
    except KeyboardInterrupt:
        errors.print(f"{interrupts.reason}; {_kept(chosen.out)}", markup=False)
        return interrupts.exit_code


def _kept(out: str) -> str:
    from study.auditing.answers import any_kept

    if any_kept(Path(out)):
        return f"all answers are kept in {out}: the same command goes on"
    return f"there is no answer yet: the command, corrected or not, may use {out} again"


def _run(chosen: Arguments, console: Console) -> int:
    from study.auditing.answers import Answers
    from study.auditing.asking import Asker
    from study.auditing.audit import audit
    from study.auditing.endpoint import Endpoint
    from study.auditing.findings import text_of
    from study.auditing.images import read_images
    from study.auditing.template import Template

    template = Template(
        url=chosen.url,
        body=chosen.body,
        layout=chosen.layout,
        scale=chosen.scale,
        headers=chosen.header,
    )
    images = read_images(chosen.public, chosen.private, private_are=chosen.private_are, size=chosen.size)
    out = Path(chosen.out)
    bar = 0.02 if chosen.fail_above is None else chosen.fail_above
    progress = Progress(Console(stderr=True), silent_s=SILENT_S)
    endpoint = Endpoint(
        template, rate=chosen.rate, retries=chosen.retries, timeout_s=chosen.timeout_s, told=progress.say
    )  # fmt: skip
    with Answers(out, template.identity()) as answers, progress:
        asker = Asker(
            endpoint.ask,
            answers,
            path=chosen.scores,
            budget=chosen.queries,
            again=chosen.ask_again,
            told=lambda n: progress.part(n, chosen.queries),
        )
        try:
            found = audit(
                asker, images, url=template.shown_url, budget=chosen.queries, bar=bar, seed=chosen.seed,
                told=progress.stage,
            )  # fmt: skip
        finally:
            endpoint.close()
    storage, text = Storage(out), text_of(found)
    storage.write("audit.json", json.dumps(found.plain(), indent=1).encode())
    storage.write("report.txt", f"{text}\n".encode())
    console.print(text, markup=False)
    console.print(f"answers, audit.json and report.txt: {chosen.out}", markup=False)
    if chosen.fail_above is None:
        return DONE
    if not found.trained and not chosen.test_only_is_enough:
        console.print(
            "exit code 1: no image was asked that the classifier was trained on; "
            "--test-only-is-enough accepts that",
            markup=False,
        )
        return ABOVE
    return ABOVE if found.above else DONE


if __name__ == "__main__":
    sys.exit(as_command(main))
