"""The wheel works outside the checkout: the console command, a tiny study, its report; and beside a package
``study`` of somebody else.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STUDY = (
    "pareto --executor local --trials 1 --seeds 1 --limit 100 --victim-steps 5 --decoder-steps 3 "
    "--storage out --decoder-width 4 --attackers ridge label-only --defenses rounding --name tiny"
)


def run(words: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def assert_names_no_study(site: Path) -> None:
    """No module imports ``study``, or names one of its modules in a string."""
    rooms = {p.stem for p in (site / "mipoison_study").iterdir()}
    for path in site.rglob("mipoison*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in names if n.split(".")[0] == "study"], path
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                top, _, rest = node.value.partition(".")
                assert top != "study" or rest.split(".")[0] not in rooms, (path, node.value)


@pytest.mark.long
@pytest.mark.timeout(200)
def test_an_editable_installation_has_the_names_of_the_checkout(tmp_path: Path) -> None:
    if int(metadata.version("setuptools").split(".")[0]) < 77:
        pytest.skip("building needs setuptools 77 or later (extra test)")
    build = (
        "import sys; from setuptools import build_meta as b; out = sys.argv[1]\n"
        "made = b.prepare_metadata_for_build_editable(out + '/m')\n"
        "b.build_editable(out, None, out + '/m/' + made)"
    )
    (tmp_path / "m").mkdir()
    run([sys.executable, "-c", build, str(tmp_path)], ROOT, dict(os.environ))
    (wheel,) = tmp_path.glob("mipoison-*.whl")
    with zipfile.ZipFile(wheel) as files:
        (entry,) = [name for name in files.namelist() if name.endswith("entry_points.txt")]
        assert "mipoison = study.runtime.command:main" in files.read(entry).decode()


@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    if int(metadata.version("setuptools").split(".")[0]) < 77:
        pytest.skip("building needs setuptools 77 or later (extra test)")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)],
        ROOT,
        environment,
    )
    (wheel,) = tmp_path.glob("mipoison-*.whl")
    site, away = tmp_path / "site", tmp_path / "away"
    away.mkdir()
    run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], away, environment)
    for top in ("mipoison", "mipoison_study"):
        assert (site / top / "__init__.py").exists()
    assert {p.name for p in site.iterdir() if p.suffix != ".dist-info"} == {
        "bin",
        "mipoison",
        "mipoison_study",
    }
    (dist,) = site.glob("mipoison-*.dist-info")
    assert (dist / "top_level.txt").read_text().split() == ["mipoison", "mipoison_study"]
    assert_names_no_study(site)
    (away / "study.py").write_text("raise ImportError('somebody else')\n")
    environment["PYTHONPATH"] = os.pathsep.join([str(away), str(site)])
    command = str(site / "bin" / "mipoison")
    show = "import mipoison, mipoison_study as study; print(mipoison.__file__, study.__file__)"
    where = run([sys.executable, "-c", show], away, environment)
    assert all(path.startswith(str(site)) for path in where.split())
    assert "  pareto " in run([command, "--help"], away, environment)
    assert metadata.version("mipoison") in run([command, "--version"], away, environment)
    said = run([command, *STUDY.split()], away, environment)
    assert "9 episodes, 0% failed" in said
    page = run([command, "report", "out/tiny", "--vectors", "no"], away, environment)
    assert "report.html" in page
    text = (away / "out" / "tiny" / "report.html").read_text()
    assert text.startswith("<!doctype html>")
    assert 'data-chart="hero"' in text  # templates and scripts are in the wheel
    assert len(text) > 400_000
    assert '"label_version": 2' in (away / "out" / "tiny" / "label.json").read_text()
    assert list(site.rglob("schemas/label.json"))
    assert len(list(site.glob("mipoison-*.dist-info/licenses/**/LICENSE*"))) == 4  # ours and the scripts'
    assert (away / "out" / "tiny" / "frontier.png").stat().st_size > 1000
