"""Measure speed, cost and scale on this device, each as a ratio within the same run.

``python study/benchmark.py --help`` explains every setting.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a while
    from study.runtime.signals import exit_on_signal

    exit_on_signal()

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from mipoison.config import ConfigError, choose
from mipoison.storage.files import Storage
from study.bench import BENCHMARKS
from study.runtime.arguments import parse
from study.runtime.entry import DONE, FAILED, USAGE
from study.runtime.plain import markdown_text
from study.runtime.progress import Progress, loading
from study.runtime.signals import Interrupts, as_command, interruptible

if TYPE_CHECKING:
    from study.bench.measurement import Measurement


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Benchmarks of the device at hand. Writes <out>/benchmark.parquet and <out>/benchmark.md."""

    only: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help=f"these benchmarks alone: {', '.join(BENCHMARKS)}", metavar="NAME [NAME ...]"),
    ] = ()
    quick: bool = False
    """smallest sizes: shows that everything runs, its numbers say nothing"""
    threads: int | None = None
    """CPU threads of torch; default: as many as there are cores"""
    out: str = "results/benchmark"
    """where to write: a folder, or s3://bucket/prefix"""

    def checked(self) -> Arguments:
        """Returns itself; raises ConfigError for an invalid argument."""
        for name in self.only:
            choose("benchmark", name, BENCHMARKS)
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads = {self.threads}: must be at least 1")
        Storage(self.out).check_writable()
        return self


def header(quick: bool) -> str:
    """The report's title, and the hardware and versions of the measurements."""
    import torch

    from mipoison.metrics.machine import device_name, versions

    lines = [
        "# Benchmark" + (" (--quick: sizes too small to say anything)" if quick else ""),
        "",
        f"{time.strftime('%Y-%m-%d')}, device: {device_name()}, {processor()}, {torch.get_num_threads()} "
        f"threads on {os.cpu_count()} cores; {versions()}.",
        "",
        "Ratios compare medians of the same run, the cases taking turns; above 1 is better than what it is "
        "held against. Absolute times belong to this machine and what else it did.",
    ]
    return "\n".join(lines)


def processor() -> str:
    """The name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return "processor unknown"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks.

    Returns:
        The exit code: 0 success, 1 a benchmark failed, 2 invalid input, 128 + the number of a signal.
    """
    with interruptible() as interrupts:
        return _main(arguments, interrupts)


def _main(arguments: Sequence[str] | None, interrupts: Interrupts) -> int:
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    console = Console(highlight=False)
    try:
        settings = parse(Arguments, arguments, "benchmark").checked()
    except ConfigError as error:
        errors.print(f"error: {error}", style="bold red", markup=False)
        return USAGE
    try:
        with loading(console):
            import torch
            from rich.markdown import Markdown

            from study.bench.measurement import Measurement
    except KeyboardInterrupt:
        errors.print(f"{interrupts.reason}; nothing was measured", markup=False)
        return interrupts.exit_code
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    storage, rows, failed = Storage(settings.out), list[Measurement](), list[str]()
    names = settings.only or tuple(BENCHMARKS)
    threads = torch.get_num_threads()
    try:
        with Progress(console) as progress:
            for i, name in enumerate(names):
                progress.note(f"benchmark {i + 1} of {len(names)}: {name}", i, len(names))
                try:
                    for row in BENCHMARKS[name]()(quick=settings.quick):
                        rows.append(row if isinstance(row, Measurement) else Measurement(**row))
                except Exception as error:  # the others go on; the exit code says it
                    failed.append(f"{name}: {type(error).__name__}: {error}".splitlines()[0])
                torch.set_num_threads(threads)
                _write(storage, rows, failed, settings.quick)  # after each one, so that nothing is lost
    except KeyboardInterrupt:
        errors.print(f"{interrupts.reason}; what was measured is in {settings.out}", markup=False)
        return interrupts.exit_code
    console.print(Markdown(_text(rows, failed, settings.quick)))
    console.print(f"{settings.out}/benchmark.md, {settings.out}/benchmark.parquet", markup=False)
    for text in failed:
        errors.print(f"failed: {text}", style="bold red", markup=False)
    return FAILED if failed else DONE


def _text(rows: list[Measurement], failed: list[str], quick: bool) -> str:
    from study.bench.measurement import markdown

    lost = "".join(f"\n\n**failed:** {markdown_text(text)}" for text in failed)
    return markdown(rows, header(quick) + lost)


def _write(storage: Storage, rows: list[Measurement], failed: list[str], quick: bool) -> None:
    from mipoison.metrics.machine import device_name, versions
    from study.bench.measurement import to_frame

    frame = to_frame(rows).assign(
        device=device_name(), processor=processor(), versions=versions(), quick=quick
    )
    storage.write("benchmark.parquet", frame.to_parquet(index=False))
    storage.write("benchmark.md", (_text(rows, failed, quick) + "\n").encode())


if __name__ == "__main__":
    sys.exit(as_command(main))
