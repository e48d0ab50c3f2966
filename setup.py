"""What pyproject.toml cannot say: in a wheel the package ``study`` is called ``mipoison_study``.

A checkout keeps the short name, as ``python study/pareto.py`` and the documentation use it. Whoever installs
the wheel gets no top-level package with a name as common as ``study``, which their own may have.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

OURS, THEIRS = "study", "mipoison_study"
ROOT = Path(__file__).parent
ROOMS = "|".join(
    sorted(p.stem for p in (ROOT / OURS).iterdir() if p.suffix == ".py" or (p / "__init__.py").exists())
)
IMPORTED = re.compile(rf"^(\s*(?:from|import)\s+){OURS}(?=[.\s])", re.MULTILINE)
NAMED = re.compile(rf"(?<=[\"'`]){OURS}(?=\.(?:{ROOMS})\b)")
"""Modules that are named in strings: imported when they are needed, or meant in a docstring."""


def renamed(source: str) -> str:
    """A module's source with the wheel's names of the package."""
    return NAMED.sub(THEIRS, IMPORTED.sub(rf"\g<1>{THEIRS}", source))


class BuildPy(build_py):
    """Copies the packages, and renames the study where they are no links to the checkout."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        built = Path(self.build_lib)
        shutil.rmtree(built / THEIRS, ignore_errors=True)
        (built / OURS).rename(built / THEIRS)
        for path in built.rglob("*.py"):
            path.write_text(renamed(path.read_text("utf-8")), "utf-8")

    def get_outputs(self, include_bytecode: int = 1) -> list[str]:
        """The files that :meth:`run` leaves."""
        found = super().get_outputs(include_bytecode)
        if self.editable_mode:
            return found
        before, after = (str(Path(self.build_lib) / name) for name in (OURS, THEIRS))
        return [after + path.removeprefix(before) if path.startswith(before) else path for path in found]


class Wheel(bdist_wheel):
    """Writes the renamed package into the wheel's entry points and its list of packages, but not into those
    of an editable installation, which links to the checkout."""

    def write_wheelfile(self, wheelfile_base: str, *args: str, **more: str) -> None:
        """Called for both when the folder of metadata is complete, however it was made."""
        super().write_wheelfile(wheelfile_base, *args, **more)
        if "editable_wheel" in self.distribution.commands:
            return
        for name in ("entry_points.txt", "top_level.txt"):
            path = Path(wheelfile_base) / name
            text = path.read_text("utf-8")
            path.write_text(re.sub(rf"(?m)(^|= ){OURS}(?=[.\s])", rf"\g<1>{THEIRS}", text), "utf-8")


setup(cmdclass={"build_py": BuildPy, "bdist_wheel": Wheel})
